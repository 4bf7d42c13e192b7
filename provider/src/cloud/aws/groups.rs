//! An Auto Scaling group as AWS describes it, in our words.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_autoscaling::types::{AutoScalingGroup, InstancesDistribution};

use super::{GPU_LABEL, discovery::Ours, states, tags, template, types};
use crate::{
    cloud::Listed,
    fleet::{
        group::{Group, GroupId, InstanceId, InstanceState, Market},
        template::Dialect,
    },
};

/// What a listing is read with.
pub(super) struct View<'a> {
    pub(super) ours: &'a Ours,
    pub(super) facts: &'a template::Facts,
    pub(super) region: &'a str,
    /// The CNI hands out prefixes.
    pub(super) prefixes: bool,
}

/// The group and its machines; None for one without a name.
pub(super) fn listed(asg: &AutoScalingGroup, view: &View<'_>) -> Option<Listed> {
    let id = asg.auto_scaling_group_name.clone()?;
    let own = tags::describe(asg.tags().iter().filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or("")))));
    let told = own.labels.get("node.kubernetes.io/instance-type").cloned();
    let machine = template::machine(asg, view.facts, told.as_deref(), view.prefixes);
    // A node group's tags stand over those of its Auto Scaling group, which EKS does not carry over.
    let described = own.under(tags::describe(machine.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()))));
    let mut shape = machine.shape.unwrap_or_else(|| types::unknown(told.as_deref().unwrap_or_default()));
    described.reshape(&mut shape);
    if machine.unread {
        shape = types::unknown(&shape.instance_type);
    }
    let mut labels = machine.labels;
    labels.extend(described.labels);
    let mut taints = machine.taints;
    taints.retain(|taint| !described.taints.iter().any(|it| (&it.key, &it.effect) == (&taint.key, &taint.effect)));
    taints.extend(described.taints);
    let named = view.ours.named(&id);
    let mut group = Group {
        min: named.and_then(|named| named.min).unwrap_or_else(|| bound(asg.min_size)),
        max: named.and_then(|named| named.max).unwrap_or_else(|| bound(asg.max_size)),
        id: id.into(),
        market: market(asg, &labels, machine.market),
        region: view.region.to_owned(),
        zones: zones(asg),
        shape,
        labels,
        taints,
        price_micros: None,
        price_origin: None,
        overrides: described.overrides,
        warnings: described.warnings,
    };
    group.warnings.extend(machine.warnings);
    group.warnings.extend(warnings(asg, &group, machine.unread));
    labelled_model(&mut group);
    let suspended = |process| asg.suspended_processes().iter().any(|it| it.process_name() == Some(process));
    let replaces = !suspended("ReplaceUnhealthy") && !suspended("Terminate");
    let instances: Vec<_> = asg.instances().iter().filter_map(|it| states::instance(it, replaces)).collect();
    if group.min > group.max {
        // No guess which of the two is meant: the group stays as it is.
        group.min = u32::try_from(instances.len()).unwrap_or(u32::MAX);
        group.max = group.min;
    }
    Some(Listed::new(group, instances))
}

fn bound(size: Option<i32>) -> u32 {
    size.and_then(|size| u32::try_from(size).ok()).unwrap_or(0)
}

fn zones(asg: &AutoScalingGroup) -> Vec<String> {
    let mut zones = asg.availability_zones().to_vec();
    zones.sort_unstable();
    zones
}

fn distribution(asg: &AutoScalingGroup) -> Option<&InstancesDistribution> {
    asg.mixed_instances_policy()?.instances_distribution()
}

/// As the nodes' labels say; else spot when a mixed policy leaves nothing to on-demand, or the launch template asks for
/// it.
fn market(asg: &AutoScalingGroup, labels: &BTreeMap<String, String>, launched: Option<Market>) -> Market {
    let all_spot = |it: &InstancesDistribution| {
        it.on_demand_base_capacity().unwrap_or(0) == 0 && it.on_demand_percentage_above_base_capacity() == Some(0)
    };
    let distributed = || distribution(asg).map(|it| if all_spot(it) { Market::Spot } else { Market::OnDemand });
    Dialect::market(labels).or_else(distributed).or(launched).unwrap_or(Market::OnDemand)
}

/// What a person should know of this group.
fn warnings(asg: &AutoScalingGroup, group: &Group, unread: bool) -> Vec<String> {
    let shape = &group.shape;
    let unknown = shape.cpu_milli == 0 || shape.memory == 0 || shape.pods == 0;
    let beyond = group.max > bound(asg.max_size) || group.min < bound(asg.min_size);
    let rows = [
        (
            shape.instance_type.is_empty(),
            "its instance type is not known: tag it with k8s.io/cluster-autoscaler/node-template/label/node.kubernetes.io/instance-type",
        ),
        (
            unknown && !unread,
            "its capacity is not known: tag it with k8s.io/cluster-autoscaler/node-template/resources/{cpu,memory,pods}",
        ),
        (group.zones.is_empty(), "it has no Availability Zone"),
        (
            group.min > group.max,
            "its minimum is above its maximum: it is left as it is, and neither scaled up nor down",
        ),
        (beyond, "its bounds in the configuration are wider than those of its Auto Scaling group, which AWS keeps to"),
        (
            Dialect::aws().lacks_gpu_label(group),
            "nothing says that its nodes carry k8s.amazonaws.com/accelerator at registration (a label in the node group, the user data or a tag): a node without it is bought twice",
        ),
    ];
    let told = rows.into_iter().filter(|(is, _)| *is).map(|(_, text)| text.to_owned());
    told.chain(several_zones(group)).collect()
}

/// CA is shown one node for the whole group, and a node is in one zone.
fn several_zones(group: &Group) -> Option<String> {
    (group.zones.len() > 1).then(|| {
        format!(
            "its machines come up in {}, and the autoscaler is shown one in the zone that is asked first: the first that did not refuse lately. A pod bound to another zone does not make it grow; one group for each zone is best",
            group.zones.join(", ")
        )
    })
}

/// The GPU model is the value of the label, where someone tells it.
fn labelled_model(group: &mut Group) {
    if let (Some(gpus), Some(model)) = (&mut group.shape.gpus, group.labels.get(GPU_LABEL)) {
        gpus.model.clone_from(model);
    }
}

/// A machine is one group's alone. While it moves from one to another AWS may name both: it stays with the one that does
/// not let it go, and both say so.
pub(super) fn apart(listing: &mut [Listed]) {
    let mut claims: HashMap<InstanceId, Vec<(usize, InstanceState)>> = HashMap::new();
    for (at, listed) in listing.iter().enumerate() {
        for instance in &listed.instances {
            claims.entry(instance.id.clone()).or_default().push((at, instance.state));
        }
    }
    claims.retain(|_, claims| claims.len() > 1);
    let mut claims: Vec<_> = claims.into_iter().collect();
    claims.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (id, claims) in claims {
        let Some(keeper) = claims.iter().find(|(_, state)| *state != InstanceState::Deleting).or(claims.first()) else {
            continue;
        };
        let names: Vec<GroupId> =
            claims.iter().filter_map(|(at, _)| listing.get(*at)).map(|it| it.group.id.clone()).collect();
        for (at, _) in &claims {
            let Some(listed) = listing.get_mut(*at) else { continue };
            let others: Vec<&str> = names.iter().filter(|it| **it != listed.group.id).map(GroupId::as_str).collect();
            listed.group.warnings.push(format!("machine {id} is claimed by {}, too", others.join(" and ")));
            if *at != keeper.0 {
                listed.instances.retain(|instance| instance.id != id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
