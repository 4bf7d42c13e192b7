//! Bookkeeping around the calls to one device: what it refuses is asked once, what fails is counted, what is lost is left alone, what is costly is
//! asked rarely. Every NVML call of a reading goes through here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvml_wrapper::error::NvmlError;

use super::errors::{Meaning, cause, meaning};
use crate::gpu::CallLog;

/// When the calls of one pass over one device have taken this long, what can wait is put off to a later pass, but not for longer than its interval:
/// then it is asked all the same, one such question in a pass.
const PASS_BUDGET: Duration = Duration::from_millis(20);
/// A call that can wait is asked again after this many times what it took, so that it takes at most a fiftieth of the time.
const REST: u32 = 50;
/// Devices do what can wait at different times: each in its own part of the interval.
const STAGGER: u32 = 8;

/// What one device will not answer. Forgotten when its MIG mode changes, since that changes what it answers.
pub(super) type Refused = BTreeSet<&'static str>;

/// The counts, shared by all threads that make calls.
pub(super) type Log = Arc<Mutex<CallLog>>;

/// Opens the counts: nobody holds them over a call, and a panic cannot leave them half written.
pub(super) fn open(log: &Mutex<CallLog>) -> MutexGuard<'_, CallLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a call went, where the caller must know more than a value.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    /// Answered.
    Value(T),
    /// Answered: there is nothing.
    Nothing,
    /// Not answered.
    Failed,
}

impl<T> Outcome<T> {
    pub(super) fn value(self) -> Option<T> {
        match self {
            Outcome::Value(value) => Some(value),
            Outcome::Nothing | Outcome::Failed => None,
        }
    }
}

/// The last answer to a question that can wait, and when it is asked again.
#[derive(Debug, Clone)]
pub(super) struct Paced<T> {
    value: Option<T>,
    due: Duration,
    asked: bool,
}

impl<T> Default for Paced<T> {
    fn default() -> Self {
        Self { value: None, due: Duration::ZERO, asked: false }
    }
}

/// The calls of one pass over one device.
pub(super) struct Calls<'a> {
    log: &'a Mutex<CallLog>,
    refused: &'a mut Refused,
    clock: &'a dyn Fn() -> Duration,
    /// The device's index: which part of an interval is its own.
    index: u32,
    /// When the pass began.
    pub(super) now: Duration,
    /// What the calls of this pass have taken.
    spent: Duration,
    /// Whether this pass has asked a question that had been put off for too long.
    late: bool,
    /// Whether anything was answered.
    pub(super) answered: bool,
    /// The device is gone: nothing more is asked in this pass.
    pub(super) lost: bool,
    /// The session is gone, with the error that said so.
    pub(super) session: Option<NvmlError>,
}

impl<'a> Calls<'a> {
    /// A pass that begins at `now`. `clock` is read around each call, and only differences count.
    pub(super) fn new(
        log: &'a Mutex<CallLog>,
        refused: &'a mut Refused,
        clock: &'a dyn Fn() -> Duration,
        (index, now): (u32, Duration),
    ) -> Self {
        let spent = Duration::ZERO;
        Self { log, refused, clock, index, now, spent, late: false, answered: false, lost: false, session: None }
    }

    /// Whether the device will not answer a call.
    pub(super) fn refuses(&self, name: &'static str) -> bool {
        self.refused.contains(name)
    }

    /// This very moment. Only differences count.
    pub(super) fn moment(&self) -> Duration {
        (self.clock)()
    }

    /// Makes a call unless the device refuses it or is gone.
    pub(super) fn make<T>(&mut self, name: &'static str, call: impl FnOnce() -> Result<T, NvmlError>) -> Outcome<T> {
        if self.lost || self.session.is_some() || self.refuses(name) {
            return Outcome::Failed;
        }
        let start = (self.clock)();
        let result = call();
        let took = (self.clock)().saturating_sub(start);
        self.spent += took;
        open(self.log).made(name, took);
        let error = match result {
            Ok(value) => {
                self.answered = true;
                return Outcome::Value(value);
            }
            Err(error) => error,
        };
        match self.failed(name, error) {
            Meaning::Nothing => Outcome::Nothing,
            _ => Outcome::Failed,
        }
    }

    /// What follows from an error, here and for the counts.
    pub(super) fn failed(&mut self, name: &'static str, error: NvmlError) -> Meaning {
        let meaning = meaning(&error);
        if meaning == Meaning::Nothing {
            self.answered = true;
            return meaning;
        }
        *open(self.log).failed.entry((name, cause(&error))).or_default() += 1;
        match meaning {
            Meaning::Unsupported => {
                tracing::debug!(call = name, %error, gpu = self.index, "not answered by this device: not asked again");
                self.refused.insert(name);
            }
            Meaning::Lost => self.lost = true,
            Meaning::Session => self.session = Some(error),
            Meaning::Nothing | Meaning::Transient => {}
        }
        meaning
    }

    /// Makes a call of which only the value matters.
    pub(super) fn ask<T>(&mut self, name: &'static str, call: impl FnOnce() -> Result<T, NvmlError>) -> Option<T> {
        self.make(name, call).value()
    }

    /// A question that can wait: asked `every` so often, more rarely when it is costly, and not in a pass that has already taken long.
    /// In between the last answer stands.
    pub(super) fn paced<T: Clone>(
        &mut self,
        slot: &mut Paced<T>,
        every: Duration,
        ask: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let over = slot.asked && self.spent > PASS_BUDGET;
        let put_off = over && (self.late || self.now < slot.due + every);
        if self.now >= slot.due && !put_off {
            self.late |= over;
            let before = self.spent;
            slot.value = ask(self);
            let stagger = if slot.asked { Duration::ZERO } else { every * (self.index % STAGGER) / STAGGER };
            slot.due = self.now + (every + stagger).max((self.spent - before) * REST);
            slot.asked = true;
        }
        slot.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use super::*;
    use crate::gpu::Made;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn unsupported_is_dropped_once_per_device_and_counted() {
        let (log, mut refused) = (Mutex::default(), Refused::new());
        for _ in 0..3 {
            let mut calls = Calls::new(&log, &mut refused, &|| Duration::ZERO, (0, SECOND));
            assert_eq!(calls.ask("power", || Err::<u32, _>(NvmlError::NotSupported)), None);
            assert_eq!(calls.ask("idle", || Err::<u32, _>(NvmlError::NotFound)), None);
            assert_eq!(calls.ask("memory", || Err::<u32, _>(NvmlError::GpuLost)), None);
            assert_eq!(calls.ask("clock", || Ok(1)), None, "a lost device is left alone");
            assert!(calls.lost && calls.answered);
        }
        let log = open(&log);
        assert_eq!(log.failed, BTreeMap::from([(("memory", "gpu_is_lost"), 3), (("power", "not_supported"), 1)]));
        assert_eq!(
            log.made.iter().map(|(name, made)| (*name, made.count)).collect::<Vec<_>>(),
            [("idle", 3), ("memory", 3), ("power", 1)]
        );
    }

    /// Passes once a second, each with a quick call and two costly ones that can wait; the passes in which each of these was made.
    fn passes(index: u32, every: u64, cost: [u64; 2]) -> [Vec<u64>; 2] {
        let (log, mut refused, time) = (Mutex::default(), Refused::new(), Cell::new(Duration::ZERO));
        let clock = || time.get();
        let mut slots = [Paced::default(), Paced::default()];
        let mut made = [Vec::new(), Vec::new()];
        for pass in 0..30 {
            let mut calls = Calls::new(&log, &mut refused, &clock, (index, SECOND * pass));
            for ((slot, cost), made) in slots.iter_mut().zip(cost).zip(&mut made) {
                let costly = |calls: &mut Calls<'_>| {
                    made.push(u64::from(pass));
                    calls.ask("costly", || {
                        time.set(time.get() + Duration::from_millis(cost));
                        Ok(cost)
                    })
                };
                assert_eq!(calls.paced(slot, SECOND * every as u32, costly), Some(cost), "the last answer stands");
            }
        }
        let spent: u64 = made.iter().zip(cost).map(|(made, cost)| made.len() as u64 * cost).sum();
        assert_eq!(
            open(&log).made,
            [("costly", Made { count: made.iter().flatten().count() as u64, time: Duration::from_millis(spent) })]
        );
        made
    }

    #[test]
    fn a_driver_that_is_always_slow_is_asked_everything_in_the_end() {
        let (log, mut refused, time) = (Mutex::default(), Refused::new(), Cell::new(Duration::ZERO));
        let clock = || time.get();
        let mut slots = [Paced::default(), Paced::default()];
        let mut made = [Vec::new(), Vec::new()];
        for pass in 0..30 {
            let mut calls = Calls::new(&log, &mut refused, &clock, (0, SECOND * pass));
            calls.ask("needed in each pass", || {
                time.set(time.get() + PASS_BUDGET * 2);
                Ok(())
            });
            for (slot, made) in slots.iter_mut().zip(&mut made) {
                calls.paced(slot, SECOND * 5, |_| {
                    made.push(pass);
                    Some(())
                });
            }
        }
        assert_eq!(made, [[0, 10, 20], [0, 11, 21]], "half as often, and not both in one pass");
    }

    #[test]
    fn nvml_calls_keep_a_budget_and_slow_calls_are_spread_over_ticks() {
        assert_eq!(passes(0, 10, [1, 1]), [[0, 10, 20], [0, 10, 20]], "cheap ones keep their interval");
        assert_eq!(passes(4, 10, [1, 1])[0], [0, 15, 25], "another device has another part of it");
        assert_eq!(passes(0, 10, [25, 1]), [vec![0, 10, 20], vec![0, 11, 21]], "the second waits for the next tick");
        assert_eq!(passes(0, 5, [300, 1])[0], [0, 15], "a very costly one is asked rarely");
    }
}
