//! Xid errors: a thread waits for the driver's events and counts them. It has a deadline of its own, so that nothing else waits with it.
//! The counts outlive the session.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::calls::{Log, open};
use super::errors::{Meaning, cause, meaning};
use super::raw::{Events, Handle};
use crate::clock::Clock;
use crate::gpu::{EVENT_WINDOW, Xid};

/// How long one wait takes: so much later the thread notices that it should end, well before a lost session is opened again.
const WAIT: Duration = Duration::from_millis(500);
/// How long what the driver did not do is left alone before it is asked for again.
const RETRY: Duration = Duration::from_secs(2);
/// Kinds of Xid that are counted for one GPU.
const CODES_MAX: usize = 64;
/// Times that are kept of one of them, for counting what is recent.
const TIMES_MAX: usize = 1_000;

/// What was seen, by the GPU's uuid.
#[derive(Debug, Clone, Default)]
pub struct Xids(Arc<Mutex<BTreeMap<Arc<str>, Vec<Seen>>>>);

/// One kind of Xid error, with the times of the latest.
#[derive(Debug)]
struct Seen {
    code: u64,
    count: u64,
    times: VecDeque<f64>,
}

impl Xids {
    /// The counts of one GPU, in order of code.
    pub(super) fn of(&self, uuid: &str, unix: f64) -> Vec<Xid> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = unix - EVENT_WINDOW.as_secs_f64();
        let told = |seen: &mut Seen| {
            while seen.times.len() > 1 && seen.times.front().is_some_and(|time| *time < old) {
                seen.times.pop_front();
            }
            let recent = seen.times.iter().filter(|time| **time >= old).count();
            let last = seen.times.back().copied().unwrap_or_default();
            Xid { code: seen.code, count: seen.count, last, recent: u32::try_from(recent).unwrap_or(u32::MAX) }
        };
        all.get_mut(uuid).map(|seen| seen.iter_mut().map(told).collect()).unwrap_or_default()
    }

    /// Counts one; how many it are now of its kind, 0 where kinds are too many.
    fn add(&self, uuid: &Arc<str>, code: u64, unix: f64) -> u64 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(Arc::clone(uuid)).or_default();
        let at = seen.binary_search_by_key(&code, |kind| kind.code).unwrap_or_else(|at| {
            if seen.len() < CODES_MAX {
                seen.insert(at, Seen { code, count: 0, times: VecDeque::new() });
            }
            at
        });
        let Some(kind) = seen.get_mut(at).filter(|kind| kind.code == code) else { return 0 };
        kind.count += 1;
        if kind.times.len() == TIMES_MAX {
            kind.times.pop_front();
        }
        kind.times.push_back(unix);
        kind.count
    }
}

/// The thread, until dropped.
#[derive(Debug)]
pub(super) struct Watch {
    /// Whose events it takes: keys of handles.
    pub(super) keys: Vec<usize>,
    stop: Arc<AtomicBool>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    /// Waits for events of these GPUs.
    pub(super) fn start(
        nvml: &Arc<Nvml>,
        gpus: Vec<(Handle, Arc<str>)>,
        log: &Log,
        xids: &Xids,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let keys = gpus.iter().map(|(handle, _)| handle.key()).collect();
        let watcher =
            Watcher { log: Arc::clone(log), xids: xids.clone(), stop: Arc::clone(&stop), clock: Clock::start() };
        let nvml = Arc::clone(nvml);
        std::thread::Builder::new().name("nvml-events".into()).spawn(move || watcher.watch(&nvml, gpus))?;
        Ok(Self { keys, stop })
    }
}

struct Watcher {
    log: Log,
    xids: Xids,
    stop: Arc<AtomicBool>,
    clock: Clock,
}

impl Watcher {
    fn watch(&self, nvml: &Arc<Nvml>, gpus: Vec<(Handle, Arc<str>)>) {
        let Some(events) = self.create(nvml) else { return };
        let (mut names, mut missing) = (BTreeMap::new(), gpus);
        while !self.is_over() {
            missing.retain(|(handle, uuid)| match self.noted("register_events", events.register(handle)) {
                Ok(()) => {
                    names.insert(handle.key(), Arc::clone(uuid));
                    false
                }
                Err(meaning) => is_passing(meaning),
            });
            if names.is_empty() && missing.is_empty() {
                return;
            }
            let until = (!missing.is_empty()).then(|| self.clock.now() + RETRY);
            if !self.listen(&events, &names, until) {
                return;
            }
        }
    }

    /// A set of events, when the driver gives one.
    fn create(&self, nvml: &Arc<Nvml>) -> Option<Events> {
        loop {
            match self.noted("event_set_create", Events::new(nvml)) {
                Ok(events) => return Some(events),
                Err(meaning) if is_passing(meaning) && !self.is_over() => std::thread::sleep(RETRY),
                Err(_) => return None,
            }
        }
    }

    /// Takes events until a moment; for ever without one. False when there will be no more.
    fn listen(&self, events: &Events, names: &BTreeMap<usize, Arc<str>>, until: Option<Duration>) -> bool {
        while !self.is_over() && until.is_none_or(|until| self.clock.now() < until) {
            if names.is_empty() {
                std::thread::sleep(WAIT);
                continue;
            }
            let next = events.wait(WAIT);
            if self.is_over() {
                return false;
            }
            match self.noted("event_set_wait", next) {
                Ok(Some((key, code))) => self.seen(names.get(&key), code),
                Ok(None) => {}
                // A lost GPU makes every wait end at once.
                Err(meaning) if is_passing(meaning) => std::thread::sleep(WAIT),
                Err(_) => return false,
            }
        }
        true
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn seen(&self, uuid: Option<&Arc<str>>, code: u64) {
        let Some(uuid) = uuid else { return };
        let count = self.xids.add(uuid, code, self.clock.unix());
        // A flood is told of ever more rarely: the 1st, 2nd, 4th, 8th…
        if count.is_power_of_two() {
            tracing::warn!(%uuid, xid = code, count, "the driver reports an Xid error; see NVIDIA's list of Xid errors");
        }
    }

    /// Counts a failure.
    fn noted<T>(&self, call: &'static str, result: Result<T, NvmlError>) -> Result<T, Meaning> {
        result.map_err(|error| {
            *open(&self.log).failed.entry((call, cause(&error))).or_default() += 1;
            meaning(&error)
        })
    }
}

/// Whether the driver may do later what it did not do now.
fn is_passing(meaning: Meaning) -> bool {
    !matches!(meaning, Meaning::Session | Meaning::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xids_are_counted_by_code_with_the_time_of_the_last() {
        let (xids, uuid) = (Xids::default(), Arc::from("GPU-1"));
        for (code, unix) in [(79, 10.0), (31, 11.0), (79, 12.0)] {
            xids.add(&uuid, code, unix);
        }
        let xid = |code, count, last, recent| Xid { code, count, last, recent };
        assert_eq!(xids.of("GPU-1", 13.0), [xid(31, 1, 11.0, 1), xid(79, 2, 12.0, 2)]);
        assert_eq!(xids.of("GPU-1", 311.0), [xid(31, 1, 11.0, 1), xid(79, 2, 12.0, 1)]);
        assert_eq!(xids.of("GPU-1", 999.0), [xid(31, 1, 11.0, 0), xid(79, 2, 12.0, 0)], "the count and the last stay");
        let flood: u64 = (100..1_000).map(|code| xids.add(&uuid, code, 13.0)).sum();
        assert_eq!(flood, CODES_MAX as u64 - 2, "more kinds than are kept count for nothing");
        assert_eq!((xids.of("GPU-1", 13.0).len(), xids.of("GPU-2", 13.0).len()), (CODES_MAX, 0));
    }
}
