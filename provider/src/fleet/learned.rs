//! What a group's real nodes turned out to be, for the time when it has none: CA plans with a real node as long as
//! there is one and with our description afterwards, so the two must agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_proto::{
    core::{Node, Quantity},
    quantity,
};

use crate::{
    fleet::{
        group::{Group, Shape, Taint, is_accelerator},
        template::{Dialect, ZONE_LABEL},
    },
    timestamp::Timestamp,
};

mod differences;

/// Labels that belong to one machine, or that CA puts on its copy of a node: nothing a next machine can be told by.
const OF_ONE_MACHINE: [&str; 15] = [
    "kubernetes.io/hostname",
    ZONE_LABEL,
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.ebs.csi.aws.com/zone",
    "topology.k8s.aws/zone-id",
    "topology.k8s.aws/network-node-layer-1",
    "topology.k8s.aws/network-node-layer-2",
    "topology.k8s.aws/network-node-layer-3",
    "topology.k8s.aws/capacity-block-id",
    "k8s.amazonaws.com/eniConfig",
    "nvidia.com/gfd.timestamp",
    "eks.amazonaws.com/nodegroup-image",
    "cluster-autoscaler.kubernetes.io/template-node",
];

/// Two nodes of one kind differ by less than this in memory and storage, in thousandths.
const NOISE: u64 = 10;

/// A real node of a group, as far as it says what the next one will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Learned {
    /// When it was seen.
    pub at: Timestamp,
    /// What the group said of itself then; None until a listing tells. Another word of the group makes this void.
    #[serde(default)]
    declared: Option<Declared>,
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    capacity: BTreeMap<String, String>,
    allocatable: BTreeMap<String, String>,
}

/// What makes two descriptions of a group ones of the same machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Declared {
    instance_type: String,
    gpus: Option<(String, u32)>,
    labels: BTreeMap<String, String>,
}

impl Declared {
    fn of(group: &Group) -> Self {
        let Shape { instance_type, gpus, .. } = &group.shape;
        Self {
            instance_type: instance_type.clone(),
            gpus: gpus.as_ref().map(|gpus| (gpus.resource.clone(), gpus.count)),
            labels: group.labels.clone(),
        }
    }
}

impl Learned {
    /// Reads a node that CA plans with. None when it is CA's copy of our own description (which has no provider id), when
    /// it is not ready, is of another type, or its device plugin has not spoken.
    #[must_use]
    pub fn of(node: &Node, group: &Group, at: Timestamp) -> Option<Self> {
        let (meta, spec, status) = (node.metadata.as_ref()?, node.spec.as_ref()?, node.status.as_ref()?);
        let is_ready = status.conditions.iter().any(|it| it.r#type() == "Ready" && it.status() == "True");
        let instance_type = meta.labels.get("node.kubernetes.io/instance-type");
        let same_type = group.shape.instance_type.is_empty() || instance_type == Some(&group.shape.instance_type);
        if spec.provider_id().is_empty() || !is_ready || !same_type {
            return None;
        }
        let text = |of: &BTreeMap<String, Quantity>| -> BTreeMap<String, String> {
            let told = of.iter().filter(|(name, _)| !name.starts_with("attachable-volumes-"));
            told.map(|(name, amount)| (name.clone(), amount.string().to_owned())).collect()
        };
        let learned = Self {
            at,
            declared: None,
            labels: meta.labels.iter().filter(|(key, _)| is_shared(key)).map(|(k, v)| (k.clone(), v.clone())).collect(),
            taints: spec.taints.iter().map(taint).collect(),
            capacity: text(&status.capacity),
            allocatable: text(&status.allocatable),
        };
        let offers = learned.accelerators().values().any(|count| *count > 0);
        (offers || group.shape.gpus.is_none()).then_some(learned)
    }

    /// Whether `other` teaches nothing new.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let near = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| {
            a.len() == b.len() && a.iter().all(|(name, text)| b.get(name).is_some_and(|it| is_near(text, it)))
        };
        self.labels == other.labels
            && self.taints == other.taints
            && near(&self.capacity, &other.capacity)
            && near(&self.allocatable, &other.allocatable)
    }

    /// Makes `group` what its node was, and tells how its own words differ. False when the group has changed since, so
    /// that this is of no use any more.
    pub fn apply(&mut self, group: &mut Group, dialect: &Dialect) -> bool {
        let declared = Declared::of(group);
        if *self.declared.get_or_insert_with(|| declared.clone()) != declared {
            return false;
        }
        group.warnings.extend(differences::told(self, group, dialect));
        self.reshape(&mut group.shape);
        group.labels.clone_from(&self.labels);
        if let (Some(gpus), Some(model)) = (&mut group.shape.gpus, self.labels.get(&dialect.gpu_label)) {
            gpus.model.clone_from(model);
        }
        true
    }

    fn reshape(&self, shape: &mut Shape) {
        let amount = |of: &BTreeMap<String, String>, name: &str| number(of.get(name)?);
        let pair = |name: &str| {
            let whole = amount(&self.capacity, name)?;
            Some((whole, whole.saturating_sub(amount(&self.allocatable, name).unwrap_or(whole))))
        };
        let cpu = |of: &BTreeMap<String, String>| {
            of.get("cpu").and_then(|text| u64::try_from(quantity::milli_value(text).ok()?).ok())
        };
        if let Some(whole) = cpu(&self.capacity) {
            let left = cpu(&self.allocatable).unwrap_or(whole);
            (shape.cpu_milli, shape.reserved_cpu_milli) = (whole, whole.saturating_sub(left));
        }
        if let Some(memory) = pair("memory") {
            (shape.memory, shape.reserved_memory) = memory;
        }
        if let Some(storage) = pair("ephemeral-storage") {
            (shape.ephemeral_storage, shape.reserved_ephemeral_storage) = storage;
        }
        if let Some(pods) = amount(&self.allocatable, "pods") {
            shape.pods = u32::try_from(pods).unwrap_or(u32::MAX);
        }
        let other = self.allocatable.iter().filter(|(name, _)| !is_basic(name) && !is_accelerator(name));
        shape.extended = other.filter_map(|(name, text)| Some((name.clone(), number(text)?))).collect();
        shape.extended.retain(|_, count| *count > 0);
        shape.offer(self.accelerators());
    }

    /// What pods can ask for; all zero when nothing has been offered yet.
    fn accelerators(&self) -> BTreeMap<String, u64> {
        let offered = self.allocatable.iter().filter(|(name, _)| is_accelerator(name));
        offered.filter_map(|(name, text)| Some((name.clone(), number(text)?))).collect()
    }
}

fn is_shared(label: &str) -> bool {
    !OF_ONE_MACHINE.contains(&label)
}

fn is_basic(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage" | "pods")
}

fn taint(of: &windlass_proto::core::Taint) -> Taint {
    Taint { key: of.key().to_owned(), value: of.value().to_owned(), effect: of.effect().to_owned() }
}

fn number(text: &str) -> Option<u64> {
    u64::try_from(quantity::value(text).ok()?).ok()
}

fn is_near(a: &str, b: &str) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.abs_diff(b).saturating_mul(1000) <= a.max(b).saturating_mul(NOISE),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests;
