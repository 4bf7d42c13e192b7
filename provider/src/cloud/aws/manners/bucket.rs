//! A token bucket that learns: throttled, it halves its pace; left in peace, it comes back step by step. Values only,
//! time is an argument.

use std::time::Duration;

use super::super::calls::Rate;

/// Thousandths, so that slow rates stay exact.
const WHOLE: u64 = 1000;
/// The pace never falls below this share of the allowed one: at worst a call every few seconds.
const SLOWEST: u64 = 64;
/// Throttled answers to calls that were sent before the pace was halved say nothing new.
const MEMORY_MILLIS: u64 = 1000;
/// So long without being throttled brings back a tenth of the pace.
const PEACE_MILLIS: u64 = 2000;

/// The allowance of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    rate: Rate,
    /// Thousandths of a call that may be made now.
    tokens: u64,
    /// Thousandths of a call that each second brings.
    pace: u64,
    /// When the two were true, in milliseconds.
    at: u64,
    halved_at: Option<u64>,
    eased_at: u64,
}

impl Bucket {
    /// Full, at its whole pace.
    pub(super) fn new(rate: Rate, now: u64) -> Self {
        let (tokens, pace) = (u64::from(rate.burst) * WHOLE, u64::from(rate.per_second) * WHOLE);
        Self { rate, tokens, pace, at: now, halved_at: None, eased_at: now }
    }

    /// Takes one call; or says how long to wait before asking again.
    pub(super) fn take(&mut self, now: u64) -> Result<(), Duration> {
        self.fill(now);
        if self.tokens >= WHOLE {
            self.tokens -= WHOLE;
            return Ok(());
        }
        let missing = WHOLE - self.tokens;
        Err(Duration::from_millis((missing * 1000).div_ceil(self.pace.max(1)).max(1)))
    }

    /// AWS said that this was too fast.
    pub(super) fn throttled(&mut self, now: u64) {
        self.fill(now);
        if self.halved_at.is_some_and(|at| now.saturating_sub(at) < MEMORY_MILLIS) {
            return;
        }
        self.pace = (self.pace / 2).max(self.whole() / SLOWEST).max(1);
        self.tokens = 0;
        (self.halved_at, self.eased_at) = (Some(now), now);
    }

    /// Calls a second that are allowed now, in thousandths.
    pub(super) fn pace(&self) -> u64 {
        self.pace
    }

    fn whole(&self) -> u64 {
        u64::from(self.rate.per_second) * WHOLE
    }

    fn fill(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let brought = u128::from(self.pace) * u128::from(passed) / 1000;
        let most = u64::from(self.rate.burst) * WHOLE;
        self.tokens = u64::try_from(u128::from(self.tokens) + brought).unwrap_or(most).min(most);
        let steps = now.saturating_sub(self.eased_at) / PEACE_MILLIS;
        self.eased_at += steps * PEACE_MILLIS;
        self.pace = (self.pace + (self.whole() / 10).max(1).saturating_mul(steps)).min(self.whole());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { burst: 4, per_second: 2 };

    #[test]
    fn a_burst_passes_and_then_the_pace_holds() {
        let mut bucket = Bucket::new(RATE, 0);
        for _ in 0..4 {
            assert_eq!(bucket.take(0), Ok(()));
        }
        assert_eq!(bucket.take(0), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(500), Ok(()));
        assert!(bucket.take(500).is_err());
    }

    #[test]
    fn throttled_it_slows_down_once_for_each_burst_of_answers_and_comes_back() {
        let mut bucket = Bucket::new(RATE, 0);
        for _ in 0..3 {
            bucket.throttled(10);
        }
        assert_eq!(bucket.pace(), 1000, "three answers to one burst halve the pace once");
        bucket.throttled(1_500);
        assert_eq!(bucket.pace(), 500);
        for second in 0..60 {
            let _ = bucket.take(2_000 + second * 1000);
        }
        assert_eq!(bucket.pace(), 2000);
    }

    #[test]
    fn it_never_stops_for_good() {
        let mut bucket = Bucket::new(Rate { burst: 1, per_second: 1 }, 0);
        let mut now = 0;
        for _ in 0..100 {
            now += 1000;
            bucket.throttled(now);
        }
        let wait = bucket.take(now).unwrap_err();
        assert!(wait <= Duration::from_secs(70), "{wait:?}");
        assert_eq!(bucket.take(now + u64::try_from(wait.as_millis()).unwrap()), Ok(()));
    }

    proptest! {
        /// Whatever happens, no stretch of time sees more calls than the burst and the pace allow.
        #[test]
        fn no_window_sees_more_than_is_allowed(steps in prop::collection::vec((0_u64..400, any::<bool>()), 1..300)) {
            let mut bucket = Bucket::new(RATE, 0);
            let (mut now, mut passed) = (0, Vec::new());
            for (step, throttled) in steps {
                now += step;
                if throttled { bucket.throttled(now) }
                if bucket.take(now).is_ok() { passed.push(now) }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let count = u64::try_from(last - first + 1).unwrap();
                    prop_assert!(count * 1000 <= u64::from(RATE.burst) * 1000 + u64::from(RATE.per_second) * (to - from));
                }
            }
        }
    }
}
