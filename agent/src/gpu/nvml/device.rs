//! One GPU with its cached handle: what is asked of it in a pass, and what is remembered between passes.
//! Costly calls (the graphics list, the MIG list) run at their own slower pace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, Sampling, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;

use super::calls::{Calls, Outcome, Refused};
use super::samples::{mean_since, percent, processes_since};
use super::{mig, raw};
use crate::gpu::{Failures, Gpu, Identity, Memory, Process, ProcessUtilization};

/// How often the slow questions are asked: MIG layout, graphics processes (4.5 ms a call were seen).
const SLOW_INTERVAL: Duration = Duration::from_secs(5);
/// For how many passes the last measured split of a busy GPU stands while the driver has no newer process samples:
/// its own period may be as long as ours, and a busy process must not flicker to 0.
const HOLD_PASSES: u32 = 2;

/// A GPU and what is known of it.
pub(super) struct Card<'nvml> {
    pub(super) identity: Arc<Identity>,
    /// Absent while the driver gives no handle for it.
    pub(super) device: Option<Device<'nvml>>,
    pub(super) refused: Refused,
    last_seen: LastSeen,
    held: Vec<ProcessUtilization>,
    held_for: u32,
    graphics: Vec<Process>,
    slices: Option<Vec<mig::Slice<'nvml>>>,
    slow_due: Duration,
    was_up: bool,
}

/// Newest sample taken so far, per buffer, in the driver's own clock.
#[derive(Default)]
struct LastSeen {
    gpu: u64,
    memory: u64,
    process: u64,
}

/// How a pass ended for the session.
pub(super) type Broken = Option<NvmlError>;

impl<'nvml> Card<'nvml> {
    pub(super) fn new(identity: Arc<Identity>, device: Option<Device<'nvml>>) -> Self {
        Self {
            identity,
            device,
            refused: Refused::new(),
            last_seen: LastSeen::default(),
            held: Vec::new(),
            held_for: 0,
            graphics: Vec::new(),
            slices: None,
            slow_due: Duration::ZERO,
            was_up: true,
        }
    }

    /// One pass over the GPU.
    pub(super) fn read(&mut self, now: Duration, failures: &mut Failures) -> (Gpu, Broken) {
        // The driver gives no handle for a GPU that is gone.
        let Some(device) = self.device.take() else { return (self.down(true), None) };
        let mut refused = std::mem::take(&mut self.refused);
        let had_mig = self.slices.is_some();
        let mut calls = Calls::new(failures, &mut refused);
        let gpu = self.pass(&device, now, &mut calls);
        let (answered, lost, broken) = (calls.answered, calls.lost, calls.session.take());
        self.device = Some(device);
        if had_mig == self.slices.is_some() {
            self.refused = refused;
        }
        (if answered && !lost { gpu } else { self.down(lost) }, broken)
    }

    fn down(&self, lost: bool) -> Gpu {
        Gpu { identity: Arc::clone(&self.identity), lost, ..Gpu::default() }
    }

    /// Logs that the GPU went or came back, once per change.
    pub(super) fn tell(&mut self, up: bool) {
        let Identity { index, uuid, .. } = &*self.identity;
        match (self.was_up, up) {
            (true, false) => {
                tracing::warn!(index, %uuid, "the GPU does not answer; look at dmesg for Xid errors, reset it or reboot the node")
            }
            (false, true) => tracing::info!(index, %uuid, "the GPU answers again"),
            _ => {}
        }
        self.was_up = up;
    }

    fn pass(&mut self, device: &Device<'nvml>, now: Duration, calls: &mut Calls<'_>) -> Gpu {
        let memory = calls.ask("memory_info", || memory(device));
        let slow = now >= self.slow_due;
        if slow {
            self.slow_due = now + SLOW_INTERVAL;
            self.slices = mig::enumerate(device, calls);
        }
        let (utilization, memory_copy_utilization) = self.utilization(device, calls);
        let milliwatts = |value: u32| f64::from(value) / 1e3;
        let megahertz = |value: u32| f64::from(value) * 1e6;
        Gpu {
            identity: Arc::clone(&self.identity),
            up: true,
            lost: false,
            utilization,
            memory_copy_utilization,
            memory,
            power_watts: calls.ask("power_usage", || device.power_usage()).map(milliwatts),
            power_limit_watts: calls.ask("enforced_power_limit", || device.enforced_power_limit()).map(milliwatts),
            energy_joules: calls.ask("total_energy_consumption", || device.total_energy_consumption()).map(joules),
            temperature_celsius: calls.ask("temperature", || device.temperature(TemperatureSensor::Gpu)).map(f64::from),
            sm_clock_hertz: calls.ask("sm_clock", || device.clock_info(Clock::SM)).map(megahertz),
            memory_clock_hertz: calls.ask("memory_clock", || device.clock_info(Clock::Memory)).map(megahertz),
            processes: self.processes(device, slow, calls),
            process_utilization: self.process_utilization(device, utilization, calls),
            mig: self.instances(device, calls),
            ..Gpu::default()
        }
    }

    /// The mean over the driver's samples since the last pass; one instantaneous reading where there are no samples.
    fn utilization(&mut self, device: &Device<'_>, calls: &mut Calls<'_>) -> (Option<f64>, Option<f64>) {
        if self.slices.is_some() {
            return (None, None); // with MIG on, the driver has no figure for the whole GPU
        }
        let mut mean = |name, kind, last_seen: &mut u64| {
            let samples = calls.ask(name, || device.samples(kind, *last_seen))?;
            mean_since(last_seen, samples.iter().map(|sample| (sample.timestamp, number(&sample.value))))
        };
        let gpu = mean("utilization_samples", Sampling::GpuUtilization, &mut self.last_seen.gpu);
        let memory = mean("memory_samples", Sampling::MemoryUtilization, &mut self.last_seen.memory);
        if gpu.is_some() && memory.is_some() {
            return (gpu, memory);
        }
        let rates = calls.ask("utilization_rates", || device.utilization_rates());
        let gpu = gpu.or_else(|| percent(f64::from(rates.as_ref()?.gpu)));
        (gpu, memory.or_else(|| percent(f64::from(rates.as_ref()?.memory))))
    }

    fn process_utilization(
        &mut self,
        device: &Device<'_>,
        utilization: Option<f64>,
        calls: &mut Calls<'_>,
    ) -> Option<Vec<ProcessUtilization>> {
        if self.slices.is_some() {
            return None; // not offered with MIG on
        }
        let last_seen = self.last_seen.process;
        let fresh = match calls.make("process_utilization", || device.process_utilization_stats(last_seen)) {
            Outcome::Value(samples) => {
                let samples: Vec<_> = samples.iter().map(|s| (s.pid, s.timestamp, f64::from(s.sm_util))).collect();
                processes_since(&mut self.last_seen.process, &samples)
            }
            Outcome::Nothing => Vec::new(),
            Outcome::Failed => return None,
        };
        let busy = utilization.is_none_or(|percent| percent > 0.0);
        if fresh.is_empty() && busy && self.held_for < HOLD_PASSES {
            self.held_for += 1;
            return Some(self.held.clone());
        }
        self.held_for = 0;
        self.held.clone_from(&fresh);
        Some(fresh)
    }

    fn processes(&mut self, device: &Device<'_>, slow: bool, calls: &mut Calls<'_>) -> Option<Vec<Process>> {
        let compute = match &self.slices {
            Some(slices) => calls
                .ask("compute_processes", || device.running_compute_processes())
                .map(|found| found.iter().map(process).collect())
                .or_else(|| mig::processes(slices, calls)),
            None => calls
                .ask("compute_processes", || device.running_compute_processes())
                .map(|found| found.iter().map(process).collect()),
        };
        let mps = calls.ask("mps_processes", || device.mps_running_compute_processes()).unwrap_or_default();
        if slow {
            let graphics = calls.ask("graphics_processes", || device.running_graphics_processes()).unwrap_or_default();
            self.graphics = graphics.iter().map(process).collect();
        }
        compute.map(|compute: Vec<Process>| {
            merge(compute.into_iter().chain(mps.iter().map(process)).chain(self.graphics.iter().copied()))
        })
    }

    fn instances(&mut self, device: &Device<'nvml>, calls: &mut Calls<'_>) -> Option<Vec<crate::gpu::MigInstance>> {
        if let Ok(instances) = mig::read(self.slices.as_ref()?, calls) {
            return Some(instances);
        }
        self.slices = mig::enumerate(device, calls);
        mig::read(self.slices.as_ref()?, calls).ok()
    }
}

/// A process that is in several lists is one process, with the largest memory that a list gives it.
fn merge(all: impl Iterator<Item = Process>) -> Vec<Process> {
    let mut by_pid: BTreeMap<(u32, Option<u32>, Option<u32>), Process> = BTreeMap::new();
    for process in all.filter(|process| process.pid != 0) {
        let known = by_pid.entry((process.pid, process.gpu_instance, process.compute_instance)).or_insert(process);
        known.memory = known.memory.max(process.memory);
    }
    by_pid.into_values().collect()
}

pub(super) fn process(info: &ProcessInfo) -> Process {
    let memory = match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    let (gpu_instance, compute_instance) = (info.gpu_instance_id, info.compute_instance_id);
    Process { pid: info.pid, memory, gpu_instance, compute_instance, mps: false }
}

/// Headers disagree on whether `used` includes what is reserved, so it is derived.
pub(super) fn memory(device: &Device<'_>) -> Result<Memory, NvmlError> {
    match device.memory_info() {
        Ok(info) => {
            let used = info.total.saturating_sub(info.free).saturating_sub(info.reserved);
            Ok(Memory { total: info.total, used, free: info.free, reserved: info.reserved })
        }
        Err(NvmlError::FailedToLoadSymbol(_)) => raw::memory_v1(device),
        Err(error) => Err(error),
    }
}

fn number(value: &SampleValue) -> f64 {
    match *value {
        SampleValue::F64(value) => value,
        SampleValue::U32(value) => f64::from(value),
        SampleValue::U64(value) => u32::try_from(value).map_or(f64::INFINITY, f64::from),
        SampleValue::I64(value) => i32::try_from(value).map_or(f64::INFINITY, f64::from),
    }
}

/// Joules out of the driver's millijoules, exact to 2^53 mJ (285 years at 1 kW).
fn joules(millijoules: u64) -> f64 {
    millijoules as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_in_two_lists_counts_once() {
        let process = |pid, memory| Process { pid, memory, ..Process::default() };
        let merged =
            merge([process(7, Some(10)), process(8, None), process(7, Some(12)), process(0, Some(1))].into_iter());
        assert_eq!(merged, [process(7, Some(12)), process(8, None)]);
    }
}
