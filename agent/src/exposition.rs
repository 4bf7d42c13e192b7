//! From a snapshot to the text of `/metrics`: pure, and the same whatever page came before it, so that gone pods leave nothing behind.
//! An earlier page only saves work: while it was about the same subjects, its label sets stay and its unchanged lines are copied.

pub mod forms;

mod labels;
mod lines;
mod rows;
mod series;
mod subjects;

use std::sync::Arc;

use bytes::Bytes;

use self::labels::LabelSets;
use self::lines::{Earlier, Line, Lines};
use self::rows::Rows;
use self::series::Series;
use self::subjects::Subjects;
use crate::attribution::Snapshot;
use crate::attribution::totals::Totals;
use crate::families::choice::Choice;
use crate::families::{self, Own};
use crate::pods::identity::Identities;

/// What a page is made from.
pub struct Sources<'a> {
    /// The tick.
    pub snapshot: &'a Snapshot,
    /// Uids and labels of pods.
    pub identities: &'a Arc<Identities>,
    /// The counters, advanced to the tick.
    pub totals: &'a Totals,
    /// Time of the reading, seconds since 1970.
    pub time: f64,
    /// The `node` label.
    pub node: &'a str,
    /// The DCGM families, with their names.
    pub choice: &'a Arc<Choice>,
    /// The agent about itself.
    pub own: &'a Own<'a>,
    /// Most series that the page may have.
    pub series_max: usize,
}

/// A rendered page, with what saves work on the next one.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Prometheus text format 0.0.4.
    pub text: Bytes,
    /// Series on it.
    pub series: usize,
    /// Series that did not get on it.
    pub dropped: Dropped,
    subjects: Subjects,
    labels: LabelSets,
    lines: Vec<Line>,
}

/// Series that are not on a page, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The page was full.
    pub max_series: u64,
    /// A label's value was too long.
    pub long_label: u64,
}

impl Dropped {
    /// Counts a further page's.
    pub fn add(&mut self, other: Self) {
        self.max_series += other.max_series;
        self.long_label += other.long_label;
    }
}

/// Renders a page. An earlier page that was about the same subjects saves most of the work; none changes the page.
#[must_use]
pub fn render(sources: &Sources<'_>, earlier: Page) -> Page {
    let subjects = Subjects::of(sources);
    let (labels, before) = if subjects == earlier.subjects {
        (earlier.labels, Earlier { text: &earlier.text, lines: &earlier.lines })
    } else {
        (LabelSets::of(&subjects), Earlier::default())
    };
    let rows = Rows::new(sources, &labels);
    let mut series = Series::new(Lines::new(before), sources.series_max);
    let native = families::native().map(|family| (family, family.name, family.kind, family.help));
    let dcgm = sources.choice.shown.iter().map(|shown| (shown.family, &*shown.name, shown.kind, &*shown.help));
    for (family, name, kind, help) in native.chain(dcgm) {
        rows.write(family, sources.own, &mut series.block(name, kind, help));
    }
    let Series { lines, count, dropped, .. } = series;
    let (text, lines) = lines.done();
    Page { text: text.into(), series: count, dropped, subjects, labels, lines }
}

#[cfg(test)]
mod tests;
