//! The session with NVML: finds and opens the library, keeps the GPUs, reads each of them in a pass within a budget of time.
//! This file and its folder are the only users of `nvml_wrapper`.

mod calls;
mod clock_events;
mod device;
mod errors;
mod events;
mod fields;
mod gpm;
mod links;
mod mig;
mod processes;
mod raw;
mod samples;
mod slot;
mod throttle;
mod utilization;
mod worker;

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use self::calls::Log;
use self::device::{Broken, Card};
use self::events::Watch;
pub use self::events::Xids;
use self::slot::{Brought, Slot};
use self::worker::Worker;
use super::{Absence, CallLog, Gpus, Reading};
use crate::clock::Clock;

/// Where the library lies: the loader's own path first, then distributions, the GPU operator's driver container, GKE.
const LIBRARIES: [&str; 9] = [
    "libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib64/libnvidia-ml.so.1",
    concat!("/home", "/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.1"),
];
/// The GPUs are counted this often.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// Handles are looked up again this often while a GPU is down, or when the number of GPUs changes.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(10);
/// After this many passes in which no GPU answered anything, the session is opened anew.
const SILENT_PASSES: u32 = 5;
/// How long a pass over all GPUs should take at most; what each may take is in `worker.rs`.
const PASS_BUDGET: Duration = Duration::from_secs(3);
/// More GPUs than any machine has: the bound on a count that the driver gives.
const GPUS_MAX: u32 = 256;

/// Opens NVML: the library named, or the first of the usual places that both loads and initialises.
pub fn open(library: Option<&Path>) -> Result<Nvml, Absence> {
    let named = library.map(|path| vec![path]);
    let candidates = named.unwrap_or_else(|| LIBRARIES.iter().map(Path::new).collect());
    let mut reason: Option<(&Path, NvmlError)> = None;
    for path in candidates {
        match Nvml::builder().lib_path(path.as_os_str()).init() {
            Ok(nvml) => {
                tracing::info!(library = %path.display(), driver = nvml.sys_driver_version().ok(), "NVML opened");
                return Ok(nvml);
            }
            // A library that loads and refuses says more than one that is not there.
            Err(error) => {
                let loads = !matches!(error, NvmlError::LibloadingError(_));
                if loads || reason.is_none() {
                    reason = Some((path, error));
                }
                if loads {
                    break;
                }
            }
        }
    }
    let (path, error) = reason.unwrap_or((Path::new("libnvidia-ml.so.1"), NvmlError::LibraryNotFound));
    let message = format!("NVML did not open ({}): {}", path.display(), errors::said(&error));
    Err(Absence { cause: errors::cause(&error), message })
}

/// What outlives a session.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    log: Log,
    xids: Xids,
}

impl Memory {
    /// The calls so far.
    #[must_use]
    pub fn log(&self) -> CallLog {
        calls::open(&self.log).clone()
    }

    /// Counts a library that did not open.
    pub fn not_opened(&self, absence: &Absence) {
        *calls::open(&self.log).failed.entry(("open", absence.cause)).or_default() += 1;
    }
}

/// The library of a session that has ended. While a call hangs in it, it stays open, and opening it again would give the old one.
#[derive(Debug, Clone, Default)]
pub struct Library(Weak<Nvml>);

impl Library {
    /// Whether anyone still uses it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// One session: the GPUs in the driver's order.
pub struct Session {
    nvml: Arc<Nvml>,
    driver_version: Option<String>,
    slots: Vec<Slot>,
    worker: Worker,
    /// A count of the GPUs that has not come back.
    counting: Option<Receiver<Result<u32, NvmlError>>>,
    memory: Memory,
    watch: Option<Watch>,
    clock: Clock,
    count_due: Duration,
    look_up_due: Duration,
    silent: u32,
}

impl Session {
    /// Goes on with the counts of the sessions before.
    pub fn new(nvml: Nvml, memory: Memory) -> std::io::Result<Self> {
        Ok(Self {
            driver_version: nvml.sys_driver_version().ok(),
            nvml: Arc::new(nvml),
            slots: Vec::new(),
            worker: Worker::start()?,
            counting: None,
            memory,
            watch: None,
            clock: Clock::start(),
            count_due: Duration::ZERO,
            look_up_due: Duration::ZERO,
            silent: 0,
        })
    }

    /// The library, to be asked after the session whether it is closed.
    #[must_use]
    pub fn library(&self) -> Library {
        Library(Arc::downgrade(&self.nvml))
    }

    /// How many GPUs there are; as many as before while the driver does not say.
    fn count(&mut self, now: Duration) -> Result<usize, NvmlError> {
        let known = self.slots.len();
        let bounded = |count: u32| count.min(GPUS_MAX) as usize;
        if known == 0 {
            // Without a count there is nothing to read: who asked waits for this thread, and tells that the driver hangs.
            return self.nvml.device_count().map(bounded);
        }
        if now < self.count_due {
            return Ok(known);
        }
        self.count_due = now + COUNT_INTERVAL;
        let outcome = match self.counting.take() {
            Some(late) => Some(late.try_recv().map_err(|_in_hand| late)),
            None => {
                let nvml = Arc::clone(&self.nvml);
                self.worker.round(vec![()], PASS_BUDGET, move |()| nvml.device_count()).pop()
            }
        };
        match outcome {
            Some(Ok(Ok(count))) => Ok(bounded(count)),
            // The GPUs that are known are better than none.
            Some(Ok(Err(_))) | None => Ok(known),
            Some(Err(late)) => {
                self.counting = Some(late);
                Ok(known)
            }
        }
    }

    /// Looks up handles for GPUs that have none, or for all when their number has changed.
    fn look_up(&mut self, now: Duration) -> Result<(), NvmlError> {
        let count = self.count(now)?;
        let changed = count != self.slots.len();
        let down = self.silent > 0 || self.slots.iter().any(Slot::needs_look_up);
        let due = changed || (down && now >= self.look_up_due);
        if !due {
            return Ok(());
        }
        self.look_up_due = now + LOOK_UP_INTERVAL;
        self.slots.truncate(count);
        let indices = (self.slots.len()..count).filter_map(|index| u32::try_from(index).ok());
        self.slots.extend(indices.map(Slot::new));
        let (nvml, log) = (Arc::clone(&self.nvml), Arc::clone(&self.memory.log));
        self.work(Duration::MAX, move |card| (Box::new(card.look_up(&nvml, &log)), None));
        self.slots.iter_mut().for_each(Slot::looked_up);
        Ok(())
    }

    /// Waits for the events of the GPUs that there are now.
    fn watch(&mut self) {
        let gpus: Vec<_> = self.slots.iter().filter_map(Slot::named_handle).collect();
        let same = |watch: &Watch| watch.keys.iter().copied().eq(gpus.iter().map(|(handle, _)| handle.key()));
        // A GPU that hangs has no handle here meanwhile; the watch that there is knows it.
        let stands = |watch: &Watch| same(watch) || self.slots.iter().any(Slot::is_away);
        if self.watch.as_ref().is_some_and(stands) {
            return;
        }
        self.watch = Watch::start(&self.nvml, gpus, &self.memory.log, &self.memory.xids)
            .inspect_err(
                |error| tracing::warn!(%error, "no thread for the driver's events: Xid errors are not counted"),
            )
            .ok();
    }

    fn absence(&self, error: &NvmlError) -> Absence {
        let message = format!("NVML stopped answering: {}", errors::said(error));
        Absence { cause: errors::cause(error), message }
    }

    /// Has the thread work on every card that is here. What was read comes in the slots' order, absent where a call hangs.
    fn work(
        &mut self,
        all: Duration,
        work: impl Fn(Box<Card>) -> Brought + Clone + Send + 'static,
    ) -> Vec<Option<(super::Gpu, Broken)>> {
        let cards = self.slots.iter_mut().filter_map(Slot::lend).collect();
        let mut outcomes = self.worker.round(cards, all, work).into_iter();
        let mut take_back = |slot: &mut Slot| {
            let outcome = if slot.is_lent() { outcomes.next() } else { None };
            outcome.and_then(|outcome| slot.take_back(outcome))
        };
        self.slots.iter_mut().map(&mut take_back).collect()
    }

    /// Reads every GPU in turn.
    fn pass(&mut self, now: Duration) -> Result<Vec<super::Gpu>, NvmlError> {
        let (log, clock) = (Arc::clone(&self.memory.log), self.clock);
        let read = self.work(PASS_BUDGET, move |mut card| {
            let pass = card.read(now, &log, &|| clock.now());
            (card, Some(pass))
        });
        let mut gpus = Vec::with_capacity(self.slots.len());
        for (slot, read) in self.slots.iter_mut().zip(read) {
            let mut gpu = match read {
                Some((gpu, None)) => gpu,
                Some((_, Some(error))) => return Err(error),
                None => slot.hangs(),
            };
            if slot.is_back(&gpu) {
                slot.drop_handle();
                self.look_up_due = now;
                gpu = slot.down();
            }
            gpu.xids = self.memory.xids.of(&gpu.identity.uuid, self.clock.unix());
            slot.date(&mut gpu, now);
            slot.tell(&gpu);
            if !gpu.up && now >= self.look_up_due {
                slot.drop_handle(); // a handle from before a reset stays dead: ask for a new one
            }
            gpus.push(gpu);
        }
        Ok(gpus)
    }
}

impl Gpus for Session {
    fn read(&mut self, now: Duration) -> Result<Reading, Absence> {
        self.slots.iter_mut().for_each(Slot::come_home);
        self.look_up(now).map_err(|error| self.absence(&error))?;
        self.watch();
        let gpus = self.pass(now).map_err(|error| self.absence(&error))?;
        let silent = !gpus.is_empty() && gpus.iter().all(|gpu| !gpu.up && !gpu.lost && !gpu.hangs);
        self.silent = if silent { self.silent + 1 } else { 0 };
        if self.silent >= SILENT_PASSES {
            return Err(self.absence(&NvmlError::Unknown));
        }
        Ok(Reading { driver_version: self.driver_version.clone(), gpus })
    }
}
