//! What a GPU says about itself, as plain values whose every field may be absent, and the one trait behind which the driver stands.
//! Nothing here knows NVML; `gpu/nvml.rs` fills these in and `attribution` reads them.

pub mod nvml;
pub mod thread;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A source of readings: one implementation speaks to NVML, on its own OS thread.
pub trait Gpus {
    /// Reads every GPU once. `now` is monotonic time since the program's start; the driver's own clock is never compared with it.
    /// One GPU that fails is a GPU with `up: false`; an error means that the whole session is gone and has to be opened again.
    fn read(&mut self, now: Duration) -> Result<Reading, Absence>;
}

/// Everything the driver said in one pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Version of the kernel driver, such as `580.95.05`.
    pub driver_version: Option<String>,
    /// In the driver's order. Indices may change at boot, uuids do not.
    pub gpus: Vec<Gpu>,
}

/// NVML calls since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallLog {
    /// How often each was made and how long it took in all, in order of name.
    pub made: Vec<(&'static str, Made)>,
    /// Those that failed, by call and by cause. A call that a device does not support counts once for that device.
    pub failed: BTreeMap<(&'static str, &'static str), u64>,
}

/// One kind of call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// How often.
    pub count: u64,
    /// Time in all.
    pub time: Duration,
}

impl CallLog {
    /// Counts a call.
    pub fn made(&mut self, call: &'static str, took: Duration) {
        // Hundreds at every tick: the very same words come back, and need not be read.
        let known = self.made.iter().position(|(name, _)| std::ptr::eq(*name, call));
        let at = known.unwrap_or_else(|| {
            let place = self.made.binary_search_by_key(&call, |(name, _)| name);
            place.unwrap_or_else(|place| {
                self.made.insert(place, (call, Made::default()));
                place
            })
        });
        if let Some((_, made)) = self.made.get_mut(at) {
            (made.count, made.time) = (made.count + 1, made.time + took);
        }
    }
}

/// Who a GPU is: what does not change while it stays in the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The driver's index at this boot.
    pub index: u32,
    /// `GPU-…`; empty only for a GPU that was lost before it could say its name.
    pub uuid: Arc<str>,
    /// Product name, such as `NVIDIA H100 80GB HBM3`.
    pub model: Option<Arc<str>>,
    /// The n of `/dev/nvidia<n>`.
    pub minor: Option<u32>,
    /// Such as `00000000:17:00.0`.
    pub pci_bus_id: Option<Arc<str>>,
}

/// One GPU at one moment. Absent means not read: it is never shown as 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gpu {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// False when the GPU gave no answer; the other fields are then absent.
    pub up: bool,
    /// True when the driver says that this GPU is gone, as opposed to a driver that says nothing.
    pub lost: bool,
    /// True while a call to this GPU has not come back.
    pub hangs: bool,
    /// How long ago it answered last: 0 while it is up, absent when it never did.
    pub sample_age: Option<Duration>,
    /// Share of time in which a kernel ran, percent, averaged over the driver's samples since the last reading.
    pub utilization: Option<f64>,
    /// The highest of those samples, percent.
    pub utilization_max: Option<f64>,
    /// Share of time in which memory was read or written, percent, averaged likewise.
    pub memory_copy_utilization: Option<f64>,
    /// Use of the video encoder, percent.
    pub encoder_utilization: Option<f64>,
    /// Use of the video decoder, percent.
    pub decoder_utilization: Option<f64>,
    /// Frame buffer.
    pub memory: Option<Memory>,
    /// Board power as the driver shows it first, watts: an average over a second on most GPUs since Ampere, else of the moment.
    pub power_watts: Option<f64>,
    /// Board power averaged over the driver's window, watts.
    pub power_average_watts: Option<f64>,
    /// Board power of the moment, watts.
    pub power_instant_watts: Option<f64>,
    /// Limit that the board keeps to, watts.
    pub power_limit_watts: Option<f64>,
    /// Joules since the driver was loaded; starts again when it is reloaded.
    pub energy_joules: Option<f64>,
    /// Die temperature, degrees Celsius.
    pub temperature_celsius: Option<f64>,
    /// Temperature of the memory, degrees Celsius.
    pub memory_temperature_celsius: Option<f64>,
    /// SM clock, hertz.
    pub sm_clock_hertz: Option<f64>,
    /// Memory clock, hertz.
    pub memory_clock_hertz: Option<f64>,
    /// Clock of the video engines, hertz.
    pub video_clock_hertz: Option<f64>,
    /// For how long clocks were held down, by reason.
    pub throttled: Vec<Throttled>,
    /// Bytes over its links.
    pub traffic: Traffic,
    /// Wear and damage.
    pub health: Health,
    /// Xid errors since the agent started, by code.
    pub xids: Vec<Xid>,
    /// Reasons that held clocks down, by their bit in `nvmlClocksEventReason*`: idle, applications' setting, power cap, hardware slowdown, sync boost,
    /// software's and hardware's thermal slowdown, power brake, display.
    pub clock_events: Option<[ClockEvent; 9]>,
    /// How it is set up for virtual and confidential machines.
    pub modes: Modes,
    /// Counters of the chip's units between the last two readings; absent before Hopper.
    pub gpm: Option<Gpm>,
    /// Processes with a context on the GPU; absent when the lists could not be read.
    pub processes: Option<Vec<Process>>,
    /// Measured use per process; absent when it could not be read, empty when nothing ran.
    pub process_utilization: Option<Vec<ProcessUtilization>>,
    /// The MIG instances; absent when MIG is off.
    pub mig: Option<Vec<MigInstance>>,
}

impl Gpu {
    /// Why it is not up, in a word: `lost` (the driver says so), `hangs` (a call has not come back) or `silent`.
    #[must_use]
    pub fn down(&self) -> Option<&'static str> {
        match self {
            Self { up: true, .. } => None,
            Self { lost: true, .. } => Some("lost"),
            Self { hangs: true, .. } => Some("hangs"),
            _ => Some("silent"),
        }
    }
}

/// Seconds for which one reason held clocks down: since the driver was loaded where it counts them, else since the agent started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttled {
    /// NVML's name of the reason, such as `sw_power_cap` or `hw_thermal_slowdown`.
    pub reason: &'static str,
    /// Seconds so far.
    pub seconds: f64,
}

/// Counters of bytes since the driver was loaded, as the GPU sees them: sent is away from it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// Over PCIe.
    pub pcie_sent_bytes: Option<f64>,
    /// Over PCIe.
    pub pcie_received_bytes: Option<f64>,
    /// Packets that PCIe had to send again.
    pub pcie_replays: Option<u64>,
    /// Over all NVLinks, payload only.
    pub nvlink_sent_bytes: Option<f64>,
    /// Over all NVLinks, payload only.
    pub nvlink_received_bytes: Option<f64>,
    /// Over all NVLinks and both ways, between the last two readings.
    pub nvlink_bytes_per_second: Option<f64>,
}

/// What tells that a GPU is wearing out, or wants to be reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Memory errors since the driver was loaded.
    pub ecc_volatile: EccErrors,
    /// Memory errors in the GPU's life.
    pub ecc_aggregate: EccErrors,
    /// Rows remapped because of correctable errors (Ampere and newer).
    pub remapped_correctable: Option<u64>,
    /// Rows remapped because of uncorrectable errors (Ampere and newer).
    pub remapped_uncorrectable: Option<u64>,
    /// A row waits for a reset to be remapped.
    pub remap_pending: Option<bool>,
    /// A row could not be remapped: the GPU has to be replaced.
    pub remap_failed: Option<bool>,
    /// Pages retired because of repeated single-bit errors (before Ampere).
    pub retired_single_bit: Option<u64>,
    /// Pages retired because of a double-bit error (before Ampere).
    pub retired_double_bit: Option<u64>,
    /// A page waits for a reboot to be retired.
    pub retired_pending: Option<bool>,
    /// What the driver wants done, such as `none`, `gpu_reset` or `node_reboot`.
    pub recovery_action: Option<&'static str>,
    /// State of the NVLink fabric, such as `completed`; absent on a machine without one.
    pub fabric_state: Option<&'static str>,
}

/// Errors that ECC noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EccErrors {
    /// Put right (single bit).
    pub corrected: Option<u64>,
    /// Not put right (double bit).
    pub uncorrected: Option<u64>,
}

/// How far back events are counted that dcgm-exporter counts in a window: its default.
pub const EVENT_WINDOW: Duration = Duration::from_secs(300);

/// How often one reason held clocks down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockEvent {
    /// In how many readings of the last [`EVENT_WINDOW`].
    pub recent: u32,
    /// How often it began since the agent started.
    pub begun: u64,
}

/// What changes with the machine's set-up only. NVML's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// `NVML_GPU_VIRTUALIZATION_MODE_*`: 0 bare metal, 1 passthrough, 2 a virtual GPU, 3 and 4 host of virtual GPUs.
    pub virtualization: Option<u32>,
    /// Confidential computing: 0 off, 1 on, 2 on with developer tools let in.
    pub confidential: Option<u32>,
    /// Whether vGPU software is licensed here; `Some(None)` where nothing here wants a license.
    pub license: Option<Option<bool>>,
}

/// One kind of Xid error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Xid {
    /// NVIDIA's number.
    pub code: u64,
    /// How often it was seen since the agent started.
    pub count: u64,
    /// When it was seen last, seconds since 1970.
    pub last: f64,
    /// How often in the last [`EVENT_WINDOW`].
    pub recent: u32,
}

/// GPU Performance Monitoring (Hopper and newer): what the units of a GPU, or of one MIG instance, did between two readings. Percent, 0 to 100, of
/// that GPU or instance; rates in bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gpm {
    /// Time in which any context was at work.
    pub graphics: Option<f64>,
    /// Time in which an SM had at least one warp, averaged over the SMs.
    pub sm_active: Option<f64>,
    /// Warps in flight, of those that fit.
    pub sm_occupancy: Option<f64>,
    /// Time in which the tensor cores worked.
    pub tensor: Option<f64>,
    /// Bandwidth of the memory.
    pub dram: Option<f64>,
    /// Time in which the FP64 pipes worked.
    pub fp64: Option<f64>,
    /// Time in which the FP32 pipes worked.
    pub fp32: Option<f64>,
    /// Time in which the FP16 pipes worked.
    pub fp16: Option<f64>,
    /// Over PCIe, away from the GPU.
    pub pcie_sent: Option<f64>,
    /// Over PCIe, to the GPU.
    pub pcie_received: Option<f64>,
    /// Over all NVLinks, away from the GPU.
    pub nvlink_sent: Option<f64>,
    /// Over all NVLinks, to the GPU.
    pub nvlink_received: Option<f64>,
}

/// Bytes of frame buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Installed.
    pub total: u64,
    /// Allocated by programs, without what the driver keeps for itself.
    pub used: u64,
    /// Not allocated.
    pub free: u64,
    /// Kept by the driver and firmware.
    pub reserved: u64,
}

/// A process with a context on a GPU: compute, graphics or MPS client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Process {
    /// Host process id.
    pub pid: u32,
    /// Bytes of frame buffer held.
    pub memory: Option<u64>,
    /// The MIG GPU instance it runs in.
    pub gpu_instance: Option<u32>,
    /// The MIG compute instance it runs in.
    pub compute_instance: Option<u32>,
    /// Whether it computes through an MPS server.
    pub mps: bool,
}

/// What one process used, percent of the GPU's time, 0 to 100.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUtilization {
    /// Host process id.
    pub pid: u32,
    /// Time on the SMs.
    pub sm: f64,
}

/// One MIG instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MigInstance {
    /// `MIG-…`.
    pub uuid: Arc<str>,
    /// GPU instance id.
    pub gpu_instance: Option<u32>,
    /// Compute instance id.
    pub compute_instance: Option<u32>,
    /// Such as `1g.10gb`.
    pub profile: Arc<str>,
    /// First memory slice of its GPU instance; absent where the driver tells it only to the privileged.
    pub placement: Option<u32>,
    /// The instance's own frame buffer.
    pub memory: Option<Memory>,
    /// What its units did: the only measure of use that MIG has.
    pub gpm: Option<Gpm>,
}

impl MigInstance {
    /// The same, with nothing read of it.
    #[must_use]
    pub fn unread(&self) -> Self {
        Self { memory: None, gpm: None, ..self.clone() }
    }
}

/// Why there are no readings at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// A short word for a metric's label, such as `library_not_found`.
    pub cause: &'static str,
    /// For a person: what and where.
    pub message: String,
}

impl Absence {
    /// For a person: what to try.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self.cause {
            "library_not_found" => {
                "in a pod: runtimeClassName: nvidia with NVIDIA_VISIBLE_DEVICES=all and NVIDIA_DRIVER_CAPABILITIES=utility, or mount the host's library and name it with --nvml-library; on a machine: install the driver"
            }
            "driver_not_loaded" => {
                "load the driver (`modprobe nvidia`, or wait for the GPU operator's driver pod); the agent takes it up by itself"
            }
            "lib_rm_version_mismatch" => {
                "the driver was upgraded under the library: restart the pod, reload the kernel module, or reboot the node"
            }
            "no_permission" | "operating_system" | "unknown" => NO_DEVICES,
            "thread_ended" | "no_thread" => "restart the agent",
            _ => "look at `dmesg` for Xid errors, and try `nvidia-smi` on the node",
        }
    }
}

/// What to try where a container cannot reach its devices: what the driver then answers is often just "unknown error".
pub const NO_DEVICES: &str = "if `nvidia-smi` works on the node, the container has no access to /dev/nvidia*: give it the devices by the NVIDIA runtime (runtimeClassName: nvidia, NVIDIA_VISIBLE_DEVICES=all), or restart it after `systemctl daemon-reload`; else look at `dmesg`";

impl std::fmt::Display for Absence {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}; {}", self.message, self.remedy())
    }
}
