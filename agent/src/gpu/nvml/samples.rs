//! Averages over the driver's sample buffers, as pure functions: what is new since the last look, without absurd values.
//! Timestamps are the driver's own and only ever compared with each other.

use std::collections::BTreeMap;

use crate::gpu::ProcessUtilization;

/// Above this a percentage is garbage rather than rounding, and is dropped (drivers have been seen to return 32-bit noise).
const ABSURD_PERCENT: f64 = 1000.0;

/// A percentage as the driver meant it: a little over 100 is 100, far over is nothing.
pub(super) fn percent(value: f64) -> Option<f64> {
    // Adding 0 makes 0 of -0, which a page would show.
    (value.is_finite() && (0.0..=ABSURD_PERCENT).contains(&value)).then(|| value.min(100.0) + 0.0)
}

/// How far a buffer has been read, in the driver's own clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Time of the newest sample taken so far.
    pub(super) newest: u64,
    /// Looks in a row that found nothing new.
    dry: u32,
}

/// After this many looks in a row without a new sample from a busy GPU, the whole buffer is looked at: its clock may have been set back.
const DRY_LOOKS: u32 = 5;

impl Seen {
    /// Notes whether a look found something. True when it is time to look whether the driver's clock went back.
    pub(super) fn is_suspicious(&mut self, found: bool, busy: bool) -> bool {
        self.dry = if found || !busy { 0 } else { self.dry + 1 };
        let suspicious = self.dry >= DRY_LOOKS && self.newest > 0;
        if suspicious {
            self.dry = 0;
        }
        suspicious
    }

    /// Takes up a clock that went back: what comes after the newest sample of the whole buffer is new.
    pub(super) fn rewind(&mut self, whole: impl Iterator<Item = u64>) {
        if let Some(newest) = whole.max() {
            self.newest = self.newest.min(newest);
        }
    }
}

/// Mean and maximum of some samples, percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// Of all.
    pub(super) mean: f64,
    /// The highest.
    pub(super) max: f64,
}

/// The samples newer than what was seen, which moves to the newest. `None` when nothing is new.
pub(super) fn since(seen: &mut Seen, samples: impl Iterator<Item = (u64, f64)>) -> Option<Measured> {
    let from = seen.newest;
    let (mut sum, mut count, mut max) = (0.0, 0_u32, 0.0_f64);
    for (timestamp, value) in samples.filter(|(timestamp, _)| *timestamp > from) {
        seen.newest = seen.newest.max(timestamp);
        if let Some(value) = percent(value) {
            sum += value;
            max = max.max(value);
            count += 1;
        }
    }
    (count > 0).then(|| Measured { mean: sum / f64::from(count), max })
}

/// One sample of one process: (pid, timestamp, percent of SM time).
pub(super) type ProcessSample = (u32, u64, f64);

/// Per process the mean of its samples newer than what was seen, which moves to the newest.
/// At the first look the buffer holds the past as well, so only each process's newest sample counts.
pub(super) fn processes_since(seen: &mut Seen, samples: &[ProcessSample]) -> Vec<ProcessUtilization> {
    let since = seen.newest;
    let mut by_pid: BTreeMap<u32, (u64, f64, u32)> = BTreeMap::new();
    for &(pid, timestamp, sm) in samples.iter().filter(|sample| sample.0 != 0 && sample.1 > since) {
        seen.newest = seen.newest.max(timestamp);
        let Some(sm) = percent(sm) else { continue };
        let entry = by_pid.entry(pid).or_insert((timestamp, 0.0, 0));
        if since > 0 {
            *entry = (timestamp, entry.1 + sm, entry.2 + 1);
        } else if entry.2 == 0 || timestamp >= entry.0 {
            *entry = (timestamp, sm, 1);
        }
    }
    by_pid.into_iter().map(|(pid, (_, sum, count))| ProcessUtilization { pid, sm: sum / f64::from(count) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(newest: u64) -> Seen {
        Seen { newest, dry: 0 }
    }

    #[test]
    fn only_what_is_new_is_averaged() {
        let mut last = seen(10);
        let samples = [(9, 90.0), (10, 80.0), (11, 10.0), (12, 20.0)];
        assert_eq!(since(&mut last, samples.into_iter()), Some(Measured { mean: 15.0, max: 20.0 }));
        assert_eq!(last, seen(12));
        assert_eq!(since(&mut last, samples.into_iter()), None);
    }

    #[test]
    fn absurd_values_are_clamped_or_dropped() {
        let mut last = seen(0);
        let samples = [(1, 104.0), (2, 4_294_967_295.0), (3, f64::NAN)];
        assert_eq!(since(&mut last, samples.into_iter()), Some(Measured { mean: 100.0, max: 100.0 }));
        assert_eq!(last, seen(3));
    }

    #[test]
    fn each_process_has_its_own_mean() {
        let mut last = seen(1);
        let samples = [(7, 2, 30.0), (7, 3, 50.0), (8, 3, 9_999_999.0), (9, 1, 80.0), (0, 3, 5.0)];
        assert_eq!(processes_since(&mut last, &samples), [ProcessUtilization { pid: 7, sm: 40.0 }]);
        assert_eq!(last, seen(3));
    }

    #[test]
    fn the_first_look_takes_the_newest_sample_only() {
        let mut last = seen(0);
        let samples = [(7, 5, 90.0), (7, 9, 10.0), (7, 7, 50.0)];
        assert_eq!(processes_since(&mut last, &samples), [ProcessUtilization { pid: 7, sm: 10.0 }]);
    }

    #[test]
    fn a_drivers_clock_that_was_set_back_is_noticed() {
        let mut last = seen(1_000);
        let looks = [(false, true); 5].into_iter().chain([(false, true), (true, true), (false, false)]);
        let suspicious: Vec<bool> = looks.map(|(found, busy)| last.is_suspicious(found, busy)).collect();
        assert_eq!(suspicious, [false, false, false, false, true, false, false, false]);
        last.rewind([400, 500].into_iter());
        assert_eq!(since(&mut last, [(500, 10.0), (600, 20.0)].into_iter()).map(|new| new.mean), Some(20.0));
        last.rewind([900].into_iter());
        assert_eq!(last.newest, 600, "no clock went back: what was seen stays seen");
    }
}
