//! A Kubernetes cluster as plain values: nodes, pods, what fits where.
//! The scheduler in it is a toy: it binds each pending pod to the first node that can take it.

use std::collections::BTreeMap;

use windlass_proto::core;

use crate::timestamp::Timestamp;

mod convert;
mod fit;

/// Amounts by resource name: `cpu` in thousandths, everything else in whole units (bytes, pods, GPUs).
pub type Resources = BTreeMap<String, u64>;

/// Nodes by name and pods by uid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Every Node object.
    pub nodes: BTreeMap<String, NodeView>,
    /// Every pod that is not finished.
    pub pods: BTreeMap<String, PodView>,
}

/// A Node object, as far as scaling decisions read it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// `metadata.name`.
    pub name: String,
    /// `spec.providerID`: equals the id of the instance behind it.
    pub provider_id: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.taints`.
    pub taints: Vec<core::Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `status.capacity`.
    pub capacity: Resources,
    /// `status.allocatable`: what pods may use. GPUs are missing from it until their device plugin has registered.
    pub allocatable: Resources,
    /// Whether the Ready condition is True.
    pub ready: bool,
    /// `metadata.creationTimestamp`.
    pub created_at: Timestamp,
    /// When the Ready condition last changed.
    pub ready_since: Timestamp,
}

/// A pod, as far as scaling decisions read it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// What it asks for: the sum over containers, or the largest init container where that is more, plus overhead.
    pub requests: Resources,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.nodeSelector`.
    pub selector: BTreeMap<String, String>,
    /// Required node affinity: one term must hold.
    pub affinity: Vec<core::NodeSelectorTerm>,
    /// `spec.tolerations`.
    pub tolerations: Vec<core::Toleration>,
    /// `spec.nodeName`; None while it waits.
    pub node: Option<String>,
    /// Kind of the controlling owner: `ReplicaSet`, `DaemonSet`, …; None for a bare pod.
    pub controller: Option<String>,
    /// uid of the controlling owner: pods of one owner are judged together.
    pub controller_uid: Option<String>,
    /// `metadata.creationTimestamp`.
    pub created_at: Timestamp,
}

impl Cluster {
    /// Adds a node or replaces the one of its name.
    pub fn add_node(&mut self, node: NodeView) {
        self.nodes.insert(node.name.clone(), node);
    }

    /// Removes a node. Its pods that have a controller go back to waiting (their controller makes them anew); bare pods and
    /// those of a DaemonSet are gone with it.
    pub fn remove_node(&mut self, name: &str) -> Option<NodeView> {
        let node = self.nodes.remove(name)?;
        self.pods.retain(|_, pod| {
            if pod.node.as_deref() != Some(name) {
                return true;
            }
            pod.node = None;
            pod.controller.as_deref().is_some_and(|kind| kind != "DaemonSet")
        });
        Some(node)
    }

    /// Adds a pod or replaces the one of its uid.
    pub fn add_pod(&mut self, pod: PodView) {
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// The node whose `spec.providerID` this is.
    #[must_use]
    pub fn node_of(&self, provider_id: &str) -> Option<&NodeView> {
        self.nodes.values().find(|node| node.provider_id == provider_id)
    }

    /// The same, to be changed.
    pub fn node_of_mut(&mut self, provider_id: &str) -> Option<&mut NodeView> {
        self.nodes.values_mut().find(|node| node.provider_id == provider_id)
    }

    /// Pods that no node has taken yet, oldest first, then by name.
    #[must_use]
    pub fn pending(&self) -> Vec<&PodView> {
        let mut pods: Vec<_> = self.pods.values().filter(|pod| pod.node.is_none()).collect();
        pods.sort_by(|a, b| (a.created_at, &a.namespace, &a.name).cmp(&(b.created_at, &b.namespace, &b.name)));
        pods
    }

    /// Pods on a node.
    pub fn pods_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a PodView> {
        self.pods.values().filter(move |pod| pod.node.as_deref() == Some(node))
    }

    /// What the pods on a node ask for together, with `pods` counting them.
    #[must_use]
    pub fn used(&self, node: &str) -> Resources {
        let mut used = Resources::new();
        for pod in self.pods_on(node) {
            fit::add(&mut used, &pod.requests);
            *used.entry("pods".into()).or_default() += 1;
        }
        used
    }

    /// The toy scheduler: gives each pending pod to the first ready node, by name, that can take it.
    /// Answers `(pod uid, node name)` for each pod it bound.
    pub fn bind(&mut self) -> Vec<(String, String)> {
        let waiting: Vec<String> = self.pending().iter().map(|pod| pod.uid.clone()).collect();
        let mut free: Vec<(String, Resources)> =
            self.nodes.values().filter(|node| node.ready).map(|node| (node.name.clone(), self.free(node))).collect();
        let mut bound = Vec::new();
        for uid in waiting {
            let Some(pod) = self.pods.get_mut(&uid) else { continue };
            let place = free.iter_mut().find(|(name, free)| {
                self.nodes.get(name).is_some_and(|node| fit::admits(node, pod)) && fit::room(free, &pod.requests)
            });
            if let Some((name, free)) = place {
                fit::take(free, &pod.requests);
                pod.node = Some(name.clone());
                bound.push((uid, name.clone()));
            }
        }
        bound
    }

    /// Allocatable less what its pods ask for.
    #[must_use]
    pub fn free(&self, node: &NodeView) -> Resources {
        fit::less(&node.allocatable, &self.used(&node.name))
    }
}

pub use fit::{add, admits, room, take};
