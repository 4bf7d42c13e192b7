//! What a loop mends before it scales: instances that never registered, instances that could not be made, and target sizes that
//! have been wrong for long.

use std::collections::BTreeMap;

use windlass_proto::externalgrpc::NodeGroup;

use super::{
    client::{Answer, Trouble, tolerate},
    flags::Era,
    pass::{Pass, fake},
    registry::Registry,
};

/// Deletes instances that had their time to register.
pub(super) fn delete_long_unregistered(pass: &mut Pass, registry: &mut Registry) -> Answer<()> {
    let mut old: BTreeMap<String, (NodeGroup, Vec<String>)> = BTreeMap::new();
    for (id, since) in registry.unregistered.clone() {
        let Some(group) = tolerate(pass.client.group_of(&fake(&id, "unregistered")))?.flatten() else { continue };
        let Some(options) = tolerate(pass.client.options(&group.id))? else { return Ok(()) };
        if since + options.provision >= pass.now {
            continue;
        }
        if pass.era() == Era::V1_27 {
            // One at a time, as they are found.
            if !delete_group_of(pass, registry, &group, vec![id])? {
                return Ok(());
            }
        } else {
            old.entry(group.id.clone()).or_insert_with(|| (group, Vec::new())).1.push(id);
        }
    }
    for (group, ids) in old.into_values() {
        if !delete_group_of(pass, registry, &group, ids)? {
            return Ok(());
        }
    }
    Ok(())
}

/// As many as the group's minimum allows. False: the provider would not, and nothing more is tried in this loop.
fn delete_group_of(pass: &mut Pass, registry: &mut Registry, group: &NodeGroup, mut ids: Vec<String>) -> Answer<bool> {
    let Some(size) = tolerate(pass.client.target_size(&group.id))? else { return Ok(true) };
    let spare = usize::try_from(size - i64::from(group.min_size)).unwrap_or(0);
    ids.truncate(spare);
    if ids.is_empty() {
        return Ok(true);
    }
    if pass.era() > Era::V1_27 && tolerate(pass.client.options(&group.id))?.is_none() {
        return Ok(true);
    }
    let nodes = ids.iter().map(|id| fake(id, "unregistered")).collect();
    let answer = pass.client.delete(&group.id, nodes);
    registry.invalidate(&group.id);
    let (reason, done) = match answer {
        Ok(()) => ("DeleteUnregistered", true),
        Err(Trouble::Failed(_)) => ("DeleteUnregisteredFailed", false),
        Err(crash) => return Err(crash),
    };
    for id in ids {
        pass.event(reason, &group.id, format!("instance {id} never registered"));
    }
    Ok(done)
}

/// Deletes instances that could not be made. Answers whether any was deleted.
pub(super) fn delete_failed(pass: &mut Pass, registry: &mut Registry) -> Answer<bool> {
    let mut any = false;
    for (group, ids) in registry.failed_instances() {
        if pass.era() <= Era::V1_29 {
            for id in &ids {
                tolerate(pass.client.group_of(&fake(id, "create-error")))?;
            }
        }
        if pass.era() > Era::V1_27 && tolerate(pass.client.options(&group))?.is_none() {
            continue;
        }
        let nodes = ids.iter().map(|id| fake(id, "create-error")).collect();
        if tolerate(pass.client.delete(&group, nodes))?.is_some() {
            any = true;
            registry.invalidate(&group);
        }
    }
    if any && pass.era() >= Era::V1_33 {
        registry.recalculate(pass)?;
    }
    Ok(any)
}

/// Lowers target sizes that had fewer nodes than they should for longer than a node may take. Answers whether any was.
pub(super) fn fix_sizes(pass: &mut Pass, registry: &Registry) -> Answer<bool> {
    let mut fixed = false;
    for group in pass.client.groups() {
        let Some(incorrect) = registry.incorrect.get(&group.id) else { continue };
        let options = pass.client.options(&group.id)?;
        let delta = incorrect.current - incorrect.expected;
        if incorrect.since + options.provision < pass.now && delta < 0 {
            pass.client.decrease(&group.id, delta)?;
            fixed = true;
        }
    }
    Ok(fixed)
}
