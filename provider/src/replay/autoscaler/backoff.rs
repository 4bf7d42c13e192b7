//! Groups that failed lately: each failure after the last backoff ended doubles the next one.

use std::{collections::BTreeMap, time::Duration};

use super::flags::Flags;
use crate::timestamp::Timestamp;

#[derive(Clone, Copy, Debug)]
struct Entry {
    length: Duration,
    until: Timestamp,
    failed: Timestamp,
}

/// Backoff by group id.
#[derive(Debug, Default)]
pub(super) struct Backoff(BTreeMap<String, Entry>);

impl Backoff {
    /// Notes a failure. Failures while a backoff runs start it anew at its length.
    pub(super) fn fail(&mut self, group: &str, flags: &Flags, now: Timestamp) {
        let length = match self.0.get(group) {
            Some(entry) if entry.until < now => (entry.length * 2).min(flags.max_backoff),
            Some(entry) => entry.length,
            None => flags.initial_backoff,
        };
        self.0.insert(group.to_owned(), Entry { length, until: now + length, failed: now });
    }

    /// Whether the group is to be left alone now.
    pub(super) fn holds(&self, group: &str, now: Timestamp) -> bool {
        self.0.get(group).is_some_and(|entry| entry.until > now)
    }

    /// Forgets one group.
    pub(super) fn forget(&mut self, group: &str) {
        self.0.remove(group);
    }

    /// Forgets what failed long ago.
    pub(super) fn forget_stale(&mut self, reset: Duration, now: Timestamp) {
        self.0.retain(|_, entry| entry.failed + reset >= now);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::flags::Era, *};

    #[test]
    fn doubles_only_after_the_last_one_ended() {
        let flags = Flags { initial_backoff: Duration::from_secs(10), ..Flags::quick(Era::V1_36) };
        let mut backoff = Backoff::default();
        let seconds = |count: u64| Timestamp(count * 1000);
        backoff.fail("a", &flags, seconds(0));
        backoff.fail("a", &flags, seconds(5));
        assert!(backoff.holds("a", seconds(14)) && !backoff.holds("a", seconds(15)));
        backoff.fail("a", &flags, seconds(20));
        assert!(backoff.holds("a", seconds(39)) && !backoff.holds("a", seconds(40)));
    }
}
