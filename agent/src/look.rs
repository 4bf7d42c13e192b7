//! One look at the node, for a person who waits: two readings a second apart, so that use is measured and not guessed, and the kubelet's answer.
//! The same parts as the service, without its loops. What cannot be had is told, and costs nothing else.

use std::path::PathBuf;
use std::time::Duration;

use crate::attribution::{Snapshot, attribute};
use crate::clock::Clock;
use crate::config::{Config, limits};
use crate::gpu::thread::{Answer, GpuThread};
use crate::gpu::{Absence, CallLog};
use crate::pods::identity::Identities;
use crate::pods::kubelet::Kubelet;
use crate::pods::processes::{Processes, Sources};
use crate::pods::{Holders, poll};
use crate::sampler::pids;

/// Time between the two readings: the longest sample period of any driver.
const BETWEEN: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Debug)]
pub struct Look {
    /// The file of the NVML library in use, where the system tells it.
    pub library: Option<PathBuf>,
    /// The node's GPUs and who uses them, or why there are none.
    pub gpus: Result<Snapshot, Absence>,
    /// Calls made and refused.
    pub calls: CallLog,
    /// Every pid that the driver named.
    pub pids: Vec<u32>,
    /// Who holds what; nobody, where no kubelet is asked; or why it is not known.
    pub owners: Result<Holders, String>,
}

/// Looks. Fails only when no thread can be started.
pub async fn look(config: &Config) -> std::io::Result<Look> {
    let clock = Clock::start();
    let gpus = GpuThread::start(config.nvml_library.clone())?;
    let first = read(&gpus, &clock).await;
    let owners = owners(config).await;
    let second = if first.reading.is_ok() {
        tokio::time::sleep(BETWEEN).await;
        read(&gpus, &clock).await
    } else {
        first
    };
    let nobody = Holders::default();
    let holders = owners.as_ref().unwrap_or(&nobody);
    let pids = second.reading.as_ref().map(pids).unwrap_or_default();
    let snapshot = second.reading.map(|reading| {
        let mut processes = Processes::new(config.host_proc.clone(), config.host_logs.clone());
        let sources = Sources { holders, identities: &Identities::default() };
        let resolved = processes.resolve(&pids, sources, clock.now());
        attribute(reading, holders, resolved.whose)
    });
    Ok(Look { library: loaded(), gpus: snapshot, calls: second.log, pids, owners })
}

async fn read(gpus: &GpuThread, clock: &Clock) -> Answer {
    let absent = |cause, message: String| Answer { reading: Err(Absence { cause, message }), log: CallLog::default() };
    let Some(answer) = gpus.ask(clock.now()) else { return absent("busy", "the NVML thread is busy".into()) };
    match tokio::time::timeout(limits::READING, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_gone)) => absent("thread_ended", "the NVML thread ended".into()),
        Err(_elapsed) => {
            let limit = limits::READING;
            absent("hangs", format!("NVML did not answer within {limit:?}"))
        }
    }
}

async fn owners(config: &Config) -> Result<Holders, String> {
    let Some(socket) = &config.kubelet_socket else { return Ok(Holders::default()) };
    let told = |reason: String| format!("the kubelet at {} does not answer: {reason}", socket.display());
    let mut kubelet = Kubelet::new(socket).map_err(|error| told(error.to_string()))?;
    let mut holders = kubelet.holders().await.map_err(|refusal| told(refusal.reason))?;
    if let Some(checkpoint) = &config.kubelet_checkpoint {
        holders.names = poll::names(checkpoint, &holders);
    }
    Ok(holders)
}

/// The library among the files that this process has mapped.
fn loaded() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut files = maps.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
    files.find(|file| file.rsplit('/').next().is_some_and(|name| name.contains("nvidia-ml"))).map(PathBuf::from)
}
