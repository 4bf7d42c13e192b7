//! One GPU with its cached handle: what is asked of it in a pass, and what is remembered between passes.
//! It owns all that it needs, so that it can go to the thread that makes the calls and stay there while one hangs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::MemoryInfo;

use super::calls::{Calls, Log, Paced, Refused, open};
use super::clock_events::ClockEvents;
use super::errors::{Meaning, cause, meaning};
use super::fields::{Batch, LASTING, MOVING, Values, fabric_state};
use super::gpm::Gpms;
use super::links::Links;
use super::mig::{self, Slice};
use super::processes::Processes;
use super::raw::{Handle, NO_MEMORY};
use super::throttle::Throttle;
use super::utilization::Utilization;
use crate::gpu::{Gpu, Health, Identity, Memory, MigInstance, Modes};

/// How often the MIG layout is looked up: no event tells that it changed.
const LAYOUT_INTERVAL: Duration = Duration::from_secs(5);
/// How often wear and limits are read: they change once in a while.
const LASTING_INTERVAL: Duration = Duration::from_secs(10);

/// A GPU and what is known of it.
pub(super) struct Card {
    pub(super) identity: Arc<Identity>,
    /// Absent while the driver gives no handle for it.
    pub(super) handle: Option<Handle>,
    /// Whether the driver said that the GPU is gone when it was last asked for a handle.
    gone: bool,
    refused: Refused,
    utilization: Utilization,
    processes: Processes,
    throttle: Throttle,
    clock_events: ClockEvents,
    moving: Batch,
    lasting: Batch,
    gpms: Gpms,
    links: Links,
    /// The MIG instances; absent while MIG is off.
    slices: Option<Vec<Slice>>,
    layout_due: Duration,
    power_limit: Paced<f64>,
    wear: Paced<Values>,
    fabric: Paced<&'static str>,
    modes: Paced<Modes>,
}

/// The error that ended the session, if one did.
pub(super) type Broken = Option<NvmlError>;

impl Card {
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            handle: None,
            gone: false,
            refused: Refused::new(),
            utilization: Utilization::default(),
            processes: Processes::default(),
            throttle: Throttle::default(),
            clock_events: ClockEvents::default(),
            moving: Batch::new("field_values", MOVING),
            lasting: Batch::new("lasting_field_values", LASTING),
            gpms: Gpms::default(),
            links: Links::default(),
            slices: None,
            layout_due: Duration::ZERO,
            power_limit: Paced::default(),
            wear: Paced::default(),
            fabric: Paced::default(),
            modes: Paced::default(),
        }
    }

    /// Asks for the handle anew. A GPU keeps its memory of refusals and samples while its uuid stays; another in its place starts afresh.
    pub(super) fn look_up(self, nvml: &Arc<Nvml>, log: &Log) -> Self {
        let index = self.identity.index;
        match Handle::by_index(nvml, index) {
            Ok(handle) => {
                let identity = identity(index, &handle);
                let mut card = if self.identity.uuid == identity.uuid { self } else { Self::new(Arc::new(identity)) };
                (card.handle, card.gone) = (Some(handle), false);
                card
            }
            Err(error) => {
                *open(log).failed.entry(("device_by_index", cause(&error))).or_default() += 1;
                Self { handle: None, gone: meaning(&error) == Meaning::Lost, ..self }
            }
        }
    }

    /// One pass over the GPU.
    pub(super) fn read(&mut self, now: Duration, log: &Log, clock: &dyn Fn() -> Duration) -> (Gpu, Broken) {
        let Some(handle) = self.handle.clone() else { return (self.down(self.gone), None) };
        let mut refused = std::mem::take(&mut self.refused);
        let had_mig = self.slices.is_some();
        let mut calls = Calls::new(log, &mut refused, clock, (self.identity.index, now));
        let gpu = self.pass(&handle, &mut calls);
        let (answered, lost, broken) = (calls.answered, calls.lost, calls.session.take());
        if had_mig == self.slices.is_some() {
            self.refused = refused;
        } else {
            self.moving.forget();
            self.lasting.forget();
            self.links.forget();
        }
        (if answered && !lost { gpu } else { self.down(lost) }, broken)
    }

    fn down(&self, lost: bool) -> Gpu {
        Gpu { identity: Arc::clone(&self.identity), lost, ..Gpu::default() }
    }

    fn pass(&mut self, gpu: &Handle, calls: &mut Calls<'_>) -> Gpu {
        let device = gpu.device();
        let memory = calls.ask("memory_info", || memory(gpu));
        if calls.now >= self.layout_due {
            self.layout_due = calls.now + LAYOUT_INTERVAL;
            self.slices = mig::enumerate(gpu, self.slices.take(), calls);
        }
        let used = self.utilization.read(gpu, self.slices.is_none(), calls);
        let milliwatts = |value: u32| f64::from(value) / 1e3;
        let megahertz = |value: u32| f64::from(value) * 1e6;
        let moving = self.moving.read(gpu, calls);
        let reasons =
            calls.ask("clocks_event_reasons", || device.current_throttle_reasons()).map(|reasons| reasons.bits());
        let limit = |calls: &mut Calls<'_>| calls.ask("enforced_power_limit", || device.enforced_power_limit());
        let mut read = Gpu {
            identity: Arc::clone(&self.identity),
            up: true,
            utilization: used.gpu.map(|measured| measured.mean),
            utilization_max: used.gpu.map(|measured| measured.max),
            memory_copy_utilization: used.memory,
            encoder_utilization: used.encoder,
            decoder_utilization: used.decoder,
            memory,
            power_watts: calls.ask("power_usage", || device.power_usage()).map(milliwatts),
            power_average_watts: moving.watts("power_average"),
            power_instant_watts: moving.watts("power_instant"),
            power_limit_watts: calls
                .paced(&mut self.power_limit, LASTING_INTERVAL, |calls| limit(calls).map(milliwatts)),
            energy_joules: calls.ask("total_energy_consumption", || device.total_energy_consumption()).map(joules),
            temperature_celsius: calls.ask("temperature", || device.temperature(TemperatureSensor::Gpu)).map(f64::from),
            memory_temperature_celsius: moving.get("memory_temperature"),
            sm_clock_hertz: calls.ask("sm_clock", || device.clock_info(Clock::SM)).map(megahertz),
            memory_clock_hertz: calls.ask("memory_clock", || device.clock_info(Clock::Memory)).map(megahertz),
            video_clock_hertz: calls.ask("video_clock", || device.clock_info(Clock::Video)).map(megahertz),
            throttled: self.throttle.read(calls.now, reasons, &moving),
            clock_events: self.clock_events.read(calls.now, reasons),
            modes: self.modes(gpu, calls),
            processes: self.processes.list(gpu, self.slices.as_deref(), calls),
            ..Gpu::default()
        };
        if self.slices.is_none() {
            read.process_utilization = self.processes.utilization(gpu, read.utilization, calls);
            read.gpm = self.gpms.whole(gpu, calls);
        }
        read.mig = self.instances(gpu, calls);
        let wear = self.wear(gpu, calls);
        read.traffic = moving.traffic(&wear, self.links.read(gpu, moving.nvlink(), calls));
        read.health = self.health(gpu, &wear, calls);
        read
    }

    fn wear(&mut self, gpu: &Handle, calls: &mut Calls<'_>) -> Values {
        let lasting = &mut self.lasting;
        calls.paced(&mut self.wear, LASTING_INTERVAL, |calls| Some(lasting.read(gpu, calls))).unwrap_or_default()
    }

    fn health(&mut self, gpu: &Handle, wear: &Values, calls: &mut Calls<'_>) -> Health {
        let ask = |calls: &mut Calls<'_>| calls.ask("gpu_fabric_info", || gpu.fabric()).and_then(fabric_state);
        wear.health(calls.paced(&mut self.fabric, LASTING_INTERVAL, ask))
    }

    fn modes(&mut self, gpu: &Handle, calls: &mut Calls<'_>) -> Modes {
        let ask = |calls: &mut Calls<'_>| {
            Some(Modes {
                virtualization: calls.ask("virtualization_mode", || gpu.virtualization()),
                confidential: calls.ask("conf_compute_state", || gpu.confidential()),
                license: calls.ask("grid_licensable_features", || gpu.license()),
            })
        };
        calls.paced(&mut self.modes, LASTING_INTERVAL, ask).unwrap_or_default()
    }

    fn instances(&mut self, gpu: &Handle, calls: &mut Calls<'_>) -> Option<Vec<MigInstance>> {
        let (mut instances, gone) = mig::read(self.slices.as_ref()?, calls);
        if gone {
            self.slices = mig::enumerate(gpu, self.slices.take(), calls);
            instances = mig::read(self.slices.as_ref()?, calls).0;
        }
        let gpms: BTreeMap<u32, _> = self.gpms.instances(gpu, self.slices.as_ref()?, calls);
        for instance in &mut instances {
            instance.gpm = instance.gpu_instance.and_then(|id| gpms.get(&id).copied().flatten());
        }
        Some(instances)
    }
}

fn identity(index: u32, handle: &Handle) -> Identity {
    let device = handle.device();
    Identity {
        index,
        uuid: device.uuid().unwrap_or_default().into(),
        model: device.name().ok().map(Into::into),
        minor: device.minor_number().ok(),
        pci_bus_id: device.pci_info().ok().map(|pci| pci.bus_id.into()),
    }
}

pub(super) fn memory(handle: &Handle) -> Result<Memory, NvmlError> {
    let memory = match handle.device().memory_info() {
        Ok(info) => {
            let MemoryInfo { total, free, reserved, used, .. } = info;
            Memory { total, used: unreserved(total, free, reserved, used), free, reserved }
        }
        Err(error) if meaning(&error) == Meaning::Unsupported => handle.memory_v1()?,
        Err(error) => return Err(error),
    };
    // "Not known" is no size, as on a GPU whose memory is the machine's.
    if memory.total.max(memory.used) < NO_MEMORY { Ok(memory) } else { Err(NvmlError::NotSupported) }
}

/// What programs hold. Headers disagree on whether `used` includes what is reserved, so it is derived; where the driver's figures do not add up
/// either way, its word counts.
fn unreserved(total: u64, free: u64, reserved: u64, used: u64) -> u64 {
    let derived = total.saturating_sub(free).saturating_sub(reserved);
    if used == derived || used == derived.saturating_add(reserved) { derived } else { used }
}

/// Joules out of the driver's millijoules, exact to 2^53 mJ (285 years at 1 kW).
fn joules(millijoules: u64) -> f64 {
    millijoules as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_leaves_out_what_is_reserved_however_the_driver_counts() {
        for (total, free, reserved, used, expect, what) in [
            (80, 70, 2, 8, 8, "used leaves it out"),
            (80, 70, 2, 10, 8, "used has it in"),
            (80, 80, 0, 0, 0, "nothing is used"),
            (40, 0, 0, 0, 0, "nothing is free and nothing used: what is used is what the driver says"),
            (80, 90, 2, 1, 1, "more is free than there is"),
        ] {
            assert_eq!(unreserved(total, free, reserved, used), expect, "{what}");
        }
    }
}
