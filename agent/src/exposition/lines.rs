//! The lines of a page on their way to its text. A line that says what the line in its place on an earlier page said is copied from there, together with
//! its neighbours: most values stay from tick to tick, and writing a number costs many times what copying it does.

use std::ops::Range;

/// A line with a series, or a family's head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// What it says. A line that says something else too has no number here and is never copied.
    value: f64,
    /// Which it is: on pages about the same subjects, what stands in one place differs by its value alone.
    place: u32,
    /// Where it ends in the text. It begins where the line before it ends.
    end: u32,
}

/// An earlier page about the same subjects, or nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Earlier<'a> {
    pub(super) text: &'a [u8],
    pub(super) lines: &'a [Line],
}

/// The lines so far, in the order of their places.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: Vec<u8>,
    lines: Vec<Line>,
    earlier: Earlier<'a>,
    /// The first of the earlier lines that stands in no place before the last line's.
    at: usize,
    /// What is to be copied of the earlier text: it belongs at the end of this one.
    run: Range<usize>,
}

impl<'a> Lines<'a> {
    /// None yet, and room for about as many as there were.
    pub(super) fn new(earlier: Earlier<'a>) -> Self {
        Self {
            text: Vec::with_capacity(earlier.text.len() + earlier.text.len() / 16),
            lines: Vec::with_capacity(earlier.lines.len()),
            earlier,
            at: 0,
            run: 0..0,
        }
    }

    /// One more, in a place not before the last line's. `write` writes it where it cannot be copied.
    pub(super) fn add(&mut self, place: u32, value: f64, write: impl FnOnce(&mut Vec<u8>)) {
        match self.same(place, value) {
            Some(line) if line.start == self.run.end => self.run.end = line.end,
            Some(line) => {
                self.copy();
                self.run = line;
            }
            None => {
                self.copy();
                write(&mut self.text);
            }
        }
        // A text of 4 GiB has no lines to be copied: see `done`.
        let end = u32::try_from(self.text.len() + self.run.len()).unwrap_or(u32::MAX);
        self.lines.push(Line { value, place, end });
    }

    /// Where the earlier text has the same line.
    fn same(&mut self, place: u32, value: f64) -> Option<Range<usize>> {
        let earlier = self.earlier.lines.get(self.at..)?;
        self.at += earlier.iter().take_while(|line| line.place < place).count();
        let line = self.earlier.lines.get(self.at)?;
        let before = self.at.checked_sub(1).and_then(|before| self.earlier.lines.get(before));
        // By bits: 0 and -0 are equal, and two texts.
        let same = line.place == place && line.value.to_bits() == value.to_bits() && !value.is_nan();
        same.then(|| before.map_or(0, |before| before.end as usize)..line.end as usize)
    }

    fn copy(&mut self) {
        self.text.extend_from_slice(self.earlier.text.get(self.run.clone()).unwrap_or_default());
        self.run = 0..0;
    }

    /// The text, and where its lines are.
    pub(super) fn done(mut self) -> (Vec<u8>, Vec<Line>) {
        self.copy();
        if u32::try_from(self.text.len()).is_err() {
            self.lines.clear();
        }
        (self.text, self.lines)
    }
}
