//! What AWS said of a group, while it is to be gone by: nothing is taken for settled for ever, and what holds for one group
//! says nothing of another. Values only.

use std::{collections::HashMap, time::Duration};

use crate::{fleet::group::GroupId, timestamp::Timestamp};

/// The last word on each group, for so long.
#[derive(Debug)]
pub(super) struct Lately<T> {
    holds: Duration,
    said: HashMap<GroupId, (T, Timestamp)>,
}

impl<T: Clone> Lately<T> {
    pub(super) fn new(holds: Duration) -> Self {
        Self { holds, said: HashMap::new() }
    }

    /// AWS said this.
    pub(super) fn note(&mut self, group: &GroupId, word: T, now: Timestamp) {
        self.said.insert(group.clone(), (word, now));
    }

    /// What was said of this group; None when nothing was, or too long ago.
    pub(super) fn word(&mut self, group: &GroupId, now: Timestamp) -> Option<T> {
        self.said.retain(|_, (_, at)| now.since(*at) < self.holds);
        self.said.get(group).map(|(word, _)| word.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_for_its_group_alone_and_only_for_a_while() {
        let (denied, other) = (GroupId::from("denied"), GroupId::from("other"));
        let minute = |minutes| Timestamp(1_000_000) + Duration::from_mins(minutes);
        let mut lately = Lately::new(Duration::from_mins(30));
        assert_eq!(lately.word(&denied, minute(0)), None);
        lately.note(&denied, "no permission", minute(0));
        for (minutes, expected) in [(0, Some("no permission")), (29, Some("no permission")), (30, None), (29, None)] {
            assert_eq!(lately.word(&denied, minute(minutes)), expected, "{minutes}");
            assert_eq!(lately.word(&other, minute(minutes)), None, "{minutes}");
        }
        lately.note(&denied, "still none", minute(31));
        assert_eq!(lately.word(&denied, minute(60)), Some("still none"));
        assert_eq!(lately.word(&denied, minute(61)), None);
    }
}
