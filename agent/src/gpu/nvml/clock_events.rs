//! How often a reason held clocks down, as dcgm-exporter's `DCGM_EXP_CLOCK_EVENTS_*` count it: readings with the reason in the last five minutes, and
//! how often it began since the agent started.

use std::collections::VecDeque;
use std::time::Duration;

use crate::gpu::ClockEvent;
use crate::gpu::EVENT_WINDOW;

/// Bits of `nvmlClocksEventReason*` that are counted, from 0x1 (idle) to 0x100 (display).
pub(super) const REASONS: usize = 9;
/// The window is kept in parts: it is exact to one of them.
const PART: Duration = Duration::from_secs(10);
const PARTS: usize = EVENT_WINDOW.as_secs().div_ceil(PART.as_secs()) as usize;

/// What was counted for one GPU.
#[derive(Debug, Clone, Default)]
pub(super) struct ClockEvents {
    /// Readings by reason, in parts of the window, the newest last, with the part's number.
    parts: VecDeque<(u64, [u16; REASONS])>,
    begun: [u64; REASONS],
    last: u64,
}

impl ClockEvents {
    /// One reading: the reasons as bits; absent where the GPU does not tell them.
    pub(super) fn read(&mut self, now: Duration, bits: Option<u64>) -> Option<[ClockEvent; REASONS]> {
        let part = now.as_secs() / PART.as_secs();
        self.parts.retain(|(number, _)| number + PARTS as u64 > part);
        let bits = bits?;
        if self.parts.back().is_none_or(|(number, _)| *number != part) {
            self.parts.push_back((part, [0; REASONS]));
        }
        let rising = bits & !self.last;
        self.last = bits;
        if let Some((_, counts)) = self.parts.back_mut() {
            for (bit, (count, begun)) in counts.iter_mut().zip(&mut self.begun).enumerate() {
                *count = count.saturating_add((bits >> bit & 1) as u16);
                *begun += rising >> bit & 1;
            }
        }
        let mut events = self.begun.map(|begun| ClockEvent { recent: 0, begun });
        for (_, counts) in &self.parts {
            for (event, count) in events.iter_mut().zip(counts) {
                event.recent += u32::from(*count);
            }
        }
        Some(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_counted_for_five_minutes_and_beginnings_for_ever() {
        let mut events = ClockEvents::default();
        let mut read = |second, bits| {
            events.read(Duration::from_secs(second), bits).map(|events| (events[2].recent, events[2].begun))
        };
        for (second, bits, expect) in [
            (0, Some(0x4), Some((1, 1))),
            (1, Some(0x5), Some((2, 1))),
            (2, None, None),
            (3, Some(0x1), Some((2, 1))),
            (20, Some(0x4), Some((3, 2))),
            (299, Some(0), Some((3, 2))),
            (305, Some(0), Some((1, 2))),
            (1_000, Some(0x4), Some((1, 3))),
        ] {
            assert_eq!(read(second, bits), expect, "second {second}");
        }
    }
}
