//! What a new machine of a group would be as a Node, so that CA can plan with a group that has none. Complete, since
//! the scheduler treats what is missing as zero, and always the same bytes for the same group.

use std::collections::BTreeMap;

use windlass_proto::core::{Node, NodeCondition, NodeSpec, NodeStatus, ObjectMeta, Quantity, Taint};

use crate::fleet::group::{Gpus, Group, Market, Shape};

/// Extended resources that CA knows as GPUs. A labelled node whose GPUs stand under any other name (MIG slices, shared
/// GPUs) stays "not ready" to CA for ever (kubernetes/autoscaler#8095), so such a node must not carry the label.
const KNOWN_TO_CA: [&str; 5] =
    ["nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/xe", "habana.ai/gaudi", "microsoft.com/directx"];

/// Labels that tell how a machine is paid for: the label, its values on spot, its values otherwise. Source: EKS managed
/// node groups, Karpenter 1.x, eksctl, and the label that kops and older guides set.
const CAPACITY: [(&str, &[&str], &[&str]); 4] = [
    (CAPACITY_LABEL, &["SPOT"], &["ON_DEMAND", "CAPACITY_BLOCK"]),
    ("karpenter.sh/capacity-type", &["spot"], &["on-demand", "reserved"]),
    ("node-lifecycle", &["spot"], &["on-demand"]),
    ("node.kubernetes.io/lifecycle", &["spot"], &["normal", "on-demand"]),
];

/// The well-known label of a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The capacity label of EKS managed node groups.
pub const CAPACITY_LABEL: &str = "eks.amazonaws.com/capacityType";

/// GPU models a fleet may come to have. CA asks once in its life, so what is bought later must stand here, too.
/// Source: cluster-autoscaler's own list for AWS, and EC2's accelerated types of 2026-08.
const MODELS: [&str; 24] = [
    "nvidia-tesla-k80",
    "nvidia-tesla-m60",
    "nvidia-tesla-p100",
    "nvidia-tesla-v100",
    "nvidia-tesla-t4",
    "nvidia-tesla-a100",
    "nvidia-m60",
    "nvidia-v100",
    "nvidia-t4",
    "nvidia-t4g",
    "nvidia-a100",
    "nvidia-a10g",
    "nvidia-l4",
    "nvidia-l40s",
    "nvidia-h100",
    "nvidia-h200",
    "nvidia-b200",
    "nvidia-b300",
    "nvidia-gb200",
    "nvidia-gb300",
    "nvidia-rtx-pro-4500",
    "nvidia-rtx-pro-server-6000",
    "amd-radeon-pro-v520",
    "habana-gaudi",
];

/// How nodes are labelled on one cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The label whose value is the GPU model.
    pub gpu_label: String,
    /// Whether every node carries [`CAPACITY_LABEL`]; else those whose group says so, as EKS's managed node groups do.
    pub marks_market: bool,
}

impl Dialect {
    /// The labels of EKS nodes.
    #[must_use]
    pub fn aws() -> Self {
        Self { gpu_label: "k8s.amazonaws.com/accelerator".to_owned(), marks_market: false }
    }

    /// The labels of the embedded cloud's nodes.
    #[must_use]
    pub fn sim() -> Self {
        Self { marks_market: true, ..Self::aws() }
    }

    /// GPU models that a node may come to be labelled with, beyond those the groups have now; the embedded cloud has all
    /// its groups from the start.
    pub fn gpu_models(&self) -> impl Iterator<Item = &'static str> {
        MODELS.into_iter().filter(|_| !self.marks_market)
    }

    /// How a machine with these labels is paid for; None when they do not tell.
    #[must_use]
    pub fn market(labels: &BTreeMap<String, String>) -> Option<Market> {
        CAPACITY.iter().find_map(|(label, spot, on_demand)| match labels.get(*label)?.as_str() {
            value if spot.contains(&value) => Some(Market::Spot),
            value if on_demand.contains(&value) => Some(Market::OnDemand),
            _ => None,
        })
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

    /// Whether nodes of `group` should carry the GPU label, and nothing says that they do.
    #[must_use]
    pub fn lacks_gpu_label(&self, group: &Group) -> bool {
        group.shape.gpus.as_ref().is_some_and(Self::labels_gpus) && !group.labels.contains_key(&self.gpu_label)
    }

    /// The labels of a new node, except the host name, which CA makes up.
    #[must_use]
    pub fn labels(&self, group: &Group) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let mut put = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
        put("kubernetes.io/arch", &group.shape.arch);
        put("kubernetes.io/os", "linux");
        put("node.kubernetes.io/instance-type", &group.shape.instance_type);
        put("topology.kubernetes.io/region", &group.region);
        if let Some(zone) = group.zones.first() {
            put(ZONE_LABEL, zone);
        }
        if self.marks_market {
            put(CAPACITY_LABEL, if group.market == Market::Spot { "SPOT" } else { "ON_DEMAND" });
        }
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
            capacity: resources(&group.shape, false),
            allocatable: resources(&group.shape, true),
            conditions: conditions(),
        }),
    }
}

fn resources(shape: &Shape, allocatable: bool) -> BTreeMap<String, Quantity> {
    let left = |whole: u64, held: u64| if allocatable { whole.saturating_sub(held) } else { whole };
    let mut resources = BTreeMap::new();
    let mut put = |name: &str, text: String| resources.insert(name.to_owned(), Quantity { string: Some(text) });
    put("cpu", format!("{}m", left(shape.cpu_milli, shape.reserved_cpu_milli)));
    put("memory", left(shape.memory, shape.reserved_memory).to_string());
    put("ephemeral-storage", left(shape.ephemeral_storage, shape.reserved_ephemeral_storage).to_string());
    put("pods", shape.pods.to_string());
    for (name, count) in &shape.extended {
        put(name, count.to_string());
    }
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
