//! Which DCGM families a page has, under which names, with which labels: as `--dcgm-names` says, or as a counters CSV in dcgm-exporter's format chooses.
//! A row that cannot be used costs that row; what was wrong with it is told with its line.

use std::collections::BTreeSet;

use super::{Family, Kind, dcgm};
use crate::config::DcgmNames;
use crate::gpu::Identity;

/// Most rows read: DCGM has some hundreds of fields.
const ROWS_MAX: usize = 2_000;
/// Bad rows told of a file that has no good one.
const TOLD_MAX: usize = 3;
/// Longest help text kept, in characters.
const HELP_MAX: usize = 500;

/// The families of one page, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Families with values.
    pub shown: Vec<Shown>,
    /// Labels on every series of theirs.
    pub labels: Vec<Label>,
}

/// One family as it is shown.
#[derive(Clone)]
pub struct Shown {
    /// Where its values come from.
    pub family: &'static Family,
    /// Its name on the page.
    pub name: String,
    /// Its type on the page.
    pub kind: Kind,
    /// Its help on the page.
    pub help: String,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {} of {}", self.kind.word(), self.name, self.family.name)
    }
}

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.kind, &self.help, self.family.name)
            == (&other.name, other.kind, &other.help, other.family.name)
    }
}

impl Eq for Shown {}

/// A field that is a label, as `DCGM_FI_DRIVER_VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name on the page.
    pub name: &'static str,
    value: Known,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    DriverVersion,
    Model,
    Uuid,
    PciBusId,
    Minor,
    Index,
}

/// Fields that are labels here.
const LABELS: [(&str, Known); 6] = [
    ("DCGM_FI_DRIVER_VERSION", Known::DriverVersion),
    ("DCGM_FI_DEV_NAME", Known::Model),
    ("DCGM_FI_DEV_UUID", Known::Uuid),
    ("DCGM_FI_DEV_PCI_BUSID", Known::PciBusId),
    ("DCGM_FI_DEV_MINOR_NUMBER", Known::Minor),
    ("DCGM_FI_DEV_NVML_INDEX", Known::Index),
];

impl Label {
    /// Its value for a GPU; `None` where it was not read.
    #[must_use]
    pub fn of(&self, gpu: &Identity, driver_version: Option<&str>) -> Option<String> {
        match self.value {
            Known::DriverVersion => driver_version.map(str::to_owned),
            Known::Model => gpu.model.as_deref().map(str::to_owned),
            Known::Uuid => Some((*gpu.uuid).to_owned()),
            Known::PciBusId => gpu.pci_bus_id.as_deref().map(str::to_owned),
            Known::Minor => gpu.minor.map(|minor| minor.to_string()),
            Known::Index => Some(gpu.index.to_string()),
        }
    }
}

/// What is wrong with a counters CSV, for a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaints {
    /// One line each: where, what, what to try.
    pub rows: Vec<String>,
    /// Fields that the agent does not read, each once.
    pub unknown: BTreeSet<String>,
}

impl Choice {
    /// What dcgm-exporter shows unasked, under the names chosen.
    #[must_use]
    pub fn of(names: DcgmNames) -> Self {
        if names == DcgmNames::Off {
            return Self::default();
        }
        let shown = |family: &'static Family| Shown {
            family,
            name: family.name_as(names).to_owned(),
            kind: family.kind,
            help: family.help.to_owned(),
        };
        let [(name, value), ..] = LABELS;
        Self { shown: dcgm::FAMILIES.iter().map(shown).collect(), labels: vec![Label { name, value }] }
    }

    /// Reads the bytes of a counters CSV. An error says why nothing of it can be used. A file without a row is such a case too: it is being written,
    /// or cut short.
    pub fn read(bytes: &[u8]) -> Result<(Self, Complaints), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not a text in UTF-8")?;
        let (choice, complaints) = Self::parse(text);
        if !choice.shown.is_empty() || !complaints.unknown.is_empty() {
            return Ok((choice, complaints));
        }
        let rows = complaints.rows.get(..TOLD_MAX).unwrap_or(&complaints.rows).join("; ");
        Err(match complaints.rows.len() {
            0 => "no row in it; to show no DCGM families say --dcgm-names off".to_owned(),
            count if count > TOLD_MAX => format!("no row of it can be used; {rows}; and {} more", count - TOLD_MAX),
            _ => format!("no row of it can be used; {rows}"),
        })
    }

    /// Reads a counters CSV: `field, type, help` a line, `#` for comments. Names are shown as they are written.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Complaints) {
        let (mut choice, mut complaints) = (Self::default(), Complaints::default());
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let rows = (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        for (count, (number, line)) in rows.enumerate() {
            if count == ROWS_MAX {
                complaints.rows.push(format!("line {number}: more than {ROWS_MAX} rows; the rest is left out"));
                break;
            }
            match choice.take(line) {
                Ok(()) => {}
                Err(Refused::Unknown(field)) => _ = complaints.unknown.insert(field),
                Err(Refused::Row(what)) => complaints.rows.push(format!("line {number}: {what}")),
            }
        }
        (choice, complaints)
    }

    fn take(&mut self, line: &str) -> Result<(), Refused> {
        let fields = fields(line)?;
        let [field, kind, help] = fields.as_slice() else {
            let count = fields.len();
            return Err(Refused::Row(format!(
                "{count} columns; write `field, type, help`, and quotes around a help with commas"
            )));
        };
        let again = || Refused::Row(format!("{field} is there already; remove one of the rows"));
        let label = LABELS.iter().find(|(name, _)| name == field);
        if let Some(&(name, value)) = label {
            if kind != "label" {
                return Err(Refused::Row(format!(
                    "{field} is a label here, no {kind:?}; write `{field}, label, {help}`"
                )));
            }
            if self.labels.iter().any(|known| known.name == name) {
                return Err(again());
            }
            self.labels.push(Label { name, value });
            return Ok(());
        }
        let named = |family: &&Family| family.name == field || family.renamed == Some(field);
        let Some(family) = dcgm::FAMILIES.iter().chain(dcgm::FURTHER).find(named) else {
            return Err(unknown(field));
        };
        let kind = match kind.as_str() {
            "gauge" => Kind::Gauge,
            "counter" => Kind::Counter,
            "label" => {
                return Err(Refused::Row(format!(
                    "{field} is a number and cannot be a label; write {}",
                    family.kind.word()
                )));
            }
            _ => return Err(Refused::Row(format!("{kind:?} is no type for {field}; write {}", family.kind.word()))),
        };
        if self.shown.iter().any(|shown| shown.family.name == family.name) {
            return Err(again());
        }
        let help = help.chars().take(HELP_MAX).collect();
        self.shown.push(Shown { family, name: field.clone(), kind, help });
        Ok(())
    }
}

enum Refused {
    /// A field that is not read here; it may be a good one to dcgm-exporter.
    Unknown(String),
    /// A row that nobody can use.
    Row(String),
}

fn unknown(field: &str) -> Refused {
    let known = dcgm::FAMILIES.iter().chain(dcgm::FURTHER).map(|family| family.name);
    let near = known.chain(LABELS.iter().map(|(name, _)| *name)).find(|name| slip(name, field));
    match near {
        Some(near) => Refused::Row(format!("{field} is no field; {near} is")),
        None if field.starts_with("DCGM_") => Refused::Unknown(field.chars().take(80).collect()),
        None => Refused::Row(format!(
            "{field:?} is no DCGM field; the agent's own families are always there and not chosen here"
        )),
    }
}

/// Whether two names differ by one letter more, less or other, or by case.
fn slip(name: &str, written: &str) -> bool {
    let (name, written) = (name.as_bytes(), written.as_bytes());
    if name.len().abs_diff(written.len()) > 1 {
        return false;
    }
    let same = |(one, other): &(&u8, &u8)| one.eq_ignore_ascii_case(other);
    let start = name.iter().zip(written).take_while(same).count();
    let end = name.iter().rev().zip(written.iter().rev()).take_while(same).count();
    start + end + 1 >= name.len().max(written.len())
}

/// The columns of a line, trimmed, out of their quotes.
fn fields(line: &str) -> Result<Vec<String>, Refused> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let text = text.trim();
        let (field, after) = match text.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => match text.split_once(',') {
                Some((field, after)) => (field.trim().to_owned(), Some(after)),
                None => (text.to_owned(), None),
            },
        };
        fields.push(field);
        rest = after;
    }
    Ok(fields)
}

/// Up to the closing quote; two quotes are one.
fn quoted_field(text: &str) -> Result<(String, Option<&str>), Refused> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err(Refused::Row("a quote is not closed".into()));
        };
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(further) => {
                field.push('"');
                rest = further;
            }
            None => {
                let after = after.trim_start();
                return match after.strip_prefix(',') {
                    Some(further) => Ok((field, Some(further))),
                    None if after.is_empty() => Ok((field, None)),
                    None => Err(Refused::Row("text after a closing quote; double the quotes inside".into())),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;
