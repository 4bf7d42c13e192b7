//! Averages over the driver's sample buffers, as pure functions: what is new since the last look, without absurd values.
//! Timestamps are the driver's own and only ever compared with each other.

use std::collections::BTreeMap;

use crate::gpu::ProcessUtilization;

/// Above this a percentage is garbage rather than rounding, and is dropped (drivers have been seen to return 32-bit noise).
const ABSURD_PERCENT: f64 = 1000.0;

/// A percentage as the driver meant it: a little over 100 is 100, far over is nothing.
pub(super) fn percent(value: f64) -> Option<f64> {
    (value.is_finite() && (0.0..=ABSURD_PERCENT).contains(&value)).then(|| value.min(100.0))
}

/// The mean of the samples newer than `last_seen`, which moves to the newest. `None` when nothing is new.
pub(super) fn mean_since(last_seen: &mut u64, samples: impl Iterator<Item = (u64, f64)>) -> Option<f64> {
    let since = *last_seen;
    let (mut sum, mut count) = (0.0, 0_u32);
    for (timestamp, value) in samples.filter(|(timestamp, _)| *timestamp > since) {
        *last_seen = (*last_seen).max(timestamp);
        if let Some(value) = percent(value) {
            sum += value;
            count += 1;
        }
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// One sample of one process: (pid, timestamp, percent of SM time).
pub(super) type ProcessSample = (u32, u64, f64);

/// Per process the mean of its samples newer than `last_seen`, which moves to the newest.
/// At the first look the buffer holds the past as well, so only each process's newest sample counts.
pub(super) fn processes_since(last_seen: &mut u64, samples: &[ProcessSample]) -> Vec<ProcessUtilization> {
    let since = *last_seen;
    let mut by_pid: BTreeMap<u32, (u64, f64, u32)> = BTreeMap::new();
    for &(pid, timestamp, sm) in samples.iter().filter(|sample| sample.0 != 0 && sample.1 > since) {
        *last_seen = (*last_seen).max(timestamp);
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

    #[test]
    fn only_what_is_new_is_averaged() {
        let mut last_seen = 10;
        let samples = [(9, 90.0), (10, 80.0), (11, 10.0), (12, 20.0)];
        assert_eq!(mean_since(&mut last_seen, samples.into_iter()), Some(15.0));
        assert_eq!(last_seen, 12);
        assert_eq!(mean_since(&mut last_seen, samples.into_iter()), None);
    }

    #[test]
    fn absurd_values_are_clamped_or_dropped() {
        let mut last_seen = 0;
        assert_eq!(
            mean_since(&mut last_seen, [(1, 104.0), (2, 4_294_967_295.0), (3, f64::NAN)].into_iter()),
            Some(100.0)
        );
        assert_eq!(last_seen, 3);
    }

    #[test]
    fn each_process_has_its_own_mean() {
        let mut last_seen = 1;
        let samples = [(7, 2, 30.0), (7, 3, 50.0), (8, 3, 9_999_999.0), (9, 1, 80.0), (0, 3, 5.0)];
        assert_eq!(processes_since(&mut last_seen, &samples), [ProcessUtilization { pid: 7, sm: 40.0 }]);
        assert_eq!(last_seen, 3);
    }

    #[test]
    fn the_first_look_takes_the_newest_sample_only() {
        let mut last_seen = 0;
        let samples = [(7, 5, 90.0), (7, 9, 10.0), (7, 7, 50.0)];
        assert_eq!(processes_since(&mut last_seen, &samples), [ProcessUtilization { pid: 7, sm: 10.0 }]);
    }
}
