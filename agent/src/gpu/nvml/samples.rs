//! Averages over the driver's sample buffers, as pure functions: what is new since the last look, without absurd values.
//! Timestamps are the driver's own and only ever compared with each other.

use std::collections::BTreeMap;
use std::time::Duration;

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

/// Microseconds by which a ring may reach further back than twice the time since the last look before that is silence: three of its longest periods.
const SILENCE: u64 = 500_000;

/// Mean and maximum of some samples, percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// Of all.
    pub(super) mean: f64,
    /// The highest.
    pub(super) max: f64,
}

/// The samples newer than what was seen, which moves to the newest. `None` when nothing is new. `elapsed` is the time since the last look: while a GPU
/// idles the driver gives nothing, and what it gives then reaches back over silence that was counted already.
pub(super) fn since(seen: &mut Seen, samples: &[(u64, f64)], elapsed: Duration) -> Option<Measured> {
    let newest = samples.iter().map(|(timestamp, _)| *timestamp).max().filter(|newest| *newest > seen.newest)?;
    let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let reach = newest - seen.newest;
    let silence = elapsed > 0 && reach > elapsed.saturating_mul(2).saturating_add(SILENCE);
    let from = if silence { newest - elapsed } else { seen.newest };
    seen.newest = newest;
    let (mut sum, mut count, mut max) = (0.0, 0_u32, 0.0_f64);
    for &(_, value) in samples.iter().filter(|(timestamp, _)| *timestamp > from) {
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

/// Samples of one round may differ by this much of the driver's clock, which counts microseconds: a third of its shortest period.
const ROUND: u64 = 55_000;

/// Per process the mean over the rounds newer than what was seen, which moves to the newest. The driver leaves out a process that did nothing in a
/// round: that round is a 0 for it. A round in which nobody did anything is not there at all; who knows how busy the GPU was scales for it.
/// At the first look the buffer holds the past as well, and processes that have ended: only its last round is of now.
pub(super) fn processes_since(seen: &mut Seen, samples: &[ProcessSample]) -> Vec<ProcessUtilization> {
    let of_processes = || samples.iter().filter(|sample| sample.0 != 0);
    let newest = of_processes().map(|sample| sample.1).max().unwrap_or_default();
    let from = if seen.newest > 0 { seen.newest } else { newest.saturating_sub(ROUND) };
    seen.newest = seen.newest.max(newest);
    let mut by_pid: BTreeMap<u32, f64> = BTreeMap::new();
    let mut times = Vec::new();
    for &(pid, timestamp, sm) in of_processes().filter(|sample| sample.1 > from) {
        let Some(sm) = percent(sm) else { continue };
        times.push(timestamp);
        *by_pid.entry(pid).or_default() += sm;
    }
    let rounds = f64::from(rounds(times));
    by_pid.into_iter().map(|(pid, sum)| ProcessUtilization { pid, sm: sum / rounds }).collect()
}

/// In how many rounds these samples were taken; at least one.
fn rounds(mut times: Vec<u64>) -> u32 {
    times.sort_unstable();
    let mut begun: Option<u64> = None;
    let mut rounds = 0;
    for time in times {
        if begun.is_none_or(|begun| time - begun > ROUND) {
            begun = Some(time);
            rounds += 1;
        }
    }
    rounds.max(1)
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
        assert_eq!(since(&mut last, &samples, Duration::ZERO), Some(Measured { mean: 15.0, max: 20.0 }));
        assert_eq!(last, seen(12));
        assert_eq!(since(&mut last, &samples, Duration::ZERO), None);
    }

    #[test]
    fn silence_before_a_burst_is_not_averaged_in() {
        // Two seconds of idleness, of which the driver said nothing, then a burst; looked at every 0.3 s.
        let samples: Vec<(u64, f64)> = (1..=12).map(|n| (n * 200_000, if n == 12 { 80.0 } else { 0.0 })).collect();
        let look = |elapsed| since(&mut seen(100_000), &samples, Duration::from_millis(elapsed)).map(|new| new.mean);
        assert_eq!(look(300), Some(40.0));
        // One look that was late: all of it is new.
        assert_eq!(look(2_000), Some(80.0 / 12.0));
    }

    #[test]
    fn absurd_values_are_clamped_or_dropped() {
        let mut last = seen(0);
        let samples = [(1, 104.0), (2, 4_294_967_295.0), (3, f64::NAN)];
        assert_eq!(since(&mut last, &samples, Duration::ZERO), Some(Measured { mean: 100.0, max: 100.0 }));
        assert_eq!(last, seen(3));
    }

    #[test]
    fn each_process_has_its_own_mean() {
        let mut last = seen(1);
        let samples =
            [(7, 200_000, 30.0), (7, 400_000, 50.0), (8, 400_000, 9_999_999.0), (9, 1, 80.0), (0, 400_000, 5.0)];
        assert_eq!(processes_since(&mut last, &samples), [ProcessUtilization { pid: 7, sm: 40.0 }]);
        assert_eq!(last, seen(400_000));
    }

    #[test]
    fn a_round_without_a_process_is_a_zero_for_it() {
        let mut last = seen(1);
        // Process 8 worked in one of three rounds; its sample was taken a moment after the others'.
        let samples = [(7, 200_000, 30.0), (7, 400_000, 30.0), (8, 400_090, 60.0), (7, 600_000, 30.0)];
        let found = processes_since(&mut last, &samples);
        assert_eq!(found, [ProcessUtilization { pid: 7, sm: 30.0 }, ProcessUtilization { pid: 8, sm: 20.0 }]);
    }

    #[test]
    fn the_first_look_takes_the_last_round_only() {
        let mut last = seen(0);
        // Process 9 has ended long ago, and is still in the buffer.
        let samples = [(9, 100_000, 90.0), (7, 5_000_000, 50.0), (7, 5_200_000, 10.0), (8, 5_200_090, 20.0)];
        let found = processes_since(&mut last, &samples);
        assert_eq!(found, [ProcessUtilization { pid: 7, sm: 10.0 }, ProcessUtilization { pid: 8, sm: 20.0 }]);
        assert_eq!(last, seen(5_200_090));
    }

    #[test]
    fn a_drivers_clock_that_was_set_back_is_noticed() {
        let mut last = seen(1_000);
        let looks = [(false, true); 5].into_iter().chain([(false, true), (true, true), (false, false)]);
        let suspicious: Vec<bool> = looks.map(|(found, busy)| last.is_suspicious(found, busy)).collect();
        assert_eq!(suspicious, [false, false, false, false, true, false, false, false]);
        last.rewind([400, 500].into_iter());
        assert_eq!(since(&mut last, &[(500, 10.0), (600, 20.0)], Duration::ZERO).map(|new| new.mean), Some(20.0));
        last.rewind([900].into_iter());
        assert_eq!(last.newest, 600, "no clock went back: what was seen stays seen");
    }
}
