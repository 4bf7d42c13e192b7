//! The recent past of each GPU, and `/usage`: averages and maxima over 1, 5 and 15 minutes, owners, time of last activity. Pure; time is an argument.
//! What was not measured is `null`: whoever decides on it must be able to tell unknown from idle.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::attribution::{GpuUse, Share, Snapshot};
use crate::notices::Notice;
use crate::pods::Owner;

/// Readings are gathered in buckets this long.
const BUCKET: Duration = Duration::from_secs(5);
/// The windows, in seconds, under the names they have in the JSON.
const WINDOWS: [(&str, u64); 3] = [("1m", 60), ("5m", 300), ("15m", 900)];
/// Buckets kept: the longest window.
const BUCKETS: usize = 180;
/// Use below this share of the GPU's time, in percent, is not activity: monitors and idle contexts leave such traces.
const ACTIVE_PERCENT: f64 = 0.5;

/// The recent past of every GPU.
#[derive(Debug, Clone, Default)]
pub struct History {
    gpus: BTreeMap<Arc<str>, Past>,
}

#[derive(Debug, Clone, Default)]
struct Past {
    buckets: VecDeque<Bucket>,
    last_activity: Option<f64>,
    since: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    number: u64,
    sum: f64,
    count: u32,
    max: f64,
}

/// One window of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Window {
    /// Mean of the readings, percent.
    pub avg: f64,
    /// Largest reading, percent.
    pub max: f64,
    /// Readings in the window; few of them mean a young agent or gaps.
    pub samples: u32,
}

impl History {
    /// Adds a snapshot taken at `now` (monotonic) and `unix` (seconds since 1970). GPUs that are gone for longer than the longest window are forgotten.
    pub fn record(&mut self, snapshot: &Snapshot, now: Duration, unix: f64) {
        let number = now.as_secs() / BUCKET.as_secs();
        for gpu in &snapshot.gpus {
            let past = self
                .gpus
                .entry(Arc::clone(&gpu.gpu.identity.uuid))
                .or_insert_with(|| Past { since: unix, ..Past::default() });
            if let Some(percent) = gpu.gpu.utilization {
                past.add(number, percent, unix);
            }
        }
        let oldest = number.saturating_sub(BUCKETS as u64);
        for past in self.gpus.values_mut() {
            while past.buckets.front().is_some_and(|bucket| bucket.number <= oldest && oldest > 0) {
                past.buckets.pop_front();
            }
        }
        let here = |uuid: &Arc<str>| snapshot.gpus.iter().any(|gpu| gpu.gpu.identity.uuid == *uuid);
        self.gpus.retain(|uuid, past| !past.buckets.is_empty() || here(uuid));
    }

    fn window(&self, uuid: &str, now: Duration, seconds: u64) -> Option<Window> {
        let newest = now.as_secs() / BUCKET.as_secs();
        let oldest = (newest + 1).saturating_sub(seconds / BUCKET.as_secs());
        let past = self.gpus.get(uuid)?;
        let (mut sum, mut samples, mut max) = (0.0, 0_u32, 0.0_f64);
        for bucket in past.buckets.iter().filter(|bucket| bucket.number >= oldest) {
            sum += bucket.sum;
            samples += bucket.count;
            max = max.max(bucket.max);
        }
        (samples > 0).then(|| Window { avg: round(sum / f64::from(samples)), max: round(max), samples })
    }
}

impl Past {
    fn add(&mut self, number: u64, percent: f64, unix: f64) {
        if percent >= ACTIVE_PERCENT {
            self.last_activity = Some(unix);
        }
        match self.buckets.back_mut() {
            Some(bucket) if bucket.number == number => {
                bucket.sum += percent;
                bucket.count += 1;
                bucket.max = bucket.max.max(percent);
            }
            _ => self.buckets.push_back(Bucket { number, sum: percent, count: 1, max: percent }),
        }
    }
}

/// The answer of `/usage`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Usage {
    /// The node.
    pub node: Arc<str>,
    /// Time of the reading, seconds since 1970.
    pub time: f64,
    /// Seconds between readings.
    pub sample_interval_seconds: f64,
    /// Why there are no GPUs; `null` when NVML answers.
    pub problem: Option<Arc<str>>,
    /// Age of the map from devices to containers, seconds; `null` when there never was one.
    pub pods_age_seconds: Option<f64>,
    /// The machine as the node's `spec.providerID` names it; `null` off-cloud, and until its notices have been read once.
    pub provider_id: Option<Arc<str>>,
    /// How the machine is paid for, as the cloud says (`spot`, `on-demand`, …); `null` off-cloud.
    pub market: Option<Arc<str>>,
    /// What the cloud announced about the machine, most urgent first: `{kind, action, at, deadline}`.
    pub notices: Vec<Notice>,
    /// In the driver's order.
    pub gpus: Vec<GpuUsage>,
}

/// One GPU of `/usage`. Percentages are 0 to 100.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuUsage {
    /// The driver's index.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: Arc<str>,
    /// Product name.
    pub model: Option<Arc<str>>,
    /// Whether it answers.
    pub up: bool,
    /// Utilization now; `null` when not measured (lost, or MIG).
    pub utilization: Option<f64>,
    /// Utilization over windows; `null` when there was no reading in one.
    pub windows: BTreeMap<&'static str, Option<Window>>,
    /// Installed memory, bytes.
    pub memory_total_bytes: Option<u64>,
    /// Used memory, bytes.
    pub memory_used_bytes: Option<u64>,
    /// When the GPU last did something, seconds since 1970; `null` when it has not since `observed_since`, or is not measured.
    pub last_activity: Option<f64>,
    /// When the agent first saw the GPU, seconds since 1970.
    pub observed_since: f64,
    /// Percent that no container is known to have used.
    pub unattributed_utilization: Option<f64>,
    /// MIG instances; `null` when MIG is off.
    pub mig_instances: Option<usize>,
    /// Containers that hold or use the GPU or a part of it.
    pub owners: Vec<OwnerUsage>,
}

/// One container of a GPU of `/usage`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OwnerUsage {
    /// Its `namespace`, `pod` and `container`.
    #[serde(flatten)]
    pub name: Arc<Owner>,
    /// Whether the kubelet gave it the device.
    pub held: bool,
    /// The MIG instance it has.
    pub mig_uuid: Option<Arc<str>>,
    /// Profile of that instance.
    pub mig_profile: Option<Arc<str>>,
    /// Percent of the device's time.
    pub utilization: Option<f64>,
    /// Bytes of the device's memory.
    pub memory_used_bytes: Option<u64>,
}

/// The GPUs of `/usage` at `now` (monotonic).
#[must_use]
pub fn gpus(snapshot: &Snapshot, history: &History, now: Duration) -> Vec<GpuUsage> {
    snapshot.gpus.iter().enumerate().map(|(position, gpu)| gpu_usage(snapshot, position, gpu, history, now)).collect()
}

fn gpu_usage(snapshot: &Snapshot, position: usize, gpu: &GpuUse, history: &History, now: Duration) -> GpuUsage {
    let identity = &gpu.gpu.identity;
    let past = history.gpus.get(&identity.uuid);
    let shares = snapshot.shares.iter().filter(|share| share.gpu == position);
    GpuUsage {
        index: identity.index,
        uuid: Arc::clone(&identity.uuid),
        model: identity.model.clone(),
        up: gpu.gpu.up,
        utilization: gpu.gpu.utilization.map(round),
        windows: WINDOWS.iter().map(|&(name, seconds)| (name, history.window(&identity.uuid, now, seconds))).collect(),
        memory_total_bytes: gpu.gpu.memory.map(|memory| memory.total),
        memory_used_bytes: gpu.gpu.memory.map(|memory| memory.used),
        last_activity: past.and_then(|past| past.last_activity),
        observed_since: past.map_or(0.0, |past| past.since),
        unattributed_utilization: gpu.unattributed_utilization.map(round),
        mig_instances: gpu.gpu.mig.as_ref().map(Vec::len),
        owners: shares.map(|share| owner_usage(gpu, share)).collect(),
    }
}

fn owner_usage(gpu: &GpuUse, share: &Share) -> OwnerUsage {
    let instance = share.instance.and_then(|index| gpu.gpu.mig.as_ref()?.get(index));
    OwnerUsage {
        name: Arc::clone(&share.owner),
        held: share.held,
        mig_uuid: instance.map(|instance| Arc::clone(&instance.uuid)),
        mig_profile: instance.map(|instance| Arc::clone(&instance.profile)),
        utilization: share.utilization.map(round),
        memory_used_bytes: share.memory_used,
    }
}

/// Hundredths of a percent are more than the driver measures.
fn round(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, Identity};

    fn snapshot(utilization: Option<f64>) -> Snapshot {
        let identity = Arc::new(Identity { uuid: "GPU-1".into(), ..Identity::default() });
        let gpu = Gpu { identity, up: true, utilization, ..Gpu::default() };
        Snapshot { gpus: vec![GpuUse { gpu, ..GpuUse::default() }], ..Snapshot::default() }
    }

    fn usage(history: &History, second: u64) -> String {
        let usage = &gpus(&snapshot(None), history, Duration::from_secs(second))[0];
        let windows: Vec<String> = WINDOWS
            .iter()
            .map(|(name, _)| {
                usage.windows[name].map_or("-".into(), |w| format!("{:.1}/{:.0}/{}", w.avg, w.max, w.samples))
            })
            .collect();
        format!("{} active {:?}", windows.join(" "), usage.last_activity)
    }

    #[test]
    fn windows_slide() {
        let mut history = History::default();
        let record = |history: &mut History, from: u64, to: u64, percent| {
            for second in from..to {
                history.record(&snapshot(percent), Duration::from_secs(second), 1000.0 + second as f64);
            }
        };
        record(&mut history, 0, 60, Some(80.0));
        assert_eq!(usage(&history, 59), "80.0/80/60 80.0/80/60 80.0/80/60 active Some(1059.0)");
        record(&mut history, 60, 120, Some(0.0));
        assert_eq!(usage(&history, 119), "0.0/0/60 40.0/80/120 40.0/80/120 active Some(1059.0)");
        record(&mut history, 120, 960, Some(20.0));
        assert_eq!(usage(&history, 959), "20.0/20/60 20.0/20/300 18.7/20/900 active Some(1959.0)");
        // Not measured: windows run dry and the last activity stays what it was.
        record(&mut history, 960, 1500, None);
        assert_eq!(usage(&history, 1499), "- - 20.0/20/360 active Some(1959.0)");
        record(&mut history, 1500, 2000, None);
        assert_eq!(usage(&history, 1999), "- - - active Some(1959.0)");
    }

    #[test]
    fn a_wall_clock_that_jumps_moves_no_window() {
        let mut history = History::default();
        for second in 0..60_u64 {
            let hour = if second < 30 { 0.0 } else { -3600.0 };
            history.record(&snapshot(Some(80.0)), Duration::from_secs(second), 10_000.0 + hour + second as f64);
        }
        assert_eq!(usage(&history, 59), "80.0/80/60 80.0/80/60 80.0/80/60 active Some(6459.0)");
    }
}
