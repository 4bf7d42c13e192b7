//! The profile: which GPUs the fake has, what runs on them and what is wrong with them.
//! Read from YAML (JSON is YAML too), so that any program can write one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::curve::Curve;
use crate::fault::Fault;
use crate::model::ModelName;

/// A whole machine as the fake shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Model of every GPU that does not name its own.
    pub model: ModelName,
    /// Number of GPUs.
    #[serde(default = "one")]
    pub count: u32,
    /// Driver version.
    #[serde(default = "driver")]
    pub driver: String,
    /// CUDA version of the driver as NVML encodes it: 1000 × major + 10 × minor.
    #[serde(default = "cuda")]
    pub cuda: i32,
    /// Unix second that curves count from. Without it they count from the Unix epoch, so that periodic shapes agree in every process;
    /// set it for a ramp or a trace that should start now.
    #[serde(default)]
    pub epoch_s: f64,
    /// GPUs that differ from an idle one, by index.
    #[serde(default)]
    pub gpus: BTreeMap<u32, Gpu>,
    /// Seconds that the samplers' clock is off: below 0 it was set back.
    #[serde(default)]
    pub sampler_clock_s: f64,
    /// Whether the machine computes confidentially, and lets developer tools in; absent where it cannot.
    #[serde(default)]
    pub confidential: Option<(bool, bool)>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// How long calls take, in microseconds, by NVML function. The calling thread is busy for as long, as with a driver's; what the fake itself
    /// needs is part of it. Calls that are not named take what the fake needs.
    #[serde(default)]
    pub costs_us: Costs,
}

/// Microseconds by NVML function.
pub type Costs = BTreeMap<String, f64>;

/// What calls may cost on an H200, in part assumed: the file says what is known.
pub fn h200_costs() -> Result<Costs, String> {
    serde_saphyr::from_str(include_str!("../profiles/H200-costs.yaml")).map_err(|error| error.to_string())
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gpu {
    /// Model, when it differs from the machine's.
    pub model: Option<ModelName>,
    /// UUID; made from the index when absent ([`crate::machine::gpu_uuid`]).
    pub uuid: Option<String>,
    /// The n of `/dev/nvidia<n>`, where it is not the index.
    pub minor: Option<u32>,
    /// MIG devices. `Some`, even when empty, means that MIG mode is on.
    pub mig: Option<Vec<Mig>>,
    /// What runs here.
    pub processes: Vec<Process>,
    /// A fixed answer for the energy counter in mJ, for tests that compare whole outputs.
    pub energy_mj: Option<u64>,
    /// Xid errors: (seconds after `epoch_s`, code).
    pub xids: Vec<(f64, u64)>,
    /// Uncorrectable and correctable ECC errors since the driver was loaded.
    pub ecc_errors: EccErrors,
    /// Wear and damage.
    pub health: Health,
    /// Bits of `nvmlClocksEventReason*` on top of idle or none. The driver's counters of the reasons grow while they are set.
    pub clocks_event_reasons: u64,
    /// The per-process sampler looks at each n-th sample period only; at each when 0 or 1.
    pub process_samples_every: u64,
    /// Whether GPM answers, where it should differ from the model.
    pub gpm: Option<bool>,
    /// Which counters of its NVLinks count.
    pub nvlink: NvlinkCounters,
    /// `NVML_GPU_VIRTUALIZATION_MODE_*`.
    pub virtualization: u32,
    /// Whether vGPU software is licensed; absent where nothing wants a license.
    pub vgpu_license: Option<bool>,
}

/// Which counters of NVLink count, by generation and driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NvlinkCounters {
    /// KiB, of each link and of all.
    #[default]
    All,
    /// KiB of each link; those of all links stand at 0, as in NVIDIA's mock.
    Links,
    /// Bytes of each link, as NVLink 5 counts them, and nothing else.
    LinkBytes,
}

/// Wear and damage, as the driver tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Rows remapped because of correctable and of uncorrectable errors (Ampere and newer).
    pub remapped_rows: (u32, u32),
    /// A row waits for a reset.
    pub remap_pending: bool,
    /// A row could not be remapped.
    pub remap_failed: bool,
    /// Pages retired because of single-bit and of double-bit errors (before Ampere).
    pub retired_pages: (u32, u32),
    /// A page waits for a reboot.
    pub retired_pending: bool,
    /// `NVML_GPU_RECOVERY_ACTION_*`.
    pub recovery_action: u32,
    /// `NVML_GPU_FABRIC_STATE_*`; no fabric when absent.
    pub fabric_state: Option<u8>,
    /// What a finished registration on the fabric ended with: an NVML return code.
    pub fabric_status: u32,
    /// PCIe packets sent again.
    pub pcie_replays: u32,
}

/// ECC error counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EccErrors {
    /// Corrected.
    pub corrected: u64,
    /// Not corrected.
    pub uncorrected: u64,
}

/// One MIG device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mig {
    /// `1g.10gb`, `3g.40gb`…: compute slices and memory.
    pub profile: String,
    /// GPU instance id.
    pub gpu_instance: u32,
    /// Compute instance id.
    #[serde(default)]
    pub compute_instance: u32,
    /// Index under the parent; the place in the list when absent. Indexes left out answer NOT_FOUND.
    #[serde(default)]
    pub index: Option<u32>,
    /// UUID; made from the ids when absent ([`crate::machine::mig_uuid`]).
    #[serde(default)]
    pub uuid: Option<String>,
    /// First memory slice; told only to the privileged, so NO_PERMISSION when absent.
    #[serde(default)]
    pub placement: Option<u32>,
}

impl Mig {
    /// An instance with compute instance 0, at the next free index.
    pub fn new(profile: &str, gpu_instance: u32) -> Self {
        let profile = profile.to_owned();
        Self { profile, gpu_instance, compute_instance: 0, index: None, uuid: None, placement: None }
    }
}

/// How a process uses the GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// In the compute list.
    #[default]
    Compute,
    /// In the graphics list.
    Graphics,
    /// An MPS client: in the compute list and in the MPS list, as `nvidia-smi` shows it (`M+C`).
    Mps,
    /// MPS's server: in the compute list. What clients do that the sampler does not see (`sampled: false`) is booked on it, as some drivers do;
    /// its own load counts for nothing.
    MpsServer,
}

/// One process on one GPU. A process on two GPUs is listed under both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Host pid.
    pub pid: u32,
    /// Which lists show it.
    #[serde(default)]
    pub kind: Kind,
    /// Frame buffer it holds, in MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// SM time in percent of the GPU, or of its MIG instance.
    #[serde(default)]
    pub sm: Curve,
    /// Memory bandwidth in percent; 0.4 of `sm` when absent.
    #[serde(default)]
    pub memory: Option<Curve>,
    /// Encoder in percent.
    #[serde(default)]
    pub encoder: Curve,
    /// Decoder in percent.
    #[serde(default)]
    pub decoder: Curve,
    /// GPU instance it runs in, where MIG is on.
    #[serde(default)]
    pub gpu_instance: Option<u32>,
    /// Compute instance it runs in, where MIG is on; 0 when absent.
    #[serde(default)]
    pub compute_instance: Option<u32>,
    /// What `nvmlSystemGetProcessName` says; NOT_FOUND when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether the per-process sampler sees it. Some drivers report no samples for MPS clients.
    #[serde(default = "yes")]
    pub sampled: bool,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn driver() -> String {
    "580.95.05".to_owned()
}

fn cuda() -> i32 {
    13000
}

impl Profile {
    /// `count` idle GPUs of one model.
    pub fn idle(model: ModelName, count: u32) -> Self {
        Self {
            model,
            count,
            driver: driver(),
            cuda: cuda(),
            epoch_s: 0.0,
            gpus: BTreeMap::new(),
            sampler_clock_s: 0.0,
            confidential: None,
            faults: Vec::new(),
            costs_us: Costs::new(),
        }
    }

    /// Reads YAML.
    pub fn parse(text: &str) -> Result<Self, String> {
        let profile: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if profile.count > crate::machine::MAX_GPUS {
            return Err(format!("count: {} GPUs, at most {}", profile.count, crate::machine::MAX_GPUS));
        }
        Ok(profile)
    }

    /// The profile that `FAKE_NVML_PROFILE` names when it is not a file: `H100` or `8xH100`.
    pub fn named(name: &str) -> Option<Self> {
        let (count, model) = name.split_once('x').unwrap_or(("1", name));
        Some(Self::idle(ModelName::parse(model)?, count.parse().ok()?))
    }

    /// GPU `index`, to be changed; made idle first when it was not mentioned.
    pub fn gpu(&mut self, index: u32) -> &mut Gpu {
        self.gpus.entry(index).or_default()
    }
}

impl Process {
    /// A compute process with a constant load.
    pub fn new(pid: u32, sm: f64, memory_mib: u64) -> Self {
        Self {
            pid,
            kind: Kind::Compute,
            memory_mib,
            sm: Curve::Constant(sm),
            memory: None,
            encoder: Curve::default(),
            decoder: Curve::default(),
            gpu_instance: None,
            compute_instance: None,
            name: None,
            sampled: true,
        }
    }
}
