//! CA's priority list, in CA's own format: the highest number with a matching pattern wins. Without a list, spot comes
//! before on-demand.
//!
//! ```yaml
//! 50:
//!   - .*spot.*
//! 10:
//!   - .*
//! ```
//!
//! CA searches with Go's regular expressions, this with the `regex` crate; both are of the RE2 family and neither knows
//! look-around or back-references. What Go takes and this refuses, with a message: `\Q…\E`, `\C`, a bare `{` as a
//! letter, an unescaped `[` inside a class. On names of ASCII letters the rest means the same.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use super::{Candidate, Policy, Word};
use crate::fleet::group::{Group, Market};

/// Most patterns in one list; CA has no limit, but nobody writes a thousand by hand.
const MOST_PATTERNS: usize = 10_000;
/// Compiled size of one pattern, in bytes: stops `a{1000}{1000}`.
const PATTERN_SIZE: usize = 1 << 20;

/// A priority list, compiled.
#[derive(Clone, Debug, Default)]
pub struct Priorities {
    /// Highest first.
    ranks: Vec<(i64, Vec<Regex>)>,
    warnings: Vec<String>,
}

/// Why a text is no priority list: what, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct BadPriorities {
    /// File, and line or key.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to try.
    pub remedy: String,
}

const REMEDY: &str = "write numbers with lists of patterns, as in `50: [\".*spot.*\"]`";

impl Priorities {
    /// Reads the value of the ConfigMap's key `priorities`, or a whole ConfigMap manifest that has one. `file` is for
    /// messages.
    ///
    /// # Errors
    /// Text that is not YAML, not numbers with lists of patterns, or a pattern that does not compile.
    pub fn parse(text: &str, file: &str) -> Result<Self, BadPriorities> {
        let bad = |error: serde_saphyr::Error| yaml_error(&error, file);
        let inner = match manifest(text) {
            Some(Manifest { data: Some(mut data), .. }) => data.remove("priorities").ok_or_else(|| BadPriorities {
                place: format!("{file}: data"),
                what: "the ConfigMap has no key `priorities`".to_owned(),
                remedy: "CA reads the list from that key only".to_owned(),
            })?,
            _ => text.to_owned(),
        };
        let list: BTreeMap<i64, Vec<String>> = serde_saphyr::from_str(&inner).map_err(bad)?;
        Self::compile(&list, file)
    }

    /// Compiles a list that a configuration holds itself.
    ///
    /// # Errors
    /// An empty list, too many patterns, or a pattern that does not compile.
    pub fn compile(list: &BTreeMap<i64, Vec<String>>, file: &str) -> Result<Self, BadPriorities> {
        let bad = |what: String| BadPriorities { place: file.to_owned(), what, remedy: REMEDY.to_owned() };
        if list.values().all(Vec::is_empty) {
            return Err(bad("the list has no pattern".to_owned()));
        }
        let count: usize = list.values().map(Vec::len).sum();
        if count > MOST_PATTERNS {
            return Err(bad(format!("{count} patterns are more than {MOST_PATTERNS}")));
        }
        let mut ranks = Vec::with_capacity(list.len());
        for (priority, patterns) in list.iter().rev() {
            let compiled = patterns.iter().enumerate().map(|(place, pattern)| {
                let regex = RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
                regex.map_err(|error| pattern_error(&error, &format!("{file}: {priority}[{place}]"), pattern))
            });
            ranks.push((*priority, compiled.collect::<Result<Vec<_>, _>>()?));
        }
        Ok(Self { warnings: warnings(list), ranks })
    }

    /// What a person should look at: a list can be valid and still say the opposite of what was meant.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The highest number with a pattern that is found in the name. Below -1 nothing wins, as in CA.
    #[must_use]
    pub fn of(&self, group: &str) -> Option<i64> {
        let ranks = self.ranks.iter().take_while(|(priority, _)| *priority >= -1);
        let found = |(_, patterns): &&(i64, Vec<Regex>)| patterns.iter().any(|pattern| pattern.is_match(group));
        ranks.into_iter().find(found).map(|(priority, _)| *priority)
    }

    /// A list that ranks every spot group of this fleet below an on-demand one, which many published examples do by
    /// mistake: the highest number wins.
    #[must_use]
    pub fn upside_down<'a>(&self, groups: impl Iterator<Item = &'a Group>) -> Option<String> {
        let (mut spot, mut on_demand) = (None, None);
        for group in groups {
            let best = if group.market == Market::Spot { &mut spot } else { &mut on_demand };
            let rank = (self.of(group.id.as_str()), &group.id);
            *best = Some(best.map_or(rank, |best: (Option<i64>, _)| if rank.0 > best.0 { rank } else { best }));
        }
        let ((spot, spot_group), (on_demand, on_demand_group)) = (spot?, on_demand?);
        let shown = |rank: Option<i64>| rank.map_or("no priority".to_owned(), |rank| rank.to_string());
        (spot < on_demand).then(|| {
            let (low, high) = (shown(spot), shown(on_demand));
            format!(
                "on-demand ({on_demand_group}: {high}) ranks above spot ({spot_group}: {low}): the highest number wins"
            )
        })
    }
}

/// Only what is looked for in a ConfigMap.
#[derive(serde::Deserialize)]
struct Manifest {
    kind: String,
    data: Option<BTreeMap<String, String>>,
}

fn manifest(text: &str) -> Option<Manifest> {
    serde_saphyr::from_str::<Manifest>(text).ok().filter(|manifest| manifest.kind == "ConfigMap")
}

/// A pattern that names spot under a lower number than one that names on-demand.
fn warnings(list: &BTreeMap<i64, Vec<String>>) -> Vec<String> {
    let highest = |names: &[&str]| {
        let named = |pattern: &String| names.iter().any(|name| pattern.to_ascii_lowercase().contains(name));
        list.iter()
            .rev()
            .find_map(|(priority, patterns)| Some((*priority, patterns.iter().find(|pattern| named(pattern))?)))
    };
    let (spot, on_demand) = (highest(&["spot", "preempt"]), highest(&["on-demand", "ondemand", "on_demand"]));
    match (spot, on_demand) {
        (Some((low, spot)), Some((high, on_demand))) if low < high => vec![format!(
            "`{spot}` ({low}) ranks below `{on_demand}` ({high}): the highest number wins, so on-demand is bought first"
        )],
        _ => Vec::new(),
    }
}

fn yaml_error(error: &serde_saphyr::Error, file: &str) -> BadPriorities {
    let text = error.to_string();
    let place = match error.location() {
        Some(at) => format!("{file}:{}:{}", at.line(), at.column()),
        None => file.to_owned(),
    };
    BadPriorities { place, what: text.lines().next().unwrap_or_default().to_owned(), remedy: REMEDY.to_owned() }
}

fn pattern_error(error: &regex::Error, place: &str, pattern: &str) -> BadPriorities {
    let why = match error {
        regex::Error::Syntax(text) => {
            text.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it does not parse")
        }
        _ => "it is too large",
    };
    let remedy = match pattern.starts_with('*') {
        true => "patterns are regular expressions, not globs: write `.*` for `*`",
        false => "write it in RE2 syntax, with `{`, `[` and `\\` escaped where they are meant as letters",
    };
    BadPriorities {
        place: place.to_owned(),
        what: format!("`{pattern}` is no pattern ({why})"),
        remedy: remedy.to_owned(),
    }
}

/// Highest number, or spot first; what no pattern matches goes when another is matched.
pub(super) fn judge(row: &[Candidate<'_>], policy: &Policy) -> Vec<Word> {
    match &policy.priorities {
        Some(list) => by_list(row, list),
        None => spot_first(row),
    }
}

fn by_list(row: &[Candidate<'_>], list: &Priorities) -> Vec<Word> {
    let ranks: Vec<_> = row.iter().map(|candidate| list.of(candidate.choice.id.as_str())).collect();
    let highest = ranks.iter().copied().max().flatten();
    let word = |rank: &Option<i64>| match (rank, highest) {
        (_, None) => Word::Keep("no pattern of the priority list matches any group".to_owned()),
        (Some(rank), Some(highest)) if *rank == highest => Word::Keep(format!("priority {rank}, the highest here")),
        (Some(rank), Some(highest)) => Word::Drop(format!("priority {rank}, where {highest} is the highest")),
        (None, Some(highest)) => Word::Drop(format!("no pattern matches, where {highest} is the highest")),
    };
    ranks.iter().map(word).collect()
}

fn spot_first(row: &[Candidate<'_>]) -> Vec<Word> {
    let is_spot = |candidate: &Candidate<'_>| candidate.choice.group.is_some_and(|group| group.market == Market::Spot);
    let any = row.iter().any(is_spot);
    let word = |candidate: &Candidate<'_>| match (any, is_spot(candidate)) {
        (true, true) => Word::Keep("spot first".to_owned()),
        (true, false) => Word::Drop("spot first, and this is on-demand".to_owned()),
        (false, _) => Word::Keep("no spot group is left".to_owned()),
    };
    row.iter().map(word).collect()
}

#[cfg(test)]
mod tests;
