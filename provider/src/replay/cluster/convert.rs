//! Between core/v1 messages and the cluster's values.
//! A quantity that cannot be read counts as absent: the messages come from other programs.

use std::collections::BTreeMap;

use windlass_proto::{
    core,
    quantity::{milli_value, value},
};

use super::{NodeView, PodView, Resources, add};
use crate::timestamp::Timestamp;

const SET_BY_THE_KUBELET: &str = "kubernetes.io/hostname";

impl NodeView {
    /// A node object from a message, with the name and provider id in it.
    #[must_use]
    pub fn from_proto(node: &core::Node) -> Self {
        let metadata = node.metadata.clone().unwrap_or_default();
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.r#type() == "Ready");
        Self {
            name: metadata.name().to_owned(),
            provider_id: spec.provider_id().to_owned(),
            unschedulable: spec.unschedulable(),
            capacity: resources(&status.capacity),
            allocatable: resources(&status.allocatable),
            ready: ready.is_some_and(|condition| condition.status() == "True"),
            created_at: metadata.creation_timestamp.map_or_else(Timestamp::default, timestamp),
            ready_since: ready
                .and_then(|condition| condition.last_transition_time)
                .map_or_else(Timestamp::default, timestamp),
            labels: metadata.labels.into_iter().collect(),
            annotations: metadata.annotations.into_iter().collect(),
            taints: spec.taints,
        }
    }

    /// The message, as `BestOptions` carries a group's template.
    #[must_use]
    pub fn to_proto(&self) -> core::Node {
        let condition = core::NodeCondition {
            r#type: Some("Ready".into()),
            status: Some(if self.ready { "True" } else { "False" }.into()),
            last_transition_time: Some(time(self.ready_since)),
            ..core::NodeCondition::default()
        };
        core::Node {
            metadata: Some(core::ObjectMeta {
                name: Some(self.name.clone()),
                creation_timestamp: Some(time(self.created_at)),
                labels: self.labels.clone(),
                annotations: self.annotations.clone(),
                ..core::ObjectMeta::default()
            }),
            spec: Some(core::NodeSpec {
                provider_id: Some(self.provider_id.clone()),
                unschedulable: self.unschedulable.then_some(true),
                taints: self.taints.clone(),
            }),
            status: Some(core::NodeStatus {
                capacity: quantities(&self.capacity),
                allocatable: quantities(&self.allocatable),
                conditions: vec![condition],
            }),
        }
    }

    /// The Node that a machine made from this template registers as, at the moment it registers: ready, with its
    /// labels and taints. GPUs and other extended resources are allocatable at once; see [`Self::without_devices`].
    #[must_use]
    pub fn from_template(template: &core::Node, name: &str, provider_id: &str, now: Timestamp) -> Self {
        let mut node = Self::from_proto(template);
        node.name = name.to_owned();
        node.provider_id = provider_id.to_owned();
        node.labels.insert(SET_BY_THE_KUBELET.into(), name.to_owned());
        node.ready = true;
        node.created_at = now;
        node.ready_since = now;
        node
    }

    /// The same node before its device plugins have registered: nothing but cpu, memory, storage and pods is allocatable.
    #[must_use]
    pub fn without_devices(mut self) -> Self {
        let basic =
            |name: &String| matches!(name.as_str(), "cpu" | "memory" | "pods") || name.starts_with("ephemeral-storage");
        self.allocatable.retain(|name, _| basic(name));
        self.capacity.retain(|name, _| basic(name));
        self
    }
}

impl PodView {
    /// A pod that asks for these amounts and waits; everything else is empty.
    #[must_use]
    pub fn new(name: &str, uid: &str, requests: Resources, created_at: Timestamp) -> Self {
        Self {
            uid: uid.to_owned(),
            name: name.to_owned(),
            namespace: "default".into(),
            requests,
            created_at,
            ..Self::default()
        }
    }

    /// A pod object from a message.
    #[must_use]
    pub fn from_proto(pod: &core::Pod) -> Self {
        let metadata = pod.metadata.clone().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let controller = metadata.owner_references.iter().find(|owner| owner.controller());
        Self {
            uid: metadata.uid().to_owned(),
            name: metadata.name().to_owned(),
            namespace: metadata.namespace().to_owned(),
            requests: requests(&spec),
            controller: controller.map(|owner| owner.kind().to_owned()),
            controller_uid: controller.map(|owner| owner.uid().to_owned()),
            created_at: metadata.creation_timestamp.map_or_else(Timestamp::default, timestamp),
            labels: metadata.labels.into_iter().collect(),
            annotations: metadata.annotations.into_iter().collect(),
            selector: spec.node_selector.into_iter().collect(),
            affinity: spec
                .affinity
                .and_then(|affinity| affinity.node_affinity)
                .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution)
                .map_or_else(Vec::new, |selector| selector.node_selector_terms),
            tolerations: spec.tolerations,
            node: None,
        }
    }

    /// The message, as `BestOptions` carries it.
    #[must_use]
    pub fn to_proto(&self) -> core::Pod {
        let owner = self.controller.as_ref().map(|kind| core::OwnerReference {
            kind: Some(kind.clone()),
            uid: self.controller_uid.clone(),
            controller: Some(true),
            ..core::OwnerReference::default()
        });
        let affinity = (!self.affinity.is_empty()).then(|| core::Affinity {
            node_affinity: Some(core::NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(core::NodeSelector {
                    node_selector_terms: self.affinity.clone(),
                }),
            }),
        });
        let container = core::Container {
            name: Some("main".into()),
            resources: Some(core::ResourceRequirements {
                limits: BTreeMap::new(),
                requests: quantities(&self.requests),
            }),
            restart_policy: None,
        };
        core::Pod {
            metadata: Some(core::ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                uid: Some(self.uid.clone()),
                creation_timestamp: Some(time(self.created_at)),
                labels: self.labels.clone().into_iter().collect(),
                annotations: self.annotations.clone().into_iter().collect(),
                owner_references: owner.into_iter().collect(),
                ..core::ObjectMeta::default()
            }),
            spec: Some(core::PodSpec {
                containers: vec![container],
                node_selector: self.selector.clone().into_iter().collect(),
                affinity,
                tolerations: self.tolerations.clone(),
                ..core::PodSpec::default()
            }),
        }
    }
}

/// What a pod asks for: the sum over its containers and sidecars, or the largest init container where that is more.
fn requests(spec: &core::PodSpec) -> Resources {
    let mut sum = Resources::new();
    let mut largest = Resources::new();
    let asked = |container: &core::Container| {
        container.resources.as_ref().map_or_else(BTreeMap::new, |resources_of| resources(&resources_of.requests))
    };
    for container in &spec.containers {
        add(&mut sum, &asked(container));
    }
    for container in &spec.init_containers {
        if container.restart_policy() == "Always" {
            add(&mut sum, &asked(container));
        } else {
            for (name, amount) in asked(container) {
                let entry = largest.entry(name).or_default();
                *entry = amount.max(*entry);
            }
        }
    }
    for (name, amount) in largest {
        let entry = sum.entry(name).or_default();
        *entry = amount.max(*entry);
    }
    add(&mut sum, &resources(&spec.overhead));
    sum
}

fn timestamp(time: core::Time) -> Timestamp {
    let millis = time.seconds().saturating_mul(1000).saturating_add(i64::from(time.nanos() / 1_000_000));
    Timestamp(u64::try_from(millis).unwrap_or(0))
}

fn time(at: Timestamp) -> core::Time {
    core::Time { seconds: i64::try_from(at.0 / 1000).ok(), nanos: Some(0) }
}

fn resources(quantities: &BTreeMap<String, core::Quantity>) -> Resources {
    quantities.iter().filter_map(|(name, quantity)| Some((name.clone(), amount(name, quantity.string())?))).collect()
}

/// Whole units, or thousandths for cpu; a fraction is rounded up, as the scheduler does.
fn amount(name: &str, text: &str) -> Option<u64> {
    let read = if name == "cpu" { milli_value(text) } else { value(text) };
    read.ok().and_then(|amount| u64::try_from(amount).ok())
}

fn quantities(resources: &Resources) -> BTreeMap<String, core::Quantity> {
    let text = |name: &str, amount: u64| if name == "cpu" { format!("{amount}m") } else { amount.to_string() };
    resources
        .iter()
        .map(|(name, amount)| (name.clone(), core::Quantity { string: Some(text(name, *amount)) }))
        .collect()
}
