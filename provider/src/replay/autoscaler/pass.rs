//! What one loop carries along: the client, the clock's word, the cluster as this loop sees it, and what it does to it.

use std::collections::BTreeMap;

use windlass_proto::externalgrpc::ExternalGrpcNode;

use super::{
    Act,
    client::Client,
    flags::{Era, Flags},
};
use crate::{replay::cluster::NodeView, timestamp::Timestamp};

/// Marks a node as on its way out; the scheduler keeps pods off it.
pub(super) const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// Why a node in a request is not a real one.
pub(super) const FAKE_NODE_REASON: &str = "k8s.io/cluster-autoscaler/fake-node-reason";
/// On the placeholders for nodes that are still to come.
const UPCOMING_NODE: &str = "cluster-autoscaler.k8s.io/upcoming-node";
/// Extended resources that stand for a GPU: a labelled node without any of them allocatable is not ready yet.
const GPU_RESOURCES: [&str; 5] =
    ["nvidia.com/gpu", "microsoft.com/directx", "habana.ai/gaudi", "amd.com/gpu", "gpu.intel.com/xe"];

/// One loop.
pub(super) struct Pass<'a> {
    pub(super) client: Client<'a>,
    pub(super) acts: Vec<Act>,
    pub(super) now: Timestamp,
    /// What a new node of each group would look like.
    pub(super) templates: BTreeMap<String, NodeView>,
}

impl Pass<'_> {
    pub(super) fn era(&self) -> Era {
        self.client.era
    }

    pub(super) fn flags(&self) -> &Flags {
        self.client.flags
    }

    pub(super) fn event(&mut self, reason: &str, about: &str, message: String) {
        self.acts.push(Act::Event { reason: reason.into(), about: about.into(), message });
    }
}

/// A Node object as this loop judges it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) node: NodeView,
    /// Ready, with its GPU allocatable if it carries the GPU label.
    pub(super) ready: bool,
}

impl Seen {
    pub(super) fn new(node: &NodeView, gpu_label: &str) -> Self {
        let waits_for_gpu = !gpu_label.is_empty() && node.labels.contains_key(gpu_label) && gpu(node).is_none();
        Self { node: node.clone(), ready: node.ready && !waits_for_gpu }
    }

    pub(super) fn marked(&self) -> bool {
        marked(&self.node)
    }
}

/// Whether CA has marked the node for deletion.
pub(super) fn marked(node: &NodeView) -> bool {
    node.taints.iter().any(|taint| taint.key() == TO_BE_DELETED)
}

/// The GPU resource that the node has allocatable, and how many.
pub(super) fn gpu(node: &NodeView) -> Option<(&'static str, u64)> {
    GPU_RESOURCES.iter().find_map(|name| {
        let count = node.allocatable.get(*name).copied().filter(|count| *count > 0)?;
        Some((*name, count))
    })
}

/// A real node in a request.
pub(super) fn wire(node: &NodeView) -> ExternalGrpcNode {
    ExternalGrpcNode {
        provider_id: node.provider_id.clone(),
        name: node.name.clone(),
        labels: node.labels.clone().into_iter().collect(),
        annotations: node.annotations.clone().into_iter().collect(),
    }
}

/// The stand-in for an instance that is no Node: its id as name and provider id, and the reason.
pub(super) fn fake(instance: &str, reason: &str) -> ExternalGrpcNode {
    ExternalGrpcNode {
        provider_id: instance.into(),
        name: instance.into(),
        annotations: [(FAKE_NODE_REASON.to_owned(), reason.to_owned())].into_iter().collect(),
        ..ExternalGrpcNode::default()
    }
}

/// The stand-in for a node still to come, as the loop packs pods on it.
pub(super) fn upcoming(template: &NodeView, group: &str, number: i64) -> NodeView {
    let name = format!("template-node-for-{group}-upcoming-{number}");
    let mut node = template.clone();
    node.provider_id = String::new();
    node.labels.insert("kubernetes.io/hostname".into(), name.clone());
    node.annotations.insert(UPCOMING_NODE.into(), "true".into());
    node.name = name;
    node
}
