//! Every metric that the agent exports, one row each: name, type, unit, help and where the value comes from. Pure.
//! The page, the README's table and the tests all come from these rows.

pub mod choice;

mod dcgm;
mod device;
mod gpm;
mod health;
mod node;
mod own;
mod pod;

use std::borrow::Cow;

use crate::attribution::totals::{GpuTotal, Total};
use crate::attribution::{GpuUse, InstanceUse, Share};
use crate::config::DcgmNames;
use crate::exposition::Dropped;
use crate::gpu::{Memory, MigInstance};
use crate::jobs::Jobs;
use crate::live::Reloads;
use crate::notices::Seen;

/// Counter or gauge, as Prometheus means them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, except when its source restarts.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    /// The word on the `# TYPE` line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

/// What a family has one series for, with the getter. A getter's `None` means: not read, no series.
#[derive(Clone, Copy)]
pub enum Get {
    /// One per GPU.
    Gpu(fn(&GpuRow<'_>) -> Option<f64>),
    /// One per GPU and value of one more label.
    GpuBy {
        /// That label.
        label: &'static str,
        /// Its values, each with the metric's.
        get: fn(&GpuRow<'_>) -> By,
    },
    /// One per MIG instance.
    Instance(fn(&MigInstance) -> Option<f64>),
    /// One per MIG instance, of what belongs to nobody.
    InstanceRest(fn(&InstanceUse) -> Option<f64>),
    /// One per container and device.
    Container(fn(&ShareRow<'_>) -> Option<f64>),
    /// Under DCGM's labels: one per GPU, with the pod of a GPU that one container holds, and one per held MIG instance.
    Dcgm {
        /// The GPU's value.
        gpu: fn(&GpuRow<'_>) -> Option<f64>,
        /// A MIG instance's value.
        instance: fn(&MigInstance) -> Option<f64>,
    },
    /// Under DCGM's labels, out of the memory of a GPU or MIG instance: as [`Get::Dcgm`], and repeated for each container that shares a GPU, since
    /// queries divide each `FB_USED` by the series with the same labels.
    DcgmMemory(fn(Memory) -> u64),
    /// Under DCGM's labels: one per container (or instance), and one without a pod for the rest, so that a sum over the GPU is the GPU's value.
    DcgmShared {
        /// A container's part.
        share: fn(&ShareRow<'_>) -> Option<f64>,
        /// What no container has.
        rest: fn(&GpuRow<'_>) -> Option<f64>,
    },
    /// Under DCGM's labels and a GPU's further ones: any number per GPU.
    DcgmBy(fn(&GpuRow<'_>) -> Vec<Sample>),
    /// The agent's own; each value with its label pairs.
    Own(fn(&Own<'_>) -> Vec<Sample>),
}

/// Values of one more label, each with the metric's.
pub type By = Vec<(Cow<'static, str>, f64)>;

/// A value of the agent itself, with its labels.
pub type Sample = (Vec<(&'static str, String)>, f64);

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Family {
    /// As on the page.
    pub name: &'static str,
    /// The name that DCGM 4.6 gave to it, where it differs.
    pub renamed: Option<&'static str>,
    /// Counter or gauge.
    pub kind: Kind,
    /// Unit of the value, for people.
    pub unit: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Where the value comes from.
    pub get: Get,
}

impl Family {
    const fn new(name: &'static str, kind: Kind, unit: &'static str, help: &'static str, get: Get) -> Self {
        Self { name, renamed: None, kind, unit, help, get }
    }

    /// The name under a choice of DCGM names.
    #[must_use]
    pub fn name_as(&self, names: DcgmNames) -> &'static str {
        self.renamed.filter(|_| names == DcgmNames::V46).unwrap_or(self.name)
    }

    /// The labels of its series, for people.
    #[must_use]
    pub fn labels(&self) -> &'static str {
        match self.get {
            Get::Gpu(_) => "gpu uuid model node",
            Get::GpuBy { label: "reason", .. } => "gpu uuid model node reason",
            Get::GpuBy { label: "xid", .. } => "gpu uuid model node xid",
            Get::GpuBy { .. } => "gpu uuid model node state",
            Get::Instance(_) | Get::InstanceRest(_) => "gpu uuid mig_profile gpu_instance node",
            Get::Container(_) => "namespace pod container gpu uuid mig_profile node",
            Get::Dcgm { .. } | Get::DcgmMemory(_) | Get::DcgmShared { .. } | Get::DcgmBy(_) => {
                "gpu UUID pci_bus_id device modelName Hostname hostname DCGM_FI_DRIVER_VERSION GPU_I_PROFILE GPU_I_ID namespace pod container"
            }
            Get::Own(_) => "its own",
        }
    }
}

/// Bytes in DCGM's unit.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    (bytes as f64 / 1_048_576.0).round()
}

/// A count as a value.
fn count(count: u64) -> f64 {
    count as f64
}

/// 1 or 0.
fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// One GPU, as getters see it.
pub struct GpuRow<'a> {
    /// The GPU and its rest.
    pub gpu: &'a GpuUse,
    /// Its counters.
    pub total: GpuTotal,
    /// Time of the reading, seconds since 1970.
    pub time: f64,
}

/// One share, as getters see it.
pub struct ShareRow<'a> {
    /// The share.
    pub share: &'a Share,
    /// The GPU.
    pub gpu: &'a GpuUse,
    /// The MIG instance.
    pub instance: Option<&'a MigInstance>,
    /// Its counters.
    pub total: Total,
}

/// The agent about itself, as getters see it.
#[derive(Debug, Clone, Default)]
pub struct Own<'a> {
    /// The node's name.
    pub node: &'a str,
    /// What the cloud says about the machine.
    pub seen: Option<&'a Seen>,
    /// What a batch system says of its jobs.
    pub jobs: Option<&'a Jobs>,
    /// Version of the agent.
    pub version: &'a str,
    /// Version of the driver.
    pub driver_version: Option<&'a str>,
    /// Why NVML gives nothing, in a word; `None` when it does.
    pub nvml_absence: Option<&'a str>,
    /// Failed NVML calls: call, cause, count.
    pub nvml_failures: Vec<(&'a str, &'a str, u64)>,
    /// NVML calls made: call, count, seconds in all.
    pub nvml_calls: Vec<(&'a str, u64, f64)>,
    /// Ticks since the start.
    pub ticks: u64,
    /// How long the last tick took, seconds.
    pub tick_seconds: f64,
    /// Time of the last good reading, seconds since 1970.
    pub last_reading: Option<f64>,
    /// Whether the kubelet's last answer was good; `None` when there is no kubelet.
    pub kubelet_up: Option<bool>,
    /// Whether the kubelet's Pods API answered last; `None` where there is none.
    pub pods_api_up: Option<bool>,
    /// Time of the kubelet's last good answer, seconds since 1970.
    pub kubelet_last_success: Option<f64>,
    /// Age of the map that is in use, seconds.
    pub pods_age: Option<f64>,
    /// Failed calls to the kubelet since the start.
    pub kubelet_failures: u64,
    /// Containers that hold a device.
    pub containers: usize,
    /// Device ids in forms that we do not know.
    pub unknown_ids: usize,
    /// Busy processes that could not be named.
    pub unknown_processes: usize,
    /// Series on the page before this one, and what was dropped from it.
    pub series: usize,
    /// Series dropped since the start.
    pub series_dropped: Dropped,
    /// Files of settings: how their last readings ended.
    pub reloads: Reloads,
}

/// Every row but DCGM's, in the order of the page: what says that a page is full must not be what is left out of it.
pub fn native() -> impl Iterator<Item = &'static Family> {
    own::FAMILIES
        .iter()
        .chain(node::FAMILIES)
        .chain(pod::FAMILIES)
        .chain(device::FAMILIES)
        .chain(health::FAMILIES)
        .chain(gpm::FAMILIES)
}

/// Every row that is shown unasked.
pub fn table() -> impl Iterator<Item = &'static Family> {
    native().chain(dcgm::FAMILIES)
}

/// Rows that a counters CSV may ask for.
pub fn further() -> impl Iterator<Item = &'static Family> {
    dcgm::FURTHER.iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_follow_prometheus_practice() {
        let mut names = BTreeSet::new();
        for family in table().chain(further()) {
            let Family { name, help, .. } = *family;
            assert!(names.insert(name), "{name} twice");
            assert!(help.ends_with('.') && help.len() >= 15, "{name}: {help}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
            let foreign = name.starts_with("DCGM_");
            assert!(
                foreign || name.ends_with("_total") == (family.kind == Kind::Counter),
                "{name}: _total is for counters"
            );
            assert!(family.renamed.is_none() || foreign, "{name}");
        }
    }
}
