//! Time as the core sees it: an argument, never a clock that it reads.

use std::{fmt, ops, time::Duration};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch (in a replay: since any start the caller chose).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long `self` is after `earlier`; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// A clock that goes forward only, out of one that people and daemons set. Set forward, it follows; set back, it goes on
/// from where it was: what is due in a minute is due in a minute, and not when the old time has come round again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steady {
    told: Timestamp,
    run: Duration,
}

impl Steady {
    /// One that has told no time yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { told: Timestamp(0), run: Duration::ZERO }
    }

    /// The time, from the clock on the wall and from one that nobody sets (`run`: how long it has run).
    pub fn read(&mut self, wall: Timestamp, run: Duration) -> Timestamp {
        let passed = self.told + run.saturating_sub(self.run);
        if wall > passed {
            *self = Self { told: wall, run };
        }
        wall.max(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_neither_goes_back_nor_stands_still() {
        let mut clock = Steady::new();
        let second = Duration::from_secs(1);
        for (what, wall, run, expected) in [
            ("at the start", 100_000, 0, 100_000),
            ("a second later", 101_000, 1, 101_000),
            ("set back by a minute", 42_000, 2, 102_000),
            ("and it goes on", 43_000, 3, 103_000),
            ("set forward by an hour", 3_700_000, 4, 3_700_000),
            ("and it goes on", 3_701_000, 5, 3_701_000),
            ("suspended: only the wall's goes on", 9_000_000, 5, 9_000_000),
        ] {
            assert_eq!(clock.read(Timestamp(wall), second * run), Timestamp(expected), "{what}");
        }
    }
}
