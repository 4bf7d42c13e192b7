//! How busy a GPU was since the last pass: mean and maximum of the driver's own samples.
//! With MIG on, the driver has no figure for the whole GPU.

use std::time::Duration;

use nvml_wrapper::structs::device::UtilizationInfo;

use super::calls::Calls;
use super::raw::Handle;
use super::samples::{Measured, Seen, percent, since};

/// `NVML_GPU_UTILIZATION_SAMPLES` and `NVML_MEMORY_UTILIZATION_SAMPLES`.
const GPU: u32 = 1;
const MEMORY: u32 = 2;

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct Utilization {
    gpu: Seen,
    memory: Seen,
    looked: Option<Duration>,
}

/// What one pass found, percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    pub(super) gpu: Option<Measured>,
    pub(super) memory: Option<f64>,
    pub(super) encoder: Option<f64>,
    pub(super) decoder: Option<f64>,
}

impl Utilization {
    /// One pass. `undivided` is false while MIG is on.
    pub(super) fn read(&mut self, gpu: &Handle, undivided: bool, calls: &mut Calls<'_>) -> Used {
        if !undivided {
            return Used::default();
        }
        let device = gpu.device();
        let elapsed = self.looked.replace(calls.now).map_or(Duration::ZERO, |looked| calls.now.saturating_sub(looked));
        let mut fresh = |seen: &mut Seen, (name, kind): (&'static str, u32)| {
            let newest = seen.newest;
            since(seen, &calls.ask(name, || gpu.samples(kind, newest))?, elapsed)
        };
        let mut used = fresh(&mut self.gpu, ("utilization_samples", GPU));
        let mut memory = fresh(&mut self.memory, ("memory_samples", MEMORY));
        let sampled = used.is_some();
        if used.is_none() || memory.is_none() {
            // Idle, or a ring that has nothing new yet: one reading of the moment stands for the time since.
            let rates = calls.ask("utilization_rates", || device.utilization_rates());
            let moment = |value: u32| percent(f64::from(value)).map(|value| Measured { mean: value, max: value });
            used = used.or_else(|| moment(rates.as_ref()?.gpu));
            memory = memory.or_else(|| moment(rates.as_ref()?.memory));
        }
        let busy = used.is_some_and(|measured| measured.mean > 0.0);
        if self.gpu.is_suspicious(sampled, busy) {
            rewind(&mut self.gpu, ("utilization_samples", GPU), gpu, calls);
            rewind(&mut self.memory, ("memory_samples", MEMORY), gpu, calls);
        }
        let engine = |info: UtilizationInfo| percent(f64::from(info.utilization));
        Used {
            gpu: used,
            memory: memory.map(|measured| measured.mean),
            encoder: calls.ask("encoder_utilization", || device.encoder_utilization()).and_then(engine),
            decoder: calls.ask("decoder_utilization", || device.decoder_utilization()).and_then(engine),
        }
    }
}

/// Looks whether the clock of a ring was set back.
fn rewind(seen: &mut Seen, (name, kind): (&'static str, u32), gpu: &Handle, calls: &mut Calls<'_>) {
    if let Some(whole) = calls.ask(name, || gpu.samples(kind, 0)) {
        seen.rewind(whole.into_iter().map(|(timestamp, _)| timestamp));
    }
}
