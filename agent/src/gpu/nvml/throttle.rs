//! For how long each reason held clocks down: the driver's own counter where it has one, else the reasons of the moment added up from pass to pass.
//! Reasons overlap: their sum means nothing.

use std::time::Duration;

use super::fields::Values;
use crate::gpu::Throttled;

/// A silence longer than this, and than some times the pause before it, was not watched: nothing is added for it.
const GAP: Duration = Duration::from_secs(5);
const GAP_PAUSES: u32 = 3;

/// A reason: its word, its bit in `nvmlClocksEventReason*`, and the field that counts nanoseconds of it.
struct Reason {
    word: &'static str,
    bit: Option<u64>,
    counter: Option<&'static str>,
}

const fn reason(word: &'static str, bit: Option<u64>, counter: Option<&'static str>) -> Reason {
    Reason { word, bit, counter }
}

/// Idling holds clocks down too, but is no throttling.
const REASONS: [Reason; 14] = [
    reason("applications_clocks_setting", Some(0x2), None),
    reason("sw_power_cap", Some(0x4), Some("power_violation")),
    reason("hw_slowdown", Some(0x8), None),
    reason("sync_boost", Some(0x10), Some("sync_boost_violation")),
    reason("sw_thermal_slowdown", Some(0x20), Some("sw_thermal_slowdown")),
    reason("hw_thermal_slowdown", Some(0x40), Some("hw_thermal_slowdown")),
    reason("hw_power_brake_slowdown", Some(0x80), Some("hw_power_brake_slowdown")),
    reason("display_clock_setting", Some(0x100), None),
    reason("thermal", None, Some("thermal_violation")),
    reason("board_limit", None, Some("board_limit_violation")),
    reason("low_utilization", None, Some("low_utilization_violation")),
    reason("reliability", None, Some("reliability_violation")),
    reason("application_clocks", None, Some("application_clocks_violation")),
    reason("base_clocks", None, Some("base_clocks_violation")),
];

/// What was added up for one GPU.
#[derive(Debug, Clone, Default)]
pub(super) struct Throttle {
    seconds: [f64; REASONS.len()],
    /// Whether the driver has counted the reason: our own sum in its place would be a counter that falls.
    counted: [bool; REASONS.len()],
    last: Option<Duration>,
    /// Between the last two passes.
    pause: Duration,
}

impl Throttle {
    /// One pass: the reasons of the moment as bits, absent where the GPU does not tell them, and the driver's counters.
    pub(super) fn read(&mut self, now: Duration, bits: Option<u64>, counters: &Values) -> Vec<Throttled> {
        let pause = self.last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        let watched = pause <= GAP.max(self.pause * GAP_PAUSES);
        (self.last, self.pause) = (bits.map(|_| now), pause);
        let elapsed = if watched { pause.as_secs_f64() } else { 0.0 };
        let one = |((reason, seconds), counted): ((&Reason, &mut f64), &mut bool)| {
            let held = bits.zip(reason.bit).map(|(bits, bit)| bits & bit != 0);
            if held == Some(true) {
                *seconds += elapsed;
            }
            let driver = reason.counter.and_then(|word| counters.get(word)).map(|nanoseconds| nanoseconds / 1e9);
            *counted |= driver.is_some();
            let seconds = driver.or(held.map(|_| *seconds).filter(|_| !*counted))?;
            Some(Throttled { reason: reason.word, seconds })
        };
        REASONS.iter().zip(&mut self.seconds).zip(&mut self.counted).filter_map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_of_the_drivers_that_is_not_read_once_is_absent_and_does_not_fall() {
        let mut throttle = Throttle::default();
        let mut read = |second, counters: &Values| {
            let found = throttle.read(Duration::from_secs(second), Some(0x4), counters);
            found.iter().find(|held| held.reason == "sw_power_cap").map(|held| held.seconds)
        };
        let counters = Values::of(&[("power_violation", 90e9)]);
        assert_eq!(read(1, &counters), Some(90.0));
        assert_eq!(read(2, &Values::default()), None);
        assert_eq!(read(3, &counters), Some(90.0));
    }

    #[test]
    fn seconds_are_added_up_where_the_driver_does_not_count() {
        let mut throttle = Throttle::default();
        let seconds = Duration::from_secs;
        let mut read = |now, bits| {
            let found = throttle.read(now, bits, &Values::default());
            found.iter().filter(|held| held.seconds > 0.0).map(|held| (held.reason, held.seconds)).collect::<Vec<_>>()
        };
        assert_eq!(read(seconds(10), Some(0x4)), [], "since when is not known");
        assert_eq!(read(seconds(11), Some(0x44)), [("sw_power_cap", 1.0), ("hw_thermal_slowdown", 1.0)]);
        assert_eq!(read(seconds(12), Some(0x1)), [("sw_power_cap", 1.0), ("hw_thermal_slowdown", 1.0)]);
        assert_eq!(read(seconds(13), None), [], "not read is absent");
        assert_eq!(
            read(seconds(99), Some(0x4)),
            [("sw_power_cap", 1.0), ("hw_thermal_slowdown", 1.0)],
            "a gap is no time"
        );
    }

    #[test]
    fn passes_that_are_far_apart_by_choice_are_no_gaps() {
        let mut throttle = Throttle::default();
        let mut read = |second| {
            let found = throttle.read(Duration::from_secs(second), Some(0x4), &Values::default());
            found.iter().map(|held| held.seconds).reduce(f64::max)
        };
        let found = [0, 30, 60, 90, 990, 1020].map(&mut read);
        assert_eq!(found, [0.0, 0.0, 30.0, 60.0, 60.0, 90.0].map(Some));
    }
}
