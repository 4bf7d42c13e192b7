//! Which MIG instance a claimed device is: claims name it by GPU, profile and place, the driver by ids and uuid. Pure.
//! Matched by place where the driver tells it; else by being the only one, or by whose processes are inside. Never by order.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attribution::Processes;
use crate::gpu::{Gpu, MigInstance};
use crate::pods::{Holders, Owner, Whose};

/// The holders by claim of each instance, in the instances' order; nothing at all where nothing is claimed.
pub(super) fn holders(
    gpu: &Gpu,
    instances: &[MigInstance],
    holders: &Holders,
    processes: &Processes,
) -> Vec<Vec<Arc<Owner>>> {
    if !holders.has_claims() {
        return Vec::new();
    }
    let mut found = vec![Vec::new(); instances.len()];
    let mut by_profile: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, instance) in instances.iter().enumerate() {
        by_profile.entry(&instance.profile).or_default().push(at);
    }
    for (profile, mut places) in by_profile {
        let mut claims = holders.of_partitions(&gpu.identity, profile);
        if claims.is_empty() {
            continue;
        }
        let by_place = |at: usize, claims: &[(u32, &[Arc<Owner>])]| {
            let placement = instances.get(at)?.placement?;
            claims.iter().position(|(claimed, _)| *claimed == placement)
        };
        settle(&mut places, &mut claims, &mut found, by_place);
        let inside = |at: usize, claims: &[(u32, &[Arc<Owner>])]| {
            let owners = inside(gpu, instances.get(at)?, processes);
            let mut fitting = claims
                .iter()
                .enumerate()
                .filter(|(_, (_, holders))| holders.iter().any(|holder| owners.contains(&holder)));
            let (first, _) = fitting.next()?;
            fitting.next().is_none().then_some(first)
        };
        settle(&mut places, &mut claims, &mut found, inside);
        let unplaced = |at: usize| instances.get(at).is_some_and(|instance| instance.placement.is_none());
        if let ([at], [(_, owners)]) = (places.as_slice(), claims.as_slice())
            && unplaced(*at)
            && let Some(found) = found.get_mut(*at)
        {
            found.extend(owners.iter().cloned());
        }
    }
    found
}

/// Takes every instance and claim that a rule brings together out of the two lists.
fn settle<'a>(
    places: &mut Vec<usize>,
    claims: &mut Vec<(u32, &'a [Arc<Owner>])>,
    found: &mut [Vec<Arc<Owner>>],
    rule: impl Fn(usize, &[(u32, &'a [Arc<Owner>])]) -> Option<usize>,
) {
    places.retain(|&at| {
        let Some(claim) = rule(at, claims) else { return true };
        let (_, owners) = claims.remove(claim);
        if let Some(found) = found.get_mut(at) {
            found.extend(owners.iter().cloned());
        }
        false
    });
}

/// The containers with a process in an instance.
fn inside<'p>(gpu: &Gpu, instance: &MigInstance, processes: &'p Processes) -> Vec<&'p Arc<Owner>> {
    let list = gpu.processes.iter().flatten();
    let inside =
        list.filter(|process| instance.gpu_instance.is_some() && process.gpu_instance == instance.gpu_instance);
    inside
        .filter_map(|process| match processes.get(&process.pid) {
            Some(Whose::Container(owner)) => Some(owner),
            _ => None,
        })
        .collect()
}
