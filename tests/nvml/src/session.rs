//! One loaded library: where its profile is, what it has counted, and the way every exported function goes in.
//! The only file that reads the clock, the environment and the disk. Nothing here may panic into C.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::answer::{Code, DRIVER_NOT_LOADED, Outcome, UNINITIALIZED, UNKNOWN};
use crate::fault::Fault;
use crate::machine::Machine;
use crate::model::ModelName;
use crate::profile::Profile;
use crate::timeline::{PERIOD_US, Timeline};

// Limits. The profile is looked at again at most this often; older loads than the longest ring are forgotten; call counts are written at most this often.
const LOOK_AGAIN_US: u64 = 10_000;
const MEMORY_US: u64 = 60_000_000;
const COUNTS_EVERY_US: u64 = 500_000;

/// The energy counter does not start at zero on a machine that has been up for a while.
const ENERGY_AT_LOAD_MJ: f64 = 4.2e9;

static SESSION: Mutex<Option<Session>> = Mutex::new(None);

/// The state between `nvmlInit` and `nvmlShutdown`, and the counts beyond.
pub(crate) struct Session {
    source: Source,
    stamp: Option<(SystemTime, u64)>,
    pub(crate) timeline: Timeline,
    pub(crate) machine: Arc<Machine>,
    pub(crate) now_us: u64,
    pub(crate) users: u32,
    pub(crate) events: crate::exports::events::Sets,
    energy: Vec<(u64, f64)>,
    held: BTreeMap<(usize, u32), u64>,
    held_since_us: u64,
    counts: BTreeMap<&'static str, u64>,
    hits: Vec<u64>,
    looked_us: u64,
    counted_us: u64,
}

/// Where the profile comes from.
enum Source {
    File(PathBuf),
    Fixed(Profile),
}

#[expect(clippy::disallowed_methods, reason = "a driver has its own clock; this is the one place that reads it")]
fn clock_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "as above; this one does not jump")]
fn moment() -> Instant {
    Instant::now()
}

/// Runs one exported function: counts it, applies the faults that concern it, and answers its code no sooner than the profile lets it.
pub(crate) fn call(name: &'static str, gpu: Option<u32>, body: impl FnOnce(&mut Session) -> Outcome) -> Code {
    let start = moment();
    let mut cost = Duration::ZERO;
    let run = || -> Outcome {
        let mut guard = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
        let starts = name.starts_with("nvmlInit");
        if guard.is_none() && starts {
            *guard = Some(Session::load()?);
        }
        let session = guard.as_mut().ok_or(UNINITIALIZED)?;
        session.now_us = clock_us();
        session.look_again();
        session.count(name);
        if session.users == 0 && !starts {
            return Err(UNINITIALIZED);
        }
        cost = session.cost(name);
        let (slow, answer) = session.faults(name, gpu);
        let mut guard = hold(guard, name, gpu);
        let session = guard.as_mut().ok_or(UNINITIALIZED)?;
        if slow.is_zero() {
            answer.map_or_else(|| body(session), Err)
        } else {
            drop(guard);
            std::thread::sleep(slow);
            let mut guard = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
            let session = guard.as_mut().ok_or(UNINITIALIZED)?;
            answer.map_or_else(|| body(session), Err)
        }
    };
    let code = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code,
        Err(_) => UNKNOWN,
    };
    while start.elapsed() < cost {
        std::hint::spin_loop();
    }
    code
}

/// Keeps a call for as long as a fault says that it hangs. Others go on meanwhile.
fn hold(
    mut guard: MutexGuard<'static, Option<Session>>,
    name: &str,
    gpu: Option<u32>,
) -> MutexGuard<'static, Option<Session>> {
    while guard.as_mut().is_some_and(|session| session.hangs(name, gpu)) {
        drop(guard);
        std::thread::sleep(Duration::from_micros(LOOK_AGAIN_US));
        guard = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    }
    guard
}

impl Session {
    fn load() -> Result<Self, Code> {
        let source = Source::find();
        let (profile, stamp) = source.read().map_err(|error| {
            eprintln!("fake NVML: {error}");
            if matches!(source, Source::File(ref path) if !path.exists()) { DRIVER_NOT_LOADED } else { UNKNOWN }
        })?;
        let machine = Machine::new(profile).map(Arc::new).map_err(|error| {
            eprintln!("fake NVML: {error}");
            UNKNOWN
        })?;
        let mut timeline = Timeline::default();
        timeline.begin(0, machine.clone());
        let now_us = clock_us();
        let (energy, hits) = (energy_of(&machine, now_us, &[]), vec![0; machine.profile.faults.len()]);
        Ok(Self {
            source,
            stamp,
            timeline,
            machine,
            now_us,
            users: 0,
            events: crate::exports::events::Sets::default(),
            energy,
            held: BTreeMap::new(),
            held_since_us: now_us,
            counts: BTreeMap::new(),
            hits,
            looked_us: now_us,
            counted_us: 0,
        })
    }

    /// Takes up a profile that was written since. A wrong one is told on stderr, and the old one stays.
    fn look_again(&mut self) {
        if self.now_us.saturating_sub(self.looked_us) < LOOK_AGAIN_US {
            return;
        }
        self.looked_us = self.now_us;
        // A file that is gone went with its folder: the test or the demo is over, and there is nothing to tell.
        let stamp = self.source.stamp();
        if stamp.is_none() || stamp == self.stamp {
            return;
        }
        let read = self.source.read().and_then(|(profile, stamp)| Ok((Machine::new(profile)?, stamp)));
        match read {
            Ok((machine, stamp)) => self.take_up(machine, stamp),
            Err(error) => eprintln!("fake NVML: the old profile stays: {error}"),
        }
    }

    fn take_up(&mut self, machine: Machine, stamp: Option<(SystemTime, u64)>) {
        for index in 0..self.energy.len() {
            self.energy_mj(index);
        }
        self.hold();
        let written = stamp.and_then(|(time, _)| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let since = written.and_then(|since| u64::try_from(since.as_micros()).ok()).unwrap_or(self.now_us);
        if machine.profile.faults != self.machine.profile.faults {
            self.hits = vec![0; machine.profile.faults.len()];
        }
        self.machine = Arc::new(machine);
        self.stamp = stamp;
        self.timeline.begin(since.min(self.now_us), self.machine.clone());
        self.timeline.forget(self.now_us.saturating_sub(MEMORY_US));
        self.energy = energy_of(&self.machine, self.now_us, &self.energy);
    }

    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
        if self.now_us.saturating_sub(self.counted_us) >= COUNTS_EVERY_US {
            self.counted_us = self.now_us;
            self.write_counts();
        }
    }

    /// Writes how often each function was called, one `name count` a line, to the file that `FAKE_NVML_CALLS` names.
    pub(crate) fn write_counts(&self) {
        let Some(path) = std::env::var_os("FAKE_NVML_CALLS") else { return };
        let lines: String = self.counts.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
        if let Err(error) = std::fs::write(&path, lines) {
            eprintln!("fake NVML: cannot write call counts to {}: {error}", path.display());
        }
    }

    /// How long a call takes at least.
    fn cost(&self, name: &str) -> Duration {
        let costs = &self.machine.profile.costs_us;
        costs.get(name).and_then(|cost| Duration::try_from_secs_f64(cost / 1e6).ok()).unwrap_or_default()
    }

    /// How long the faults in force hold this call up, and what they answer.
    pub(crate) fn faults(&mut self, name: &str, gpu: Option<u32>) -> (Duration, Option<Code>) {
        let seconds = self.now_us as f64 / 1e6 - self.machine.profile.epoch_s;
        let (mut slow, mut answer) = (Duration::ZERO, None);
        for (fault, hits) in self.machine.profile.faults.iter().zip(&mut self.hits) {
            if !fault.concerns(name, gpu) || !fault.in_force(seconds) {
                continue;
            }
            *hits += 1;
            if *hits > fault.after_calls {
                slow += Duration::try_from_secs_f64(fault.slow_ms / 1e3).unwrap_or_default();
                answer = answer.or(fault.answer.map(crate::fault::Answer::code));
            }
        }
        (slow, answer)
    }

    /// Whether a fault in force keeps this call from coming back. A machine whose folder is gone lets go.
    fn hangs(&mut self, name: &str, gpu: Option<u32>) -> bool {
        let concerns = |fault: &Fault| fault.hangs && fault.concerns(name, gpu);
        if !self.machine.profile.faults.iter().any(concerns) {
            return false;
        }
        self.now_us = clock_us();
        self.look_again();
        let seconds = self.now_us as f64 / 1e6 - self.machine.profile.epoch_s;
        let gone = matches!(self.source, Source::File(_)) && self.source.stamp().is_none();
        !gone && self.machine.profile.faults.iter().any(|fault| concerns(fault) && fault.in_force(seconds))
    }

    /// The last sample period that is over.
    pub(crate) fn period(&self) -> u64 {
        (self.now_us / PERIOD_US).saturating_sub(1)
    }

    /// Energy since the driver was loaded, in mJ.
    pub(crate) fn energy_mj(&mut self, index: usize) -> u64 {
        let period = self.period();
        let Some((counted, mj)) = self.energy.get_mut(index) else { return 0 };
        let gpu = u32::try_from(index).unwrap_or(u32::MAX);
        for past in *counted + 1..=period {
            *mj += self.timeline.watts(gpu, past) * PERIOD_US as f64 / 1e3;
        }
        *counted = period.max(*counted);
        *mj as u64
    }
}

impl Session {
    /// Adds up for how long each reason of each GPU has held clocks down.
    fn hold(&mut self) {
        let elapsed = self.now_us.saturating_sub(std::mem::replace(&mut self.held_since_us, self.now_us));
        for (gpu, device) in self.machine.devices.iter().enumerate() {
            for bit in (0..u64::BITS).filter(|bit| device.gpu.clocks_event_reasons >> bit & 1 == 1) {
                *self.held.entry((gpu, bit)).or_default() += elapsed;
            }
        }
    }

    /// Nanoseconds for which one bit of `nvmlClocksEventReason*` has been set on a GPU.
    pub(crate) fn held_ns(&mut self, gpu: usize, bit: u32) -> u64 {
        self.hold();
        self.held.get(&(gpu, bit)).copied().unwrap_or_default() * 1_000
    }

    /// The samplers' clock now, in microseconds, given what it would be by the wall clock.
    pub(crate) fn sampler_us(&self, wall_us: u64) -> u64 {
        wall_us.saturating_add_signed((self.machine.profile.sampler_clock_s * 1e6) as i64)
    }
}

/// Counters for the GPUs of `machine`, going on where `before` stopped.
fn energy_of(machine: &Machine, now_us: u64, before: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let fresh = |index: usize| (now_us / PERIOD_US, ENERGY_AT_LOAD_MJ + 1e6 * index as f64);
    (0..machine.devices.len()).map(|index| before.get(index).copied().unwrap_or_else(|| fresh(index))).collect()
}

impl Source {
    /// A file beside this very copy of the library first, then `FAKE_NVML_PROFILE` (a path, or a name such as `8xH100`), else two idle T4.
    fn find() -> Self {
        if let Some(path) = crate::library::beside(crate::PROFILE_FILE).filter(|path| path.exists()) {
            return Self::File(path);
        }
        let Some(value) = std::env::var_os("FAKE_NVML_PROFILE") else {
            return Self::Fixed(Profile::idle(ModelName::T4, 2));
        };
        let named = value.to_str().and_then(Profile::named);
        named.map_or_else(|| Self::File(PathBuf::from(value)), Self::Fixed)
    }

    fn stamp(&self) -> Option<(SystemTime, u64)> {
        let Self::File(path) = self else { return None };
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    }

    fn read(&self) -> Result<(Profile, Option<(SystemTime, u64)>), String> {
        match self {
            Self::Fixed(profile) => Ok((profile.clone(), None)),
            Self::File(path) => {
                let stamp = self.stamp();
                let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
                let profile = Profile::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
                Ok((profile, stamp))
            }
        }
    }
}
