//! Series on their way to the page, family by family: which of them get on it, and how one is written.

use std::io::Write as _;

use super::Dropped;
use super::labels::Labels;
use super::lines::Lines;
use crate::families::Kind;

/// All series on their way to the page.
pub(super) struct Series<'a> {
    pub(super) lines: Lines<'a>,
    max: usize,
    /// Of the last line: one for each family's head, and one for each of its series that may be there with these subjects, there or not.
    place: u32,
    /// That got on the page.
    pub(super) count: usize,
    /// That did not.
    pub(super) dropped: Dropped,
}

impl<'a> Series<'a> {
    /// None yet, and at most `max`.
    pub(super) fn new(lines: Lines<'a>, max: usize) -> Self {
        Self { lines, max, place: 0, count: 0, dropped: Dropped::default() }
    }

    /// The next family's.
    pub(super) fn block<'s>(&'s mut self, name: &'s str, kind: Kind, help: &'s str) -> Block<'s, 'a> {
        self.place += 1;
        Block { head: Some(self.place), series: self, name, kind, help }
    }
}

/// One family on its way to the page. What is said about it is written with its first series.
pub(super) struct Block<'s, 'a> {
    series: &'s mut Series<'a>,
    /// The head's place, until it is written.
    head: Option<u32>,
    name: &'s str,
    kind: Kind,
    help: &'s str,
}

impl Block<'_, '_> {
    /// Whether one more is written, and with it the head if it is the first: unless the page is full or a label is too long.
    fn admits(&mut self, fit: bool) -> bool {
        let Self { series, name, kind, help, .. } = self;
        if !fit {
            series.dropped.long_label += 1;
            return false;
        }
        if series.count >= series.max {
            series.dropped.max_series += 1;
            return false;
        }
        series.count += 1;
        if let Some(place) = self.head.take() {
            series.lines.add(place, 0.0, |text| head(name, *kind, help, text));
        }
        true
    }

    /// A series for each value that there is; label sets and values in the same order.
    pub(super) fn each<'l>(
        &mut self,
        labels: impl IntoIterator<Item = &'l Labels>,
        values: impl Iterator<Item = Option<f64>>,
    ) {
        for (labels, value) in labels.into_iter().zip(values) {
            self.series.place += 1;
            if let Some(value) = value
                && self.admits(labels.fit(NO_FURTHER))
            {
                let (place, name) = (self.series.place, self.name);
                self.series.lines.add(place, value, |text| line(name, labels, NO_FURTHER, value, text));
            }
        }
    }

    /// A series with labels of its own besides: of these there may be any number, and none is ever copied.
    pub(super) fn further(&mut self, labels: &Labels, further: &[(&str, impl AsRef<str>)], value: f64) {
        if self.admits(labels.fit(further)) {
            let (place, name) = (self.series.place, self.name);
            self.series.lines.add(place, f64::NAN, |text| line(name, labels, further, value, text));
        }
    }
}

/// For series whose labels are all in their set.
const NO_FURTHER: &[(&str, &str)] = &[];

fn head(name: &str, kind: Kind, help: &str, text: &mut Vec<u8>) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _written = write!(text, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.word());
}

fn line(name: &str, labels: &Labels, further: &[(&str, impl AsRef<str>)], value: f64, text: &mut Vec<u8>) {
    text.extend_from_slice(name.as_bytes());
    labels.write(further, text);
    text.push(b' ');
    // What serde_json writes numbers with too; `fmt` takes several times as long.
    let mut digits = zmij::Buffer::new();
    let value = digits.format(value);
    text.extend_from_slice(value.strip_suffix(".0").unwrap_or(value).as_bytes());
    text.push(b'\n');
}
