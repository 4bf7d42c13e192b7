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

    fn add(&self, uuid: &Arc<str>, code: u64, unix: f64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(Arc::clone(uuid)).or_default();
        let at = seen.binary_search_by_key(&code, |kind| kind.code).unwrap_or_else(|at| {
            if seen.len() < CODES_MAX {
                seen.insert(at, Seen { code, count: 0, times: VecDeque::new() });
            }
            at
        });
        let Some(kind) = seen.get_mut(at).filter(|kind| kind.code == code) else { return };
        kind.count += 1;
        if kind.times.len() == TIMES_MAX {
            kind.times.pop_front();
        }
        kind.times.push_back(unix);
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
        let Some(events) = self.noted("event_set_create", Events::new(nvml)) else { return };
        let registered = |(handle, uuid): (Handle, Arc<str>)| {
            self.noted("register_events", events.register(&handle)).map(|()| (handle.key(), uuid))
        };
        let names: BTreeMap<usize, Arc<str>> = gpus.into_iter().filter_map(registered).collect();
        while !names.is_empty() && !self.stop.load(Ordering::Relaxed) {
            let next = events.wait(WAIT);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match next {
                Ok(Some((key, code))) => self.seen(names.get(&key), code),
                Ok(None) => {}
                Err(error) => {
                    let over = matches!(meaning(&error), Meaning::Session | Meaning::Unsupported);
                    self.noted::<()>("event_set_wait", Err(error));
                    if over {
                        return;
                    }
                    // A lost GPU makes every wait end at once.
                    std::thread::sleep(WAIT);
                }
            }
        }
    }

    fn seen(&self, uuid: Option<&Arc<str>>, code: u64) {
        let Some(uuid) = uuid else { return };
        tracing::warn!(%uuid, xid = code, "the driver reports an Xid error; see NVIDIA's list of Xid errors");
        self.xids.add(uuid, code, self.clock.unix());
    }

    /// Counts a failure.
    fn noted<T>(&self, call: &'static str, result: Result<T, NvmlError>) -> Option<T> {
        let failed = |error: &NvmlError| *open(&self.log).failed.entry((call, cause(error))).or_default() += 1;
        result.inspect_err(failed).ok()
    }
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
        (100..1_000).for_each(|code| xids.add(&uuid, code, 13.0));
        assert_eq!((xids.of("GPU-1", 13.0).len(), xids.of("GPU-2", 13.0).len()), (CODES_MAX, 0));
    }
}
