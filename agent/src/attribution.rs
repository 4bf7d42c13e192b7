//! Who used what: a reading and the kubelet's holders in, shares per container and the unattributed rest out. Pure.
//! Measured use goes to whom it was measured for; what cannot be told apart stays unattributed and is never spread.
//!
//! - One holder: the GPU's whole use is the holder's, less what is measured for processes that are certainly not its own.
//! - Several holders (time-slicing, MPS): each has the SM time and memory of its own processes.
//! - A MIG instance is a device of its own, by instance id; its holder has its memory. The driver tells no utilization for it.
//! - A container that uses a GPU which the kubelet did not give it (a plugin with ids of its own, a privileged pod) has its measured use.
//! - A holder without a process is idle: an explicit 0. But where a busy process could not be named, nobody's 0 is certain, and it is absent.

pub mod totals;

mod instances;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gpu::{Gpu, Memory, Reading};
use crate::pods::{Holders, Owner, Whose};

/// One tick, understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Version of the kernel driver.
    pub driver_version: Option<Arc<str>>,
    /// In the driver's order.
    pub gpus: Vec<GpuUse>,
    /// A container has one share per device it holds or uses; in order of GPU, instance and name.
    pub shares: Vec<Share>,
}

/// One GPU and what of it belongs to nobody.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GpuUse {
    /// As read.
    pub gpu: Gpu,
    /// Containers that hold it or a part of it.
    pub holders: usize,
    /// Percent of the GPU's time that no container is known to have used.
    pub unattributed_utilization: Option<f64>,
    /// Bytes that no container is known to hold.
    pub unattributed_memory: Option<u64>,
    /// Busy processes that could not be named.
    pub unknown_processes: usize,
}

/// What one container has of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Whose.
    pub owner: Arc<Owner>,
    /// Position in [`Snapshot::gpus`].
    pub gpu: usize,
    /// Position among the GPU's MIG instances.
    pub instance: Option<usize>,
    /// Whether the kubelet gave the device to the container.
    pub held: bool,
    /// Percent of the device's time, 0 to 100.
    pub utilization: Option<f64>,
    /// Bytes of frame buffer.
    pub memory_used: Option<u64>,
    /// Bytes of frame buffer of the whole device: what percentages refer to.
    pub memory_total: Option<u64>,
    /// The part, 0 to 1, of the GPU's energy that counts as the container's.
    pub energy: Option<f64>,
}

impl Share {
    /// Used memory in percent of the device's.
    #[must_use]
    pub fn memory_utilization(&self) -> Option<f64> {
        let total = self.memory_total.filter(|total| *total > 0)?;
        Some((self.memory_used? as f64 / total as f64 * 100.0).min(100.0))
    }
}

/// To whom each pid belongs; a pid that is missing is unknown.
pub type Processes = BTreeMap<u32, Whose>;

/// Attributes one reading.
#[must_use]
pub fn attribute(reading: Reading, holders: &Holders, processes: &Processes) -> Snapshot {
    let mut shares = Vec::new();
    let mut gpus = Vec::with_capacity(reading.gpus.len());
    for (position, gpu) in reading.gpus.into_iter().enumerate() {
        let part = if gpu.mig.is_some() {
            instances::attribute(&gpu, position, holders, processes)
        } else {
            whole(&gpu, position, holders.of_gpu(&gpu.identity), processes)
        };
        shares.extend(part.shares);
        gpus.push(GpuUse { gpu, ..part.rest });
    }
    Snapshot { driver_version: reading.driver_version.map(Into::into), gpus, shares }
}

/// The shares of one GPU, and what is left.
#[derive(Debug, Default)]
struct Part {
    shares: Vec<Share>,
    rest: GpuUse,
}

/// What is measured for one container, or for the node itself.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    sm: f64,
    memory: u64,
}

/// What is measured for each container; the node's own and the nameless processes apart.
#[derive(Debug, Default)]
struct Tally {
    containers: BTreeMap<Arc<Owner>, Measured>,
    host: Measured,
    unknown: Measured,
    unknown_busy: usize,
}

impl Tally {
    fn slot(&mut self, pid: u32, processes: &Processes) -> &mut Measured {
        match processes.get(&pid) {
            Some(Whose::Container(owner)) => self.containers.entry(Arc::clone(owner)).or_default(),
            Some(Whose::Host | Whose::MpsServer) => &mut self.host,
            Some(Whose::Unknown) | None => &mut self.unknown,
        }
    }

    fn of(gpu: &Gpu, processes: &Processes) -> Self {
        let mut tally = Self::default();
        for process in gpu.processes.iter().flatten() {
            tally.slot(process.pid, processes).memory += process.memory.unwrap_or(0);
        }
        for used in gpu.process_utilization.iter().flatten().filter(|used| used.sm > 0.0) {
            tally.slot(used.pid, processes).sm += used.sm;
            tally.unknown_busy += usize::from(matches!(processes.get(&used.pid), Some(Whose::Unknown) | None));
        }
        tally.scale(gpu.utilization);
        tally
    }

    /// Concurrent processes (MPS) can add up to more than the time in which the GPU was busy: then each has its part of that time.
    fn scale(&mut self, busy: Option<f64>) {
        let sum = self.sum();
        let limit = busy.unwrap_or(100.0);
        if sum > limit {
            let factor = limit / sum;
            let slots = self.containers.values_mut().chain([&mut self.host, &mut self.unknown]);
            slots.for_each(|measured| measured.sm *= factor);
        }
    }

    fn sum(&self) -> f64 {
        self.containers.values().chain([&self.host, &self.unknown]).map(|measured| measured.sm).sum()
    }
}

/// A GPU without MIG.
fn whole(gpu: &Gpu, position: usize, holders: Vec<Arc<Owner>>, processes: &Processes) -> Part {
    let mut tally = Tally::of(gpu, processes);
    let unknown_processes = tally.unknown_busy;
    let holder_count = holders.len();
    let blank = |owner, held| Share {
        owner,
        gpu: position,
        instance: None,
        held,
        utilization: None,
        memory_used: None,
        memory_total: gpu.memory.map(|memory| memory.total),
        energy: None,
    };
    let mut shares: Vec<Share> = Vec::new();
    if let [holder] = holders.as_slice() {
        tally.containers.remove(holder);
        let foreign = tally.containers.values().chain([&tally.host]).fold(Measured::default(), |sum, measured| {
            Measured { sm: sum.sm + measured.sm, memory: sum.memory + measured.memory }
        });
        shares.push(Share {
            utilization: gpu.utilization.map(|busy| (busy - foreign.sm).max(0.0)),
            memory_used: gpu.memory.map(|memory| memory.used.saturating_sub(foreign.memory)),
            energy: Some(1.0 - part(foreign.sm, gpu.utilization.unwrap_or(foreign.sm))),
            ..blank(Arc::clone(holder), true)
        });
    } else {
        for holder in holders {
            let measured = tally.containers.remove(&holder);
            shares.push(measure(blank(holder, true), measured, gpu, &tally));
        }
    }
    let strangers = std::mem::take(&mut tally.containers);
    for (owner, measured) in strangers {
        shares.push(measure(blank(owner, false), Some(measured), gpu, &tally));
    }
    split_energy(&mut shares, gpu, holder_count, &tally);
    shares.sort_by(|a, b| a.owner.cmp(&b.owner));
    let rest = GpuUse {
        gpu: Gpu::default(),
        holders: holder_count,
        unattributed_utilization: gpu.utilization.map(|busy| remainder(busy, &shares)),
        unattributed_memory: gpu.memory.map(|memory| memory_remainder(memory, &shares)),
        unknown_processes,
    };
    Part { shares, rest }
}

/// A container's share by measurement alone.
fn measure(blank: Share, measured: Option<Measured>, gpu: &Gpu, tally: &Tally) -> Share {
    // A process that nobody can name may be this container's: without measured use of its own, its 0 would be a guess.
    let certain = |nameless: bool| measured.is_some() || !nameless;
    let measured = measured.unwrap_or_default();
    let utilization = gpu.process_utilization.is_some() && certain(tally.unknown.sm > 0.0);
    let memory = gpu.processes.is_some() && certain(tally.unknown.memory > 0);
    Share { utilization: utilization.then_some(measured.sm), memory_used: memory.then_some(measured.memory), ..blank }
}

/// Energy of a GPU with one holder is the holder's even when it idles; several share it by measured time, and idle energy is nobody's.
fn split_energy(shares: &mut [Share], gpu: &Gpu, holders: usize, tally: &Tally) {
    let nameless = tally.host.sm + tally.unknown.sm;
    let measured = nameless + shares.iter().filter_map(|share| share.utilization).sum::<f64>();
    for share in shares {
        if holders == 1 && share.held {
            continue;
        }
        let whole = if holders == 1 { gpu.utilization.unwrap_or(measured) } else { measured };
        share.energy = share.utilization.map(|used| part(used, whole));
    }
}

fn part(of: f64, whole: f64) -> f64 {
    if whole > 0.0 { (of / whole).clamp(0.0, 1.0) } else { 0.0 }
}

fn remainder(busy: f64, shares: &[Share]) -> f64 {
    let known: f64 = shares.iter().filter_map(|share| share.utilization).sum();
    // Sums of shares that make up the whole may miss it by rounding: a millionth of a percent is nobody's use.
    Some(busy - known).filter(|rest| *rest > 1e-6).unwrap_or(0.0)
}

fn memory_remainder(memory: Memory, shares: &[Share]) -> u64 {
    let known: u64 = shares.iter().filter_map(|share| share.memory_used).sum();
    memory.used.saturating_sub(known)
}

#[cfg(test)]
mod tests;
