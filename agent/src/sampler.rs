//! The tick: ask the driver, name the processes, attribute, count, render, publish. One pass from left to right, at the agent's own pace.
//! Readers take the published value and never wait for the world.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::attribution::totals::Totals;
use crate::attribution::{GpuUse, Snapshot, attribute};
use crate::clock::Clock;
use crate::config::{Config, limits};
use crate::exposition::forms::Forms;
use crate::exposition::{self, Dropped, Page, Sources};
use crate::families::Own;
use crate::gpu::thread::{Answer, GpuThread};
use crate::gpu::{Absence, CallLog, Gpu, MigInstance, Reading};
use crate::jobs;
use crate::live::Live;
use crate::notices;
use crate::pods::poll::{Pods, Shared};
use crate::pods::processes::{Processes, Sources as Places};
use crate::ready::Ready;
use crate::usage::{self, History, Usage};

/// What readers get.
#[derive(Debug)]
pub struct Published {
    /// The page, in the forms that readers ask for.
    pub page: Forms,
    /// The answer of `/usage`.
    pub usage: Usage,
    /// When it was published, monotonic.
    pub at: Duration,
    /// Why GPUs that once answered are out of reach, when a restart may mend it.
    pub out_of_reach: Option<String>,
}

/// Where it is published; empty until the first tick has ended.
pub type Latest = Arc<ArcSwapOption<Published>>;

/// Everything that lives from tick to tick.
pub struct Sampler {
    live: Arc<Live>,
    config: Arc<Config>,
    gpus: GpuThread,
    pods: Arc<Shared>,
    notices: Arc<notices::Board>,
    jobs: jobs::Latest,
    clock: Clock,
    ready: Ready,
    latest: Latest,
    waiting: Option<oneshot::Receiver<Answer>>,
    processes: Processes,
    totals: Totals,
    history: History,
    calls: CallLog,
    devices: Vec<Arc<str>>,
    /// The GPUs as shown last, and when.
    last: (Duration, Vec<GpuUse>),
    state: State,
}

/// Numbers about the ticks themselves.
#[derive(Debug, Default)]
struct State {
    ticks: u64,
    tick_seconds: f64,
    last_reading: Option<f64>,
    series: usize,
    /// The last one.
    page: Page,
    dropped: Dropped,
    absence: Option<Absence>,
    reached: Option<Duration>,
}

/// Causes that a restart of the container does not mend, so that liveness must not fail for them.
const RESTART_IS_NO_HELP: [&str; 4] = ["driver_not_loaded", "library_not_found", "hangs", "starting"];

impl Sampler {
    /// Puts the parts together; nothing runs yet.
    pub fn new(
        live: Arc<Live>,
        gpus: GpuThread,
        (pods, notices, jobs): (Arc<Shared>, Arc<notices::Board>, jobs::Latest),
        (clock, ready): (Clock, Ready),
        latest: Latest,
    ) -> Self {
        ready.pending("nvml", "not read yet");
        let config = live.config();
        let processes = Processes::new(config.host_proc.clone(), config.host_logs.clone());
        Self {
            live,
            config,
            gpus,
            pods,
            notices,
            jobs,
            clock,
            ready,
            latest,
            waiting: None,
            processes,
            totals: Totals::default(),
            history: History::default(),
            calls: CallLog::default(),
            devices: Vec::new(),
            last: (Duration::ZERO, Vec::new()),
            state: State::default(),
        }
    }

    /// Ticks until cancelled.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut changes = self.live.changes();
        loop {
            let period = self.config.sample_interval;
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.config.sample_interval == period {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = interval.tick() => self.tick().await?,
                    changed = changes.changed() => {
                        changed?;
                        self.config = self.live.config();
                    }
                }
            }
        }
    }

    async fn tick(&mut self) -> anyhow::Result<()> {
        self.config = self.live.config();
        let start = self.clock.now();
        let reading = self.reading(start).await?;
        let (now, unix) = (self.clock.now(), self.clock.unix());
        let pods = self.pods.pods.load_full();
        let snapshot = self.snapshot(reading, &pods, now, unix);
        self.state.ticks += 1;
        self.publish(&snapshot, &pods, now, unix)?;
        self.last = (now, snapshot.gpus);
        self.state.tick_seconds = self.clock.now().saturating_sub(start).as_secs_f64();
        Ok(())
    }

    /// Asks the driver's thread. An answer that does not come in time is awaited further by the next tick, never asked for twice.
    async fn reading(&mut self, now: Duration) -> anyhow::Result<Result<Reading, Absence>> {
        let hangs = || Absence { cause: "hangs", message: format!("NVML has not answered for {:?}", limits::READING) };
        let Some(mut answer) = self.waiting.take().or_else(|| self.gpus.ask(now)) else { return Ok(Err(hangs())) };
        match tokio::time::timeout(limits::READING, &mut answer).await {
            Ok(Ok(answer)) => {
                self.calls = answer.log;
                Ok(answer.reading)
            }
            // Broken by a fault of ours: nothing but a new process brings it back.
            Ok(Err(_gone)) => anyhow::bail!("the NVML thread broke; what it said stands above"),
            Err(_elapsed) => {
                self.waiting = Some(answer);
                Ok(Err(hangs()))
            }
        }
    }

    fn snapshot(&mut self, reading: Result<Reading, Absence>, pods: &Pods, now: Duration, unix: f64) -> Snapshot {
        self.note(reading.as_ref().err());
        let reading = match reading {
            Ok(reading) => {
                self.state.last_reading = Some(unix);
                if reading.gpus.is_empty() || reading.gpus.iter().any(|gpu| gpu.up || gpu.lost || gpu.hangs) {
                    self.state.reached = Some(now);
                }
                reading
            }
            Err(absence) => self.down(&absence, now),
        };
        let identities = self.pods.identities.current();
        let places = Places { holders: &pods.holders, identities: &identities };
        let new_device = self.new_device(&reading);
        let resolved = self.processes.resolve(&pids(&reading), places, now);
        if resolved.stranger || new_device {
            self.pods.stranger.notify_one();
        }
        let snapshot = attribute(reading, &pods.holders, resolved.whose);
        self.totals.begin_anew(&identities);
        let gap = (self.config.sample_interval * limits::GAP_TICKS).max(limits::GAP_MIN);
        self.totals.advance(&snapshot, now, gap);
        self.history.record(&snapshot, now, unix);
        snapshot
    }

    /// The GPUs as shown last while no reading comes: they are down, not gone.
    fn down(&self, absence: &Absence, now: Duration) -> Reading {
        let (at, gpus) = &self.last;
        let down = |GpuUse { gpu, .. }: &GpuUse| Gpu {
            identity: Arc::clone(&gpu.identity),
            xids: gpu.xids.clone(),
            mig: gpu.mig.as_ref().map(|instances| instances.iter().map(MigInstance::unread).collect()),
            sample_age: gpu.sample_age.map(|age| age + now.saturating_sub(*at)),
            hangs: absence.cause == "hangs",
            ..Gpu::default()
        };
        Reading { driver_version: None, gpus: gpus.iter().map(down).collect() }
    }

    /// Whether a GPU or a MIG instance is there that was not a tick ago: somebody is about to be given it.
    fn new_device(&mut self, reading: &Reading) -> bool {
        let instances = reading.gpus.iter().flat_map(|gpu| gpu.mig.iter().flatten()).map(|instance| &instance.uuid);
        let devices = reading.gpus.iter().map(|gpu| &gpu.identity.uuid).chain(instances);
        if self.devices.iter().eq(devices.clone()) {
            return false;
        }
        let before = std::mem::replace(&mut self.devices, devices.cloned().collect());
        !before.is_empty() && self.devices.iter().any(|device| !before.contains(device))
    }

    /// Tells readiness and the log when NVML comes and goes: once per change.
    fn note(&mut self, absence: Option<&Absence>) {
        if self.state.ticks > 0 && self.state.absence.as_ref() == absence {
            return;
        }
        match absence {
            None => {
                tracing::info!("GPUs are read");
                self.ready.done("nvml");
            }
            Some(absence) => {
                tracing::warn!(cause = absence.cause, "{absence}; the agent stays up and tries again");
                self.ready.pending("nvml", absence.to_string());
            }
        }
        self.state.absence = absence.cloned();
    }

    fn publish(&mut self, snapshot: &Snapshot, pods: &Pods, now: Duration, unix: f64) -> anyhow::Result<()> {
        let (seen, jobs) = (self.notices.load(), self.jobs.load_full());
        let earlier = std::mem::take(&mut self.state.page);
        let own = Own { seen: Some(&seen), jobs: Some(&jobs), ..self.own(snapshot, pods, now) };
        let choice = self.live.choice();
        let sources = Sources {
            snapshot,
            identities: &self.pods.identities.current(),
            totals: &self.totals,
            time: unix,
            node: &self.config.node_name,
            choice: &choice,
            own: &own,
            series_max: self.config.max_series,
        };
        let page = exposition::render(&sources, earlier);
        let usage = Usage {
            node: self.config.node_name.as_str().into(),
            time: unix,
            sample_interval_seconds: self.config.sample_interval.as_secs_f64(),
            problem: self.state.absence.as_ref().map(|absence| absence.to_string().into()),
            pods_age_seconds: own.pods_age,
            provider_id: seen.provider_id.clone(),
            market: seen.market.clone(),
            notices: seen.notices.clone(),
            gpus: usage::gpus(snapshot, &self.history, now),
        };
        self.state.series = page.series;
        self.state.dropped.add(page.dropped);
        let out_of_reach = self.out_of_reach(now);
        let published = Published { page: Forms::new(page.text.clone()), usage, at: now, out_of_reach };
        self.state.page = page;
        self.latest.store(Some(Arc::new(published)));
        Ok(())
    }

    /// Why a restart may bring back GPUs that once answered; nothing while they answer, and nothing where a restart is no help.
    fn out_of_reach(&self, now: Duration) -> Option<String> {
        let absence = self.state.absence.as_ref();
        let since = now.saturating_sub(self.state.reached?);
        let mendable = absence.is_none_or(|absence| !RESTART_IS_NO_HELP.contains(&absence.cause));
        let what = absence.map_or("no GPU answers any call", |absence| &absence.message);
        (mendable && since > self.live.config().out_of_reach).then(|| {
            format!("the GPUs have been out of reach for {since:.0?} ({what}); a restart may give the container its devices back")
        })
    }

    fn own<'a>(&'a self, snapshot: &'a Snapshot, pods: &Pods, now: Duration) -> Own<'a> {
        // A container's shares have one name in one place.
        let held = snapshot.shares.iter().filter(|share| share.held);
        let mut holding: Vec<_> = held.map(|share| Arc::as_ptr(&share.owner)).collect();
        holding.sort_unstable();
        holding.dedup();
        Own {
            node: &self.config.node_name,
            seen: None,
            jobs: None,
            version: env!("CARGO_PKG_VERSION"),
            driver_version: snapshot.driver_version.as_deref(),
            nvml_absence: self.state.absence.as_ref().map(|absence| absence.cause),
            nvml_failures: self.calls.failed.iter().map(|(&(call, cause), &count)| (call, cause, count)).collect(),
            nvml_calls: self
                .calls
                .made
                .iter()
                .map(|&(call, made)| (call, made.count, made.time.as_secs_f64()))
                .collect(),
            ticks: self.state.ticks,
            tick_seconds: self.state.tick_seconds,
            last_reading: self.state.last_reading,
            kubelet_up: pods.up,
            pods_api_up: pods.identified,
            kubelet_last_success: pods.made.map(|(_, unix)| unix),
            pods_age: pods.made.map(|(made, _)| now.saturating_sub(made).as_secs_f64()),
            kubelet_failures: pods.failures,
            containers: holding.len(),
            unknown_ids: pods.holders.unknown_ids,
            unknown_processes: snapshot.gpus.iter().map(|gpu| gpu.unknown_processes).sum(),
            series: self.state.series,
            series_dropped: self.state.dropped,
            reloads: self.live.reloads(),
        }
    }
}

/// Every pid that the driver named, in order.
#[must_use]
pub fn pids(reading: &Reading) -> Vec<u32> {
    let listed = reading.gpus.iter().flat_map(|gpu| gpu.processes.iter().flatten()).map(|process| process.pid);
    let used = reading.gpus.iter().flat_map(|gpu| gpu.process_utilization.iter().flatten()).map(|used| used.pid);
    let mut pids: Vec<u32> = listed.chain(used).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}
