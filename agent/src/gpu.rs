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
    /// The calls that failed so far.
    fn failures(&self) -> &Failures;
}

/// Everything the driver said in one pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Version of the kernel driver, such as `580.95.05`.
    pub driver_version: Option<String>,
    /// In the driver's order. Indices may change at boot, uuids do not.
    pub gpus: Vec<Gpu>,
}

/// Calls that failed since the agent started, by call and by cause. A call that a device does not support counts once for that device.
pub type Failures = BTreeMap<(&'static str, &'static str), u64>;

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
    /// Share of time in which a kernel ran, percent, averaged over the driver's samples since the last reading.
    pub utilization: Option<f64>,
    /// Share of time in which memory was read or written, percent, averaged likewise.
    pub memory_copy_utilization: Option<f64>,
    /// Frame buffer.
    pub memory: Option<Memory>,
    /// Board power, watts.
    pub power_watts: Option<f64>,
    /// Limit that the board keeps to, watts.
    pub power_limit_watts: Option<f64>,
    /// Joules since the driver was loaded; starts again when it is reloaded.
    pub energy_joules: Option<f64>,
    /// Die temperature, degrees Celsius.
    pub temperature_celsius: Option<f64>,
    /// SM clock, hertz.
    pub sm_clock_hertz: Option<f64>,
    /// Memory clock, hertz.
    pub memory_clock_hertz: Option<f64>,
    /// Processes with a context on the GPU; absent when the lists could not be read.
    pub processes: Option<Vec<Process>>,
    /// Measured use per process; absent when it could not be read, empty when nothing ran.
    pub process_utilization: Option<Vec<ProcessUtilization>>,
    /// The MIG instances; absent when MIG is off.
    pub mig: Option<Vec<MigInstance>>,
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
    /// The instance's own frame buffer.
    pub memory: Option<Memory>,
}

/// Why there are no readings at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// A short word for a metric's label, such as `library_not_found`.
    pub cause: &'static str,
    /// For a person: what, where, and what to try.
    pub message: String,
}

impl std::fmt::Display for Absence {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}
