//! Which nodes are not needed, since when, and which of them may go now.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use windlass_proto::externalgrpc::NodeGroup;

use super::{
    client::{Answer, tolerate},
    deletion::{Deletion, Deletions},
    flags::Era,
    pass::{Pass, Seen, gpu, wire},
    registry::Registry,
    scale_up::count_quota,
    snapshot::Snapshot,
};
use crate::{replay::cluster::PodView, timestamp::Timestamp};

const SCALE_DOWN_DISABLED: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// `--max-scale-down-parallelism`.
const MOST_AT_ONCE: usize = 10;
/// `--max-drain-parallelism`.
const MOST_DRAINED_AT_ONCE: usize = 1;

/// A node nothing needs.
#[derive(Clone, Debug)]
struct Unneeded {
    since: Timestamp,
    /// 1.35 and newer ask for it when they note the node, older ones when they would remove it. None: the asking failed.
    after: Option<Duration>,
    evict: Vec<PodView>,
}

/// What scale-down remembers between loops.
#[derive(Debug, Default)]
pub(super) struct Planner {
    unneeded: BTreeMap<String, Unneeded>,
    /// Nodes whose pods had nowhere to go, until when they are not looked at again.
    unremovable: BTreeMap<String, Timestamp>,
}

/// A candidate and its group.
struct Candidate<'a> {
    seen: &'a Seen,
    group: NodeGroup,
}

impl Planner {
    /// Forgets every unneeded node.
    pub(super) fn clear(&mut self) {
        self.unneeded.clear();
    }

    /// Finds unneeded nodes and, unless it is too soon after another change, marks those that may go.
    /// Answers whether any was marked.
    pub(super) fn run(
        &mut self,
        pass: &mut Pass,
        registry: &mut Registry,
        deletions: &mut Deletions,
        (snapshot, nodes, cooling): (&Snapshot, &[Seen], bool),
    ) -> Answer<bool> {
        let candidates = candidates(pass, nodes)?;
        self.plan(pass, deletions, snapshot, &candidates)?;
        let skip = match pass.era() {
            Era::V1_27 => cooling || deletions.draining() > 0,
            _ => cooling || candidates.is_empty(),
        };
        if skip {
            return Ok(false);
        }
        if pass.era() >= Era::V1_36 && tolerate(count_quota(pass, snapshot))?.is_none() {
            return Ok(false);
        }
        let removable = self.removable(pass, deletions, &candidates)?;
        let chosen = crop(pass, deletions, removable)?;
        let any = !chosen.is_empty();
        for (candidate, evict) in chosen {
            self.unneeded.remove(&candidate.seen.node.name);
            deletions.start(pass, Deletion::new(&candidate.seen.node, &candidate.group.id, &evict, pass.now));
        }
        if any {
            registry.recalculate(pass)?;
        }
        Ok(any)
    }

    fn plan(
        &mut self,
        pass: &mut Pass,
        deletions: &Deletions,
        snapshot: &Snapshot,
        candidates: &[Candidate],
    ) -> Answer<()> {
        self.unremovable.retain(|_, until| *until > pass.now);
        let mut eligible = Vec::new();
        for candidate in candidates {
            let name = &candidate.seen.node.name;
            if !deletions.holds(name) && !self.unremovable.contains_key(name) && idle(pass, snapshot, candidate)? {
                eligible.push(candidate);
            }
        }
        if pass.era() == Era::V1_27 {
            // The old planner looks at empty nodes first, and asks each of their groups for its size.
            ask_sizes_of_empty(pass, snapshot, &eligible)?;
        }
        let mut future = snapshot.clone();
        let destinations: BTreeSet<String> = snapshot
            .0
            .values()
            .filter(|place| !place.upcoming && !deletions.holds(&place.node.name))
            .map(|place| place.node.name.clone())
            .collect();
        let before = std::mem::take(&mut self.unneeded);
        for candidate in eligible {
            let name = &candidate.seen.node.name;
            let Some(evict) = relocate(&mut future, name, &destinations) else {
                self.unremovable.insert(name.clone(), pass.now + pass.flags().unremovable_recheck);
                continue;
            };
            if pass.era() >= Era::V1_33 {
                // Whether the group scales to zero or its maximum only.
                tolerate(pass.client.options(&candidate.group.id))?;
            }
            let since = before.get(name).map_or(pass.now, |old| old.since);
            let after = if pass.era() >= Era::V1_36 { wait(pass, candidate)? } else { None };
            self.unneeded.insert(name.clone(), Unneeded { since, after, evict });
        }
        Ok(())
    }

    fn removable<'a>(
        &mut self,
        pass: &mut Pass,
        deletions: &Deletions,
        candidates: &'a [Candidate],
    ) -> Answer<Vec<(&'a Candidate<'a>, Vec<PodView>)>> {
        let mut sizes = all_sizes(pass)?;
        let mut removable = Vec::new();
        let mut order: Vec<(&String, &Unneeded)> = self.unneeded.iter().collect();
        order.sort_by_key(|(_, unneeded)| !unneeded.evict.is_empty());
        for (name, unneeded) in order {
            let Some(candidate) = candidates.iter().find(|candidate| candidate.seen.node.name == *name) else {
                continue;
            };
            let after = if pass.era() >= Era::V1_36 { unneeded.after } else { wait(pass, candidate)? };
            let Some(after) = after else { continue };
            if !after.is_zero() && unneeded.since + after >= pass.now {
                continue;
            }
            let Some(size) = sizes.get_mut(&candidate.group.id) else { continue };
            if *size - deletions.count(&candidate.group.id) <= i64::from(candidate.group.min_size) {
                continue;
            }
            *size -= 1;
            removable.push((candidate, unneeded.evict.clone()));
        }
        Ok(removable)
    }
}

/// How long this node must be unneeded.
fn wait(pass: &mut Pass, candidate: &Candidate) -> Answer<Option<Duration>> {
    let options = tolerate(pass.client.options(&candidate.group.id))?;
    Ok(options.map(|options| if candidate.seen.ready { options.unneeded } else { options.unready }))
}

/// Target sizes of all groups that answer.
fn all_sizes(pass: &mut Pass) -> Answer<BTreeMap<String, i64>> {
    let mut sizes = BTreeMap::new();
    for group in pass.client.groups() {
        if let Some(size) = tolerate(pass.client.target_size(&group.id))? {
            sizes.insert(group.id, size);
        }
    }
    Ok(sizes)
}

/// Nodes of groups that are above their minimum.
fn candidates<'a>(pass: &mut Pass, nodes: &'a [Seen]) -> Answer<Vec<Candidate<'a>>> {
    let sizes = all_sizes(pass)?;
    let mut candidates = Vec::new();
    for seen in nodes {
        let Some(group) = tolerate(pass.client.group_of(&wire(&seen.node)))?.flatten() else { continue };
        if sizes.get(&group.id).is_some_and(|size| *size > i64::from(group.min_size)) {
            candidates.push(Candidate { seen, group });
        }
    }
    Ok(candidates)
}

/// Whether requests leave enough of the node unused.
fn idle(pass: &mut Pass, snapshot: &Snapshot, candidate: &Candidate) -> Answer<bool> {
    let node = &candidate.seen.node;
    let Some(place) = snapshot.0.get(&node.name) else { return Ok(false) };
    if candidate.seen.marked() || node.annotations.get(SCALE_DOWN_DISABLED).is_some_and(|value| value == "true") {
        return Ok(false);
    }
    // 1.28 and newer first ask whether DaemonSets count.
    if pass.era() > Era::V1_27 && tolerate(pass.client.options(&candidate.group.id))?.is_none() {
        return Ok(false);
    }
    let label = pass.client.gpu_label();
    let has_gpu = node.labels.contains_key(&label) || gpu(node).is_some();
    let Some(options) = tolerate(pass.client.options(&candidate.group.id))? else { return Ok(false) };
    let share = |resource: &str| {
        let whole = node.allocatable.get(resource).copied().unwrap_or(0);
        let part: u64 = place.pods.iter().filter_map(|pod| pod.requests.get(resource)).sum();
        ratio(part, whole)
    };
    Ok(if has_gpu {
        // A GPU node, by its label or by what is allocatable, is judged by its GPUs alone; one that CA knows no GPU resource of reads as empty.
        gpu(node).map_or(0.0, |(resource, _)| share(resource)) <= options.gpu_utilization
    } else {
        share("cpu").max(share("memory")) <= options.utilization
    })
}

#[expect(clippy::cast_precision_loss, reason = "a share, compared with a threshold")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Finds room for the node's pods on other real nodes and takes the node out of the simulation. None, and nothing changed,
/// where a pod must not be moved or has nowhere to go. DaemonSet pods go with the node.
fn relocate(future: &mut Snapshot, name: &str, destinations: &BTreeSet<String>) -> Option<Vec<PodView>> {
    let moving: Vec<PodView> =
        future.0.get(name)?.pods.iter().filter(|pod| pod.controller.as_deref() != Some("DaemonSet")).cloned().collect();
    if !moving.iter().all(may_move) {
        return None;
    }
    let mut trial = future.clone();
    trial.0.remove(name);
    for pod in &moving {
        let place = trial.0.values_mut().find(|place| destinations.contains(&place.node.name) && place.takes(pod))?;
        place.put(pod.clone());
    }
    *future = trial;
    Some(moving)
}

/// A bare pod is lost when evicted, so it stays unless its owner said otherwise.
fn may_move(pod: &PodView) -> bool {
    match pod.annotations.get(SAFE_TO_EVICT).map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        _ => pod.controller.is_some() && pod.namespace != "kube-system",
    }
}

fn ask_sizes_of_empty(pass: &mut Pass, snapshot: &Snapshot, eligible: &[&Candidate]) -> Answer<()> {
    let empty = |candidate: &&&Candidate| {
        let place = snapshot.0.get(&candidate.seen.node.name);
        place.is_some_and(|place| place.pods.iter().all(|pod| pod.controller.as_deref() == Some("DaemonSet")))
    };
    let groups: BTreeSet<&str> = eligible.iter().filter(empty).map(|candidate| candidate.group.id.as_str()).collect();
    for group in groups {
        tolerate(pass.client.target_size(group))?;
    }
    Ok(())
}

/// At most ten at once, at most one of them drained; and the options that are asked on the way.
fn crop<'a>(
    pass: &mut Pass,
    deletions: &Deletions,
    removable: Vec<(&'a Candidate<'a>, Vec<PodView>)>,
) -> Answer<Vec<(&'a Candidate<'a>, Vec<PodView>)>> {
    let asks = pass.era() > Era::V1_27;
    for (candidate, _) in removable.iter().filter(|_| asks) {
        tolerate(pass.client.options(&candidate.group.id))?;
    }
    let (mut total, mut drained) = (deletions.len(), deletions.draining());
    let mut chosen = Vec::new();
    for (candidate, evict) in removable {
        let drain = usize::from(!evict.is_empty());
        if total < MOST_AT_ONCE && drained + drain <= MOST_DRAINED_AT_ONCE {
            total += 1;
            drained += drain;
            chosen.push((candidate, evict));
        }
    }
    let groups: BTreeSet<&str> = chosen.iter().map(|(candidate, _)| candidate.group.id.as_str()).collect();
    for group in groups {
        if asks {
            tolerate(pass.client.options(group))?;
        } else {
            tolerate(pass.client.target_size(group))?;
        }
    }
    for (candidate, _) in chosen.iter().filter(|_| asks) {
        tolerate(pass.client.options(&candidate.group.id))?;
    }
    Ok(chosen)
}
