//! What was found, as lines for a person or as JSON for a program.

use std::fmt;

use serde::Serialize;

/// How things stand with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// Nothing to do.
    Ok,
    /// Worth knowing; things work without.
    Note,
    /// Something does not work.
    Mend,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it stands.
    pub grade: Grade,
    /// What was looked at, in a word or two.
    pub about: String,
    /// What was found.
    pub what: String,
    /// What to do; empty when there is nothing.
    pub remedy: String,
}

impl Finding {
    /// Nothing to do.
    #[must_use]
    pub fn ok(about: &str, what: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, about: about.to_owned(), what: what.into(), remedy: String::new() }
    }

    /// Worth knowing.
    #[must_use]
    pub fn note(about: &str, what: impl Into<String>, remedy: &str) -> Self {
        Self { grade: Grade::Note, about: about.to_owned(), what: what.into(), remedy: remedy.to_owned() }
    }

    /// Something does not work.
    #[must_use]
    pub fn mend(about: &str, what: impl Into<String>, remedy: &str) -> Self {
        Self { grade: Grade::Mend, about: about.to_owned(), what: what.into(), remedy: remedy.to_owned() }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Report {
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether something does not work.
    #[must_use]
    pub fn is_ill(&self) -> bool {
        self.count(Grade::Mend) > 0
    }

    fn count(&self, grade: Grade) -> usize {
        self.findings.iter().filter(|finding| finding.grade == grade).count()
    }
}

/// Longest line of a remedy, in characters.
const WIDTH: usize = 100;

/// For people: a line for each, and under it what to do.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.about.chars().count()).max().unwrap_or(0);
        for Finding { grade, about, what, remedy } in &self.findings {
            let mark = match grade {
                Grade::Ok => "ok  ",
                Grade::Note => "note",
                Grade::Mend => "MEND",
            };
            for (place, line) in what.lines().flat_map(wrapped).enumerate() {
                let (mark, about) = if place == 0 { (mark, about.as_str()) } else { ("    ", "") };
                writeln!(out, "{mark}  {about:<width$}  {line}")?;
            }
            for (place, line) in wrapped(remedy).iter().enumerate() {
                let arrow = if place == 0 { "->" } else { "  " };
                writeln!(out, "      {:<width$}  {arrow} {line}", "")?;
            }
        }
        let plural = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
        let notes = plural(self.count(Grade::Note), "note");
        match self.count(Grade::Mend) {
            0 => writeln!(out, "\nnothing to mend, {notes}"),
            mend => writeln!(out, "\n{} to mend, {notes}", plural(mend, "thing")),
        }
    }
}

/// Lines of whole words; none for an empty text.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + word.chars().count() < WIDTH) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
