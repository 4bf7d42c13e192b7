//! Attribution on a GPU with MIG: each GPU instance is a device of its own, found by its uuid, ids or place. Pure.
//! Compute instances of one GPU instance share its memory and its measurement, so that they are divided together.

mod claims;

use std::sync::Arc;

use super::divide::{Device, Piece, divide};
use super::{InstanceUse, Part, Processes, Share, part};
use crate::gpu::{Gpu, MigInstance};
use crate::pods::{Holders, Owner};

/// A GPU instance: the positions of its MIG devices, and who holds one of them.
#[derive(Debug, Default)]
struct Group {
    id: Option<u32>,
    positions: Vec<usize>,
    /// In order of name.
    holders: Vec<Arc<Owner>>,
    /// The position that each of them holds.
    places: Vec<usize>,
}

impl Group {
    fn add(&mut self, owner: Arc<Owner>, position: usize) {
        if let Err(at) = self.holders.binary_search(&owner) {
            self.holders.insert(at, owner);
            self.places.insert(at, position);
        }
    }

    /// Where a container is shown; a stranger, where the first compute instance is.
    fn place(&self, owner: &Arc<Owner>) -> usize {
        let first = self.positions.first().copied().unwrap_or_default();
        if self.positions.len() < 2 {
            return first;
        }
        self.holders.binary_search(owner).ok().and_then(|at| self.places.get(at).copied()).unwrap_or(first)
    }
}

pub(super) fn attribute(gpu: &Gpu, position: usize, holders: &Holders, processes: &Processes) -> Part {
    let instances = gpu.mig.as_deref().unwrap_or_default();
    let claimed = claims::holders(gpu, instances, holders, processes);
    let mut part = Part::default();
    part.rest.instances = vec![InstanceUse::default(); instances.len()];
    let mut times: Vec<Option<f64>> = Vec::new();
    for group in groups(gpu, instances, holders, &claimed) {
        let Some(first) = group.positions.first().and_then(|at| instances.get(*at)) else { continue };
        let device = device(gpu, first);
        let divided = divide(&device, &group.holders, processes);
        part.rest.holders += group.holders.len();
        part.rest.unknown_processes += divided.unknown_busy;
        times.push(device.busy.map(|busy| slices(&first.profile) as f64 * busy));
        part.shares.extend(divided.pieces.into_iter().map(|piece| share(gpu, position, &group, piece)));
        for &at in &group.positions {
            if let Some(rest) = part.rest.instances.get_mut(at) {
                *rest = InstanceUse {
                    utilization: device.busy,
                    unattributed_utilization: divided.rest_utilization,
                    unattributed_memory: divided.rest_memory,
                };
            }
        }
    }
    // Those of an instance come out of one group, in order of name.
    part.shares.sort_by_key(|share| share.instance);
    split_energy(&mut part.shares, instances, &times);
    // The parent tells its aggregate only to the privileged; the instances' sum is what everybody may know.
    let inside: Option<u64> = first_of_each(instances).map(|instance| Some(instance.memory?.used)).sum();
    let attributed: u64 = part.shares.iter().filter_map(|share| share.memory_used).sum();
    let used = gpu.memory.map(|memory| memory.used).or(inside).filter(|_| gpu.up);
    part.rest.unattributed_memory = used.map(|used| used.saturating_sub(attributed));
    part
}

/// The instances as divided: those that share a GPU instance together.
fn groups(gpu: &Gpu, instances: &[MigInstance], holders: &Holders, claimed: &[Vec<Arc<Owner>>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(instances.len());
    for (at, instance) in instances.iter().enumerate() {
        let mut owners = holders.of_instance(&gpu.identity, instance);
        // One without an id stands for itself.
        let known = groups.iter_mut().find(|group| group.id.is_some() && group.id == instance.gpu_instance);
        let group = match known {
            Some(group) => group,
            None => {
                let places = vec![at; owners.len()];
                let holders = std::mem::take(&mut owners);
                groups.push_mut(Group { id: instance.gpu_instance, positions: Vec::new(), holders, places })
            }
        };
        group.positions.push(at);
        let by_claim = claimed.get(at).into_iter().flatten().cloned();
        owners.into_iter().chain(by_claim).for_each(|owner| group.add(owner, at));
    }
    groups
}

fn device<'a>(gpu: &'a Gpu, instance: &MigInstance) -> Device<'a> {
    let inside = |list: &'a Vec<crate::gpu::Process>| {
        list.iter().filter(|process| process.gpu_instance == instance.gpu_instance).collect()
    };
    Device {
        busy: utilization(instance),
        memory: instance.memory.map(|memory| memory.used),
        contexts: gpu.processes.as_ref().map(inside),
        used: None,
    }
}

/// How busy an instance was, in percent of the instance: the SMs' time. The engine's time, which the driver counts against the whole GPU (it ends
/// at 50 on half of one), is no measure of an instance.
fn utilization(instance: &MigInstance) -> Option<f64> {
    instance.gpm.as_ref()?.sm_active.map(|percent| percent.clamp(0.0, 100.0))
}

fn share(gpu: &Gpu, position: usize, group: &Group, piece: Piece) -> Share {
    let at = group.place(&piece.owner);
    let instance = gpu.mig.as_ref().and_then(|instances| instances.get(at));
    Share {
        owner: piece.owner,
        gpu: position,
        instance: Some(at),
        held: piece.held,
        utilization: piece.utilization,
        memory_used: piece.memory,
        memory_total: instance.and_then(|instance| Some(instance.memory?.total)),
        energy: None,
    }
}

/// Energy goes by measured time and size: a busy instance of three slices has three times that of one slice. Idle energy is nobody's,
/// and so is all of it while what one of the instances did is not known.
fn split_energy(shares: &mut [Share], instances: &[MigInstance], times: &[Option<f64>]) {
    let whole: Option<f64> = times.iter().copied().sum();
    for share in shares {
        let size = share.instance.and_then(|at| instances.get(at)).map_or(0, |instance| slices(&instance.profile));
        share.energy = share.utilization.zip(whole).map(|(used, whole)| part(size as f64 * used, whole));
    }
}

/// Compute slices of the GPU instance: the n of `ng`, in `1c.3g.40gb` too.
fn slices(profile: &str) -> usize {
    profile.split('.').find_map(|word| word.strip_suffix('g')?.parse().ok()).unwrap_or(1)
}

/// One MIG device of each GPU instance.
fn first_of_each(instances: &[MigInstance]) -> impl Iterator<Item = &MigInstance> {
    instances.iter().enumerate().filter_map(|(at, instance)| {
        let before = instances.get(..at).unwrap_or_default();
        let again = |other: &MigInstance| other.gpu_instance.is_some() && other.gpu_instance == instance.gpu_instance;
        (!before.iter().any(again)).then_some(instance)
    })
}

#[cfg(test)]
mod tests;
