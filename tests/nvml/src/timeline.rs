//! What is true: the load of every GPU and process at every moment, as the profile's curves say it. The exported NVML functions and the tests read
//! the same timeline, so a program's attribution can be held against the truth. Time is cut into the driver's sample periods of a sixth of a second.

use std::sync::Arc;

use crate::machine::{Device, Machine};
use crate::profile::Kind;

/// Microseconds of one sample period.
pub const PERIOD_US: u64 = 166_667;

/// Power and temperature follow the load of this many periods.
const WARMTH_PERIODS: u64 = 30;

/// The machines of one run, each from the moment its profile was written.
#[derive(Debug, Default)]
pub struct Timeline {
    eras: Vec<(u64, Arc<Machine>)>,
}

/// The load of one GPU in one sample period, in percent.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Time in which a kernel ran.
    pub gpu: f64,
    /// Memory bandwidth.
    pub memory: f64,
    /// Encoder.
    pub encoder: f64,
    /// Decoder.
    pub decoder: f64,
    /// What each process did, in the profile's order.
    pub processes: Vec<ProcessLoad>,
}

/// The share of one process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessLoad {
    /// Host pid.
    pub pid: u32,
    /// GPU instance, where MIG is on.
    pub gpu_instance: Option<u32>,
    /// Compute instance, where MIG is on.
    pub compute_instance: Option<u32>,
    /// Which lists show it.
    pub kind: Kind,
    /// Whether the driver's per-process sampler sees it.
    pub sampled: bool,
    /// SM time, of the GPU or of its MIG instance.
    pub sm: f64,
    /// Memory bandwidth.
    pub memory: f64,
    /// Encoder.
    pub encoder: f64,
    /// Decoder.
    pub decoder: f64,
}

impl Timeline {
    /// The machine is this one from `since_us` (Unix microseconds) on.
    pub fn begin(&mut self, since_us: u64, machine: Arc<Machine>) {
        self.eras.retain(|(start, _)| *start < since_us);
        self.eras.push((since_us, machine));
    }

    /// Forgets what ended before `before_us`.
    pub fn forget(&mut self, before_us: u64) {
        let gone = self.eras.iter().skip(1).take_while(|(start, _)| *start <= before_us).count();
        self.eras.drain(..gone);
    }

    /// The machine at a moment; the first one for anything earlier.
    pub fn machine(&self, at_us: u64) -> Option<&Arc<Machine>> {
        let era = self.eras.iter().rev().find(|(start, _)| *start <= at_us).or(self.eras.first());
        era.map(|(_, machine)| machine)
    }

    /// The load of GPU `index` in sample period `period`, taken at the period's middle.
    pub fn load(&self, index: u32, period: u64) -> Load {
        let at_us = period * PERIOD_US + PERIOD_US / 2;
        let Some(machine) = self.machine(at_us) else { return Load::default() };
        let seconds = at_us as f64 / 1e6 - machine.profile.epoch_s;
        machine.devices.get(index as usize).map(|device| Load::of(device, seconds)).unwrap_or_default()
    }

    /// Mean percent of GPU `index` between two moments (Unix microseconds).
    pub fn mean_gpu(&self, index: u32, from_us: u64, to_us: u64) -> f64 {
        self.mean(from_us, to_us, |period| self.load(index, period).gpu)
    }

    /// Mean SM percent of process `pid` on GPU `index` between two moments (Unix microseconds).
    pub fn mean_sm(&self, index: u32, pid: u32, from_us: u64, to_us: u64) -> f64 {
        let of =
            |load: Load| load.processes.iter().filter(|process| process.pid == pid).map(|process| process.sm).sum();
        self.mean(from_us, to_us, |period| of(self.load(index, period)))
    }

    /// Mean SM percent of a GPU instance between two moments (Unix microseconds).
    pub fn mean_instance(&self, index: u32, gpu_instance: u32, from_us: u64, to_us: u64) -> f64 {
        self.mean(from_us, to_us, |period| self.load(index, period).instance(gpu_instance))
    }

    /// Watts of GPU `index` in sample period `period`: a straight line from idle to the limit, as the load of that period.
    pub fn watts(&self, index: u32, period: u64) -> f64 {
        let Some(machine) = self.machine(period * PERIOD_US) else { return 0.0 };
        let Some(device) = machine.devices.get(index as usize) else { return 0.0 };
        let power = device.model.power_watts;
        power.idle + (power.limit - power.idle) * self.load(index, period).gpu / 100.0
    }

    /// Degrees Celsius of GPU `index`: from idle to busy by the load of the last five seconds.
    pub fn celsius(&self, index: u32, now_us: u64) -> f64 {
        let Some(machine) = self.machine(now_us) else { return 0.0 };
        let Some(device) = machine.devices.get(index as usize) else { return 0.0 };
        let load = self.mean_gpu(index, now_us.saturating_sub(WARMTH_PERIODS * PERIOD_US), now_us);
        let temperature = device.model.temperature_celsius;
        temperature.idle + (temperature.busy - temperature.idle) * load / 100.0
    }

    /// Time-weighted mean of a value that is constant within each sample period.
    fn mean(&self, from_us: u64, to_us: u64, value: impl Fn(u64) -> f64) -> f64 {
        if to_us <= from_us {
            return 0.0;
        }
        let weighted = (from_us / PERIOD_US..=to_us / PERIOD_US).map(|period| {
            let start = from_us.max(period * PERIOD_US);
            let end = to_us.min((period + 1) * PERIOD_US);
            value(period) * end.saturating_sub(start) as f64
        });
        weighted.sum::<f64>() / (to_us - from_us) as f64
    }
}

impl Load {
    /// The load of `device`, `seconds` after the profile's epoch. Processes that want more than there is get their share of it.
    pub fn of(device: &Device, seconds: f64) -> Self {
        let mut processes: Vec<ProcessLoad> =
            device.gpu.processes.iter().map(|process| ProcessLoad::of(process, device, seconds)).collect();
        let wanted = |processes: &[ProcessLoad], instance: Option<u32>| -> f64 {
            processes.iter().filter(|process| process.gpu_instance == instance).map(|process| process.sm).sum()
        };
        let totals: Vec<f64> = processes.iter().map(|process| wanted(&processes, process.gpu_instance)).collect();
        for (process, total) in processes.iter_mut().zip(totals) {
            process.sm *= (100.0 / total.max(1e-9)).min(1.0);
        }
        let weight = |process: &ProcessLoad| part_of_gpu(device, process.gpu_instance);
        let sum = |value: fn(&ProcessLoad) -> f64| -> f64 {
            processes.iter().map(|process| value(process) * weight(process)).sum::<f64>().min(100.0)
        };
        let (gpu, memory) = (sum(|process| process.sm), sum(|process| process.memory));
        let (encoder, decoder) = (sum(|process| process.encoder), sum(|process| process.decoder));
        book_on_server(&mut processes);
        Self { gpu, memory, encoder, decoder, processes }
    }

    /// Percent of one GPU instance.
    pub fn instance(&self, gpu_instance: u32) -> f64 {
        let inside = self.processes.iter().filter(|process| process.gpu_instance == Some(gpu_instance));
        inside.map(|process| process.sm).sum()
    }
}

/// What unsampled MPS clients do appears as the server's.
fn book_on_server(processes: &mut [ProcessLoad]) {
    let unseen = |process: &&ProcessLoad| process.kind == Kind::Mps && !process.sampled;
    let booked: f64 = processes.iter().filter(unseen).map(|process| process.sm).sum();
    if let Some(server) = processes.iter_mut().find(|process| process.kind == Kind::MpsServer) {
        server.sm = booked;
    }
}

/// What part of the whole GPU a process's instance is: 1 where MIG is off.
fn part_of_gpu(device: &Device, gpu_instance: Option<u32>) -> f64 {
    let Some(instance) = gpu_instance else { return 1.0 };
    let slices = device.mig.iter().flatten().find(|mig| mig.gpu_instance == instance).map_or(0, |mig| mig.slices);
    let all = device.model.mig.map_or(7, |limits| limits.max_instances).max(1);
    f64::from(slices) / f64::from(all)
}

impl ProcessLoad {
    fn of(process: &crate::profile::Process, device: &Device, seconds: f64) -> Self {
        let works = process.kind != Kind::MpsServer;
        let sm = if works { process.sm.at(seconds) } else { 0.0 };
        let in_mig = device.mig.is_some();
        Self {
            pid: process.pid,
            gpu_instance: process.gpu_instance.filter(|_| in_mig),
            compute_instance: process.gpu_instance.filter(|_| in_mig).map(|_| process.compute_instance.unwrap_or(0)),
            kind: process.kind,
            sampled: process.sampled,
            sm,
            memory: process.memory.as_ref().map_or(sm * 0.4, |curve| curve.at(seconds)),
            encoder: process.encoder.at(seconds),
            decoder: process.decoder.at(seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelName;
    use crate::profile::{Process, Profile};

    fn timeline(loads: &[f64]) -> Timeline {
        let mut profile = Profile::idle(ModelName::A100, 1);
        profile.gpu(0).processes = loads.iter().zip(1..).map(|(sm, pid)| Process::new(pid, *sm, 100)).collect();
        let mut timeline = Timeline::default();
        timeline.begin(0, Arc::new(Machine::new(profile).unwrap()));
        timeline
    }

    #[test]
    fn processes_that_want_more_than_there_is_share_it() {
        let timeline = timeline(&[90.0, 60.0]);
        assert!((timeline.mean_gpu(0, 0, 5_000_000) - 100.0).abs() < 1e-9);
        assert!((timeline.mean_sm(0, 1, 0, 5_000_000) - 60.0).abs() < 1e-9);
        assert!((timeline.mean_sm(0, 2, 0, 5_000_000) - 40.0).abs() < 1e-9);
    }

    #[test]
    fn a_new_profile_counts_from_when_it_was_written() {
        let mut timeline = timeline(&[100.0]);
        let idle = Machine::new(Profile::idle(ModelName::A100, 1)).unwrap();
        timeline.begin(5 * PERIOD_US, Arc::new(idle));
        assert!((timeline.mean_gpu(0, 0, 10 * PERIOD_US) - 50.0).abs() < 1e-9);
        timeline.forget(6 * PERIOD_US);
        assert!(timeline.mean_gpu(0, 6 * PERIOD_US, 10 * PERIOD_US) < 1e-9);
    }
}
