//! Attribution on a GPU with MIG: each instance is a device of its own, found by its uuid or ids. Pure.
//! The driver gives no utilization here, so shares have memory only; what no instance's holder has is unattributed.

use std::sync::Arc;

use super::{GpuUse, Measured, Part, Processes, Share};
use crate::gpu::{Gpu, MigInstance, Process};
use crate::pods::{Holders, Owner, Whose};

pub(super) fn attribute(gpu: &Gpu, position: usize, holders: &Holders, processes: &Processes) -> Part {
    let mut part = Part::default();
    let (mut attributed, mut used) = (0_u64, 0_u64);
    for (index, instance) in gpu.mig.iter().flatten().enumerate() {
        let owners = holders.of_instance(&gpu.identity, instance);
        part.rest.holders += owners.len();
        used += instance.memory.map_or(0, |memory| memory.used);
        for owner in &owners {
            let memory_used = match owners.as_slice() {
                [_only] => instance.memory.map(|memory| memory.used),
                _several => measured(gpu, instance, owner, processes).map(|measured| measured.memory),
            };
            attributed += memory_used.unwrap_or(0);
            part.shares.push(Share {
                owner: Arc::clone(owner),
                gpu: position,
                instance: Some(index),
                held: true,
                utilization: None,
                memory_used,
                memory_total: instance.memory.map(|memory| memory.total),
                energy: None,
            });
        }
    }
    // The parent tells its aggregate only to the privileged; the instances' sum is what everybody may know.
    let used = gpu.memory.map_or(used, |memory| memory.used);
    part.rest = GpuUse { unattributed_memory: Some(used.saturating_sub(attributed)), ..part.rest };
    part
}

/// The memory of one owner's processes in an instance that several share.
fn measured(gpu: &Gpu, instance: &MigInstance, owner: &Arc<Owner>, processes: &Processes) -> Option<Measured> {
    let inside = |process: &&Process| {
        process.gpu_instance == instance.gpu_instance
            && (instance.compute_instance.is_none() || process.compute_instance == instance.compute_instance)
    };
    let list = gpu.processes.as_ref()?;
    let mut sum = Measured::default();
    let mut nameless = false;
    for process in list.iter().filter(inside) {
        match processes.get(&process.pid) {
            Some(Whose::Container(whose)) if whose == owner => sum.memory += process.memory.unwrap_or(0),
            Some(Whose::Container(_) | Whose::Host | Whose::MpsServer) => {}
            Some(Whose::Unknown) | None => nameless = true,
        }
    }
    (sum.memory > 0 || !nameless).then_some(sum)
}
