//! What a new machine of a group would be as a Node, so that CA can plan with a group that has none. Complete, since
//! the scheduler treats what is missing as zero, and always the same bytes for the same group.

use std::collections::BTreeMap;

use windlass_proto::core::{Node, NodeCondition, NodeSpec, NodeStatus, ObjectMeta, Quantity, Taint};

use crate::fleet::group::{Gpus, Group, Market, Shape};

/// Extended resources that CA knows as GPUs. A labelled node whose GPUs stand under any other name (MIG slices, shared
/// GPUs) stays "not ready" to CA for ever (kubernetes/autoscaler#8095), so such a node must not carry the label.
const KNOWN_TO_CA: [&str; 5] =
    ["nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/xe", "habana.ai/gaudi", "microsoft.com/directx"];

/// How nodes are labelled on one cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The label whose value is the GPU model.
    pub gpu_label: String,
    /// The label that tells spot from on-demand.
    pub capacity_label: String,
    /// Its value on a spot node.
    pub spot: String,
    /// Its value on an on-demand node.
    pub on_demand: String,
}

impl Dialect {
    /// The labels of EKS nodes.
    #[must_use]
    pub fn aws() -> Self {
        Self {
            gpu_label: "k8s.amazonaws.com/accelerator".to_owned(),
            capacity_label: "eks.amazonaws.com/capacityType".to_owned(),
            spot: "SPOT".to_owned(),
            on_demand: "ON_DEMAND".to_owned(),
        }
    }

    /// Whether CA knows this resource as a GPU.
    #[must_use]
    pub fn is_gpu(resource: &str) -> bool {
        KNOWN_TO_CA.contains(&resource)
    }

    /// Whether a node with these GPUs may carry the GPU label.
    #[must_use]
    pub fn labels_gpus(gpus: &Gpus) -> bool {
        gpus.count > 0 && Self::is_gpu(&gpus.resource)
    }

    /// The labels of a new node, except the host name, which CA makes up.
    #[must_use]
    pub fn labels(&self, group: &Group) -> BTreeMap<String, String> {
        let market = match group.market {
            Market::Spot => &self.spot,
            Market::OnDemand => &self.on_demand,
        };
        let mut labels = BTreeMap::new();
        let mut put = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
        put("kubernetes.io/arch", &group.shape.arch);
        put("kubernetes.io/os", "linux");
        put("node.kubernetes.io/instance-type", &group.shape.instance_type);
        put("topology.kubernetes.io/region", &group.region);
        if let Some(zone) = group.zones.first() {
            put("topology.kubernetes.io/zone", zone);
        }
        put(&self.capacity_label, market);
        labels.extend(group.labels.clone());
        match &group.shape.gpus {
            Some(gpus) if Self::labels_gpus(gpus) => {
                labels.entry(self.gpu_label.clone()).or_insert_with(|| gpus.model.clone());
            }
            _ => {
                labels.remove(&self.gpu_label);
            }
        }
        labels
    }
}

/// The Node that a new machine of `group` would be, once its device plugin has spoken.
#[must_use]
pub fn node(group: &Group, dialect: &Dialect) -> Node {
    let Shape { reserved_cpu_milli, reserved_memory, .. } = group.shape;
    let taint = |taint: &crate::fleet::group::Taint| Taint {
        key: Some(taint.key.clone()),
        value: Some(taint.value.clone()),
        effect: Some(taint.effect.clone()),
    };
    Node {
        metadata: Some(ObjectMeta {
            name: Some(format!("template-{}", group.id)),
            labels: dialect.labels(group),
            ..ObjectMeta::default()
        }),
        spec: Some(NodeSpec { taints: group.taints.iter().map(taint).collect(), ..NodeSpec::default() }),
        status: Some(NodeStatus {
            capacity: resources(&group.shape, 0, 0),
            allocatable: resources(&group.shape, reserved_cpu_milli, reserved_memory),
            conditions: conditions(),
        }),
    }
}

fn resources(shape: &Shape, cpu_held: u64, memory_held: u64) -> BTreeMap<String, Quantity> {
    let mut resources = BTreeMap::new();
    let mut put = |name: &str, text: String| resources.insert(name.to_owned(), Quantity { string: Some(text) });
    put("cpu", format!("{}m", shape.cpu_milli.saturating_sub(cpu_held)));
    put("memory", shape.memory.saturating_sub(memory_held).to_string());
    put("ephemeral-storage", shape.ephemeral_storage.to_string());
    put("pods", shape.pods.to_string());
    if let Some(gpus) = &shape.gpus {
        put(&gpus.resource, gpus.count.to_string());
    }
    resources
}

/// As a healthy kubelet reports them. CA wants `Ready`; the others keep its taint logic quiet.
fn conditions() -> Vec<NodeCondition> {
    let healthy = [
        ("Ready", "True"),
        ("NetworkUnavailable", "False"),
        ("DiskPressure", "False"),
        ("MemoryPressure", "False"),
        ("PIDPressure", "False"),
    ];
    let condition = |(kind, status): (&str, &str)| NodeCondition {
        r#type: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        ..NodeCondition::default()
    };
    healthy.into_iter().map(condition).collect()
}

#[cfg(test)]
mod tests;
