//! The cluster as one loop simulates it: real nodes and placeholders for those on their way, with pods placed and free room kept.

use std::collections::{BTreeMap, BTreeSet};

use super::pass::{Pass, Seen, upcoming};
use crate::replay::cluster::{Cluster, NodeView, PodView, Resources, admits, room, take};

/// A node in the simulation.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) node: NodeView,
    pub(super) free: Resources,
    pub(super) pods: Vec<PodView>,
    /// A placeholder: bought, not ready yet.
    pub(super) upcoming: bool,
}

impl Place {
    pub(super) fn takes(&self, pod: &PodView) -> bool {
        admits(&self.node, pod) && room(&self.free, &pod.requests)
    }

    pub(super) fn put(&mut self, pod: PodView) {
        take(&mut self.free, &pod.requests);
        self.pods.push(pod);
    }
}

/// Nodes by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot(pub(super) BTreeMap<String, Place>);

impl Snapshot {
    /// Real nodes except those that placeholders stand for, and the placeholders.
    pub(super) fn new(
        cluster: &Cluster,
        nodes: &[Seen],
        counts: &BTreeMap<String, i64>,
        standing_in: &BTreeSet<String>,
        pass: &Pass,
    ) -> Self {
        let mut places = BTreeMap::new();
        for seen in nodes.iter().filter(|seen| !standing_in.contains(&seen.node.name)) {
            let pods: Vec<PodView> = cluster.pods_on(&seen.node.name).cloned().collect();
            let free = cluster.free(&seen.node);
            places.insert(seen.node.name.clone(), Place { node: seen.node.clone(), free, pods, upcoming: false });
        }
        for (group, count) in counts {
            let Some(template) = pass.templates.get(group) else { continue };
            for number in 0..*count {
                let node = upcoming(template, group, number);
                let free = node.allocatable.clone();
                places.insert(node.name.clone(), Place { node, free, pods: Vec::new(), upcoming: true });
            }
        }
        Self(places)
    }

    /// Puts a pod on the first node that takes it.
    pub(super) fn schedule(&mut self, pod: &PodView) -> bool {
        let place = self.0.values_mut().find(|place| place.takes(pod));
        place.map(|place| place.put(pod.clone())).is_some()
    }
}
