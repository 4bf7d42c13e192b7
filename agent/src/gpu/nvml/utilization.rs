//! How busy a GPU was since the last pass: mean and maximum of the driver's own samples, and the time that adds up.
//! With MIG on, the driver has no figure for the whole GPU.

use std::time::Duration;

use nvml_wrapper::structs::device::UtilizationInfo;

use super::calls::Calls;
use super::raw::Handle;
use super::samples::{Measured, Seen, percent, since};

/// `NVML_GPU_UTILIZATION_SAMPLES` and `NVML_MEMORY_UTILIZATION_SAMPLES`.
const GPU: u32 = 1;
const MEMORY: u32 = 2;
/// The driver's rings hold about this much: a longer silence was not sampled to its full length.
const RING: Duration = Duration::from_secs(16);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct Utilization {
    gpu: Seen,
    memory: Seen,
    busy_seconds: Option<f64>,
    last: Option<Duration>,
    looked: Option<Duration>,
}

/// What one pass found, percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    pub(super) gpu: Option<Measured>,
    pub(super) memory: Option<f64>,
    pub(super) encoder: Option<f64>,
    pub(super) decoder: Option<f64>,
    pub(super) busy_seconds: Option<f64>,
}

impl Utilization {
    /// One pass. `undivided` is false while MIG is on.
    pub(super) fn read(&mut self, gpu: &Handle, undivided: bool, calls: &mut Calls<'_>) -> Used {
        if !undivided {
            self.last = None;
            return Used { busy_seconds: self.busy_seconds, ..Used::default() };
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
        self.add(calls.now, used);
        let engine = |info: UtilizationInfo| percent(f64::from(info.utilization));
        Used {
            gpu: used,
            memory: memory.map(|measured| measured.mean),
            encoder: calls.ask("encoder_utilization", || device.encoder_utilization()).and_then(engine),
            decoder: calls.ask("decoder_utilization", || device.decoder_utilization()).and_then(engine),
            busy_seconds: self.busy_seconds,
        }
    }

    /// Adds up the time in which a kernel ran.
    fn add(&mut self, now: Duration, used: Option<Measured>) {
        let Some(Measured { mean, .. }) = used else {
            self.last = None;
            return;
        };
        let elapsed = self.last.map_or(Duration::ZERO, |last| now.saturating_sub(last)).min(RING);
        self.last = Some(now);
        *self.busy_seconds.get_or_insert(0.0) += mean / 100.0 * elapsed.as_secs_f64();
    }
}

/// Looks whether the clock of a ring was set back.
fn rewind(seen: &mut Seen, (name, kind): (&'static str, u32), gpu: &Handle, calls: &mut Calls<'_>) {
    if let Some(whole) = calls.ask(name, || gpu.samples(kind, 0)) {
        seen.rewind(whole.into_iter().map(|(timestamp, _)| timestamp));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_adds_up_and_a_gap_longer_than_the_ring_counts_as_the_ring() {
        let mut utilization = Utilization::default();
        let mut add = |second, mean: Option<f64>| {
            utilization.add(Duration::from_secs(second), mean.map(|mean| Measured { mean, max: mean }));
            utilization.busy_seconds
        };
        let found = [
            (1, None),
            (5, Some(50.0)),
            (7, Some(50.0)),
            (8, Some(100.0)),
            (108, Some(50.0)),
            (109, None),
            (200, Some(9.0)),
        ];
        let found = found.map(|(second, mean)| add(second, mean));
        assert_eq!(found, [None, Some(0.0), Some(1.0), Some(2.0), Some(10.0), Some(10.0), Some(10.0)]);
    }
}
