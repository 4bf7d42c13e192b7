//! What AWS said, kept for a while: asked again when it is old, later when asking failed, and served meanwhile however
//! old it is. A pure value; time is an argument.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::timestamp::Timestamp;

/// How long an answer is taken for true.
pub(super) const FRESH: Duration = Duration::from_secs(20 * 60);
/// How long that of something that cannot change.
pub(super) const FIXED: Duration = Duration::from_secs(24 * 3600);
/// Up to this much later, so that what was asked together is not asked together again.
const JITTER: Duration = Duration::from_secs(10 * 60);
/// The first wait after a failure; it doubles, and stays below [`FRESH`].
const RETRY: Duration = Duration::from_secs(60);

/// Answers by key, and how often one was put.
#[derive(Clone, Debug)]
pub(in crate::cloud::aws) struct Kept<K, V>(BTreeMap<K, Row<V>>, u64);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row<V> {
    value: Option<V>,
    failure: Option<String>,
    failures: u32,
    due: Timestamp,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new(), 0)
    }
}

/// As rows, since a key is no text.
impl<K: Serialize, V: Serialize> Serialize for Kept<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for Kept<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = Vec::<(K, Row<V>)>::deserialize(deserializer)?;
        Ok(Self(rows.into_iter().collect(), 0))
    }
}

impl<K: Ord + Clone + Hash, V> Kept<K, V> {
    /// What is to be asked now, of what is of use at all; what is of no use any more is forgotten.
    pub(super) fn due(&mut self, of_use: impl IntoIterator<Item = K>, now: Timestamp) -> Vec<K> {
        let mut before = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for key in of_use {
            match before.remove(&key) {
                Some(row) => {
                    if row.due <= now {
                        due.push(key.clone());
                    }
                    self.0.insert(key, row);
                }
                None if self.0.contains_key(&key) || due.contains(&key) => {}
                None => due.push(key),
            }
        }
        due
    }

    /// An answer, to be taken for true for `fresh` and a little more.
    pub(in crate::cloud::aws) fn put(&mut self, key: K, answer: Result<V, String>, fresh: Duration, now: Timestamp) {
        let failures = self.0.get(&key).map_or(0, |row| row.failures);
        let jitter = |most: Duration| most.mul_f64(share(&key, now));
        let row = match answer {
            Ok(value) => Row { value: Some(value), failure: None, failures: 0, due: now + fresh + jitter(JITTER) },
            Err(failure) => {
                let wait = RETRY.saturating_mul(1 << failures.min(8)).min(FRESH);
                let value = self.0.remove(&key).and_then(|row| row.value);
                Row { value, failure: Some(failure), failures: failures + 1, due: now + wait + jitter(wait) }
            }
        };
        self.0.insert(key, row);
        self.1 += 1;
    }

    /// How often an answer was put.
    pub(super) fn puts(&self) -> u64 {
        self.1
    }

    /// The last good answer.
    pub(in crate::cloud::aws) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)?.value.as_ref()
    }

    /// Why the last asking failed; None when it did not.
    pub(in crate::cloud::aws) fn failure(&self, key: &K) -> Option<&str> {
        self.0.get(key)?.failure.as_deref()
    }
}

/// A share from 0 to 1 that follows from key and time: no two keys come due together, and nothing is left to chance.
fn share<K: Hash>(key: &K, now: Timestamp) -> f64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    now.0.hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() & 0xffff).unwrap_or(0)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn later(span: Duration) -> Timestamp {
        NOW + span
    }

    #[test]
    fn an_answer_is_asked_again_after_twenty_to_thirty_minutes() {
        let mut kept = Kept::default();
        assert_eq!(kept.due([1, 2, 1], NOW), [1, 2]);
        kept.put(1, Ok("a"), FRESH, NOW);
        kept.put(2, Ok("b"), FRESH, NOW);
        assert_eq!(kept.due([1, 2], later(FRESH - Duration::from_secs(1))), [0; 0]);
        assert_eq!(kept.due([1, 2], later(FRESH + JITTER)), [1, 2]);
        let mut half = kept.clone();
        let spread: Vec<usize> = (0..10).map(|n| half.due([1, 2], later(FRESH + JITTER / 10 * n)).len()).collect();
        assert!(spread.windows(2).all(|pair| pair[0] <= pair[1]), "{spread:?}");
    }

    #[test]
    fn stale_beats_empty() {
        let mut kept = Kept::default();
        kept.put(1, Ok("a"), FRESH, NOW);
        kept.put(1, Err("throttled".to_owned()), FRESH, later(FRESH * 2));
        assert_eq!((kept.get(&1), kept.failure(&1)), (Some(&"a"), Some("throttled")));
        kept.put(1, Ok("b"), FRESH, later(FRESH * 3));
        assert_eq!((kept.get(&1), kept.failure(&1)), (Some(&"b"), None));
    }

    #[test]
    fn a_failure_is_asked_again_later_and_later() {
        let mut kept: Kept<u8, ()> = Kept::default();
        let mut now = NOW;
        let mut waits = Vec::new();
        for _ in 0..8 {
            kept.put(1, Err("no".to_owned()), FRESH, now);
            let begun = now;
            while kept.due([1], now).is_empty() {
                now = now + Duration::from_secs(10);
            }
            waits.push(now.since(begun));
        }
        assert!(waits[0] >= RETRY && waits[0] <= RETRY * 3, "{waits:?}");
        assert!(waits[7] >= FRESH && waits[7] <= FRESH * 3, "{waits:?}");
    }

    #[test]
    fn what_is_of_no_use_is_forgotten() {
        let mut kept = Kept::default();
        kept.put(1, Ok("a"), FRESH, NOW);
        assert_eq!(kept.due([2], NOW), [2]);
        assert_eq!(kept.get(&1), None);
    }
}
