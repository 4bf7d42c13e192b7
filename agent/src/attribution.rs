//! Who used what: a reading and the kubelet's holders in, shares per container and the unattributed rest out. Pure.
//! Measured use goes to whom it was measured for; what cannot be told apart stays unattributed and is never spread.
//!
//! - One holder: the device's whole use is the holder's, less what is measured for processes that are certainly not its own.
//! - Several holders (time-slicing, MPS): each has the SM time and memory of its own processes. What the driver books on MPS's server was done for
//!   its clients and counts as theirs.
//! - A MIG GPU instance is a device of its own, in percent of the instance. The driver measures it as a whole (GPM, Hopper and newer) and tells no
//!   process apart: where more than one container is inside, its use stays unattributed and only memory is split.
//! - A container that uses a GPU which the kubelet did not give it (a plugin with ids of its own, an init container, a privileged pod) has its
//!   measured use.
//! - A holder without a process is idle: an explicit 0. But where a busy process could not be named, nobody's 0 is certain, and it is absent.
//!
//! Whatever the reading, the shares of a device and its rest add up to what the device used.

pub mod totals;

mod divide;
mod instances;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::divide::{Device, Piece, divide};
use crate::gpu::{Gpu, Reading};
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
    /// Percent of the GPU's time that no container is known to have used. Absent with MIG, where instances have it.
    pub unattributed_utilization: Option<f64>,
    /// Bytes that no container is known to hold.
    pub unattributed_memory: Option<u64>,
    /// Busy processes that could not be named.
    pub unknown_processes: usize,
    /// The same for each MIG instance, in the order of [`Gpu::mig`].
    pub instances: Vec<InstanceUse>,
}

/// What of a MIG instance belongs to nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct InstanceUse {
    /// Percent of the instance that was used.
    pub utilization: Option<f64>,
    /// Percent of the instance that no container is known to have used.
    pub unattributed_utilization: Option<f64>,
    /// Bytes that no container is known to hold.
    pub unattributed_memory: Option<u64>,
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
    /// Percent of the device's time, 0 to 100; with MIG, of the instance.
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

/// A GPU without MIG.
fn whole(gpu: &Gpu, position: usize, holders: Vec<Arc<Owner>>, processes: &Processes) -> Part {
    let device = Device {
        busy: gpu.utilization,
        memory: gpu.memory.map(|memory| memory.used),
        contexts: gpu.processes.as_ref().map(|list| list.iter().collect()),
        used: gpu.process_utilization.as_deref(),
    };
    let count = holders.len();
    let divided = divide(&device, &holders, processes);
    let memory_total = gpu.memory.map(|memory| memory.total);
    let share = |piece: Piece| Share {
        owner: piece.owner,
        gpu: position,
        instance: None,
        held: piece.held,
        utilization: piece.utilization,
        memory_used: piece.memory,
        memory_total,
        energy: None,
    };
    let mut shares: Vec<Share> = divided.pieces.into_iter().map(share).collect();
    split_energy(&mut shares, count == 1, divided.host, gpu.utilization);
    let rest = GpuUse {
        holders: count,
        unattributed_utilization: divided.rest_utilization,
        unattributed_memory: divided.rest_memory,
        unknown_processes: divided.unknown_busy,
        ..GpuUse::default()
    };
    Part { shares, rest }
}

/// Energy of a GPU with one holder is the holder's even when it idles, less what others are known to have used of it; several share it by their
/// parts of the device's time, and idle energy is nobody's. `host` is the node's own time, `busy` the device's.
fn split_energy(shares: &mut [Share], alone: bool, host: f64, busy: Option<f64>) {
    for share in shares.iter_mut() {
        share.energy = share.utilization.zip(busy).map(|(used, busy)| part(used, busy));
    }
    if alone {
        let strangers: f64 = shares.iter().filter(|share| !share.held).filter_map(|share| share.energy).sum();
        for holder in shares.iter_mut().filter(|share| share.held) {
            let host = busy.map_or(0.0, |busy| part(host, busy));
            holder.energy = Some((1.0 - strangers - host).clamp(0.0, 1.0));
        }
    }
}

/// A part of a whole, 0 to 1.
fn part(of: f64, whole: f64) -> f64 {
    if whole > 0.0 { (of / whole).clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests;
