//! Which groups could help the waiting pods, by how many nodes, and buying from the one chosen.

use std::collections::BTreeSet;

use windlass_proto::externalgrpc::NodeGroup;

use super::{
    choice::{Choice, choose},
    client::{Answer, Trouble, tolerate},
    estimator::{estimate, fits_empty},
    flags::Era,
    pass::{Pass, gpu, wire},
    registry::Registry,
    snapshot::Snapshot,
};
use crate::replay::cluster::PodView;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No group can help, or the expander wants none.
    NoOptions,
    /// A group was grown.
    Done,
    /// The provider would not.
    Failed,
}

/// Helps these pods by one purchase.
pub(super) fn scale_up(
    pass: &mut Pass,
    registry: &mut Registry,
    snapshot: &Snapshot,
    pods: &[PodView],
) -> Answer<Outcome> {
    if pass.era() >= Era::V1_36 {
        count_quota(pass, snapshot)?;
    } else if tolerate(pass.client.target_sizes())?.is_none() {
        return Ok(Outcome::Failed);
    }
    let groups = usable_groups(pass, registry)?;
    let options = options(pass, &groups, pods)?;
    if options.is_empty() {
        return Ok(Outcome::NoOptions);
    }
    let Some(best) = choose(pass, options, snapshot.0.values().filter(|place| !place.upcoming).count())? else {
        return Ok(Outcome::NoOptions);
    };
    let Some(group) = groups.iter().find(|group| group.id == best.group) else {
        return Ok(Outcome::NoOptions);
    };
    buy(pass, registry, group, &best)
}

/// From 1.35 on the quota is counted over every node, placeholders included: each is looked up, and a labelled node
/// without GPUs is counted by its group's template, which is asked for anew once per group.
pub(super) fn count_quota(pass: &mut Pass, snapshot: &Snapshot) -> Answer<()> {
    let label = if snapshot.0.is_empty() { String::new() } else { pass.client.gpu_label() };
    let mut counted = BTreeSet::new();
    for place in snapshot.0.values() {
        let group = pass.client.group_of(&wire(&place.node))?;
        let labelled = place.node.labels.contains_key(&label);
        let Some(group) = group else { continue };
        if counted.insert(group.id.clone()) && labelled && gpu(&place.node).is_none() {
            pass.client.template(&format!("node {}", place.node.name), &group.id)?;
        }
    }
    Ok(())
}

fn usable_groups(pass: &mut Pass, registry: &Registry) -> Answer<Vec<NodeGroup>> {
    let mut usable = Vec::new();
    for group in pass.client.groups() {
        if !registry.group_healthy(&group.id, pass) || registry.backoff.holds(&group.id, pass.now) {
            continue;
        }
        let Some(size) = tolerate(pass.client.target_size(&group.id))? else { continue };
        if size >= i64::from(group.max_size) {
            continue;
        }
        if pass.era() > Era::V1_27 {
            tolerate(pass.client.options(&group.id))?;
        }
        if !pass.templates.contains_key(&group.id) {
            continue;
        }
        if pass.era() >= Era::V1_36 {
            pass.client.gpu_label();
        }
        usable.push(group);
    }
    Ok(usable)
}

fn options(pass: &mut Pass, groups: &[NodeGroup], pods: &[PodView]) -> Answer<Vec<Choice>> {
    let mut options = Vec::new();
    for group in groups {
        let Some(template) = pass.templates.get(&group.id).cloned() else { continue };
        let fitting: Vec<PodView> = pods.iter().filter(|pod| fits_empty(pod, &template)).cloned().collect();
        if fitting.is_empty() {
            continue;
        }
        let mut limit = i64::from(pass.flags().max_nodes_per_scale_up);
        let mut whole = false;
        if pass.era() > Era::V1_27 {
            let size = tolerate(pass.client.target_size(&group.id))?.unwrap_or(0);
            limit = limit.min(i64::from(group.max_size) - size);
            whole = tolerate(pass.client.options(&group.id))?.is_some_and(|options| options.zero_or_max);
        }
        let (nodes, helped) = estimate(&fitting, &template, limit);
        if nodes > 0 && !helped.is_empty() {
            let nodes = if whole { i64::from(group.max_size) } else { nodes };
            options.push(Choice { group: group.id.clone(), nodes, pods: helped });
        }
    }
    Ok(options)
}

fn buy(pass: &mut Pass, registry: &mut Registry, group: &NodeGroup, best: &Choice) -> Answer<Outcome> {
    let Some(size) = tolerate(pass.client.target_size(&group.id))? else { return Ok(Outcome::Failed) };
    let delta = best.nodes.min(i64::from(group.max_size) - size);
    if delta <= 0 {
        return Ok(Outcome::NoOptions);
    }
    pass.client.gpu_types();
    pass.client.gpu_label();
    match pass.client.increase(&group.id, delta) {
        Ok(()) => {}
        Err(Trouble::Failed(failure)) => {
            pass.event("FailedToScaleUpGroup", &group.id, failure.to_string());
            registry.fail(pass, &group.id);
            return Ok(Outcome::Failed);
        }
        Err(crash) => return Err(crash),
    }
    registry.register_scale_up(pass, &group.id, delta)?;
    let sizes = format!("group {} size set to {} instead of {size} (max: {})", group.id, size + delta, group.max_size);
    pass.event("ScaledUpGroup", &group.id, sizes);
    for pod in &best.pods {
        let about = format!("{}/{}", pod.namespace, pod.name);
        pass.event("TriggeredScaleUp", &about, format!("{} {size}->{}", group.id, size + delta));
    }
    registry.recalculate(pass)?;
    Ok(Outcome::Done)
}
