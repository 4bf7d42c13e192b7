//! What the demo says: one line an event, with its time and who speaks.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

/// Width of the column of speakers.
const SPEAKERS: usize = 10;

/// Writes the story to the standard output. A reader that went away ends the story quietly, as it would any pipe.
#[derive(Debug)]
pub(super) struct Narrator {
    colour: bool,
    elapsed: Duration,
}

impl Narrator {
    /// With colours where a person looks.
    #[must_use]
    pub(super) fn new() -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, elapsed: Duration::ZERO }
    }

    /// The time of what is said next, since the demo's start.
    pub(super) fn set_time(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    /// A line of its own, before and after the story.
    pub(super) fn plain(&self, text: impl Display) {
        self.line(&text.to_string());
    }

    /// The heading of a chapter.
    pub(super) fn chapter(&self, text: impl Display) {
        self.line("");
        self.line(&self.painted("1", &text.to_string()));
    }

    /// One event.
    pub(super) fn event(&self, speaker: &str, text: impl Display) {
        let time = format!("{:5.1}s", self.elapsed.as_secs_f64());
        self.line(&format!("{}  {}  {text}", self.painted("2", &time), self.painted("36", &pad(speaker))));
    }

    /// More of the event before.
    pub(super) fn more(&self, text: impl Display) {
        self.line(&format!("{}    {text}", " ".repeat("  0.0s".len() + 2 + SPEAKERS)));
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        let mut out = io::stdout().lock();
        // Nobody is left to tell when the reader is gone.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

impl Default for Narrator {
    fn default() -> Self {
        Self::new()
    }
}

fn pad(speaker: &str) -> String {
    format!("{speaker:<SPEAKERS$}")
}

/// `1 node`, `2 nodes`, `3 vetoes`.
#[must_use]
pub(super) fn count(number: usize, thing: &str) -> String {
    match (number, thing.ends_with('o')) {
        (1, _) => format!("1 {thing}"),
        (_, true) => format!("{number} {thing}es"),
        (_, false) => format!("{number} {thing}s"),
    }
}

/// `a`, `a and b`, `a, b and c`.
#[must_use]
pub(super) fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_lists_read_well() {
        assert_eq!([count(1, "node"), count(2, "node"), count(0, "veto")], ["1 node", "2 nodes", "0 vetoes"]);
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(list(&names("a")), "a");
        assert_eq!(list(&names("a b c")), "a, b and c");
    }
}
