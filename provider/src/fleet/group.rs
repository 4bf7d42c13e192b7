//! Node groups, the machines in them, and the shape of a machine to come: plain data, in the clouds' common words.

mod resources;
pub mod seconds;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::prices::PriceOrigin;

pub use resources::is_accelerator;

/// A name that is shared, compared and hashed often: cheap to clone, ordered by its text.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

name!(
    /// What CA calls a node group: the name of the Auto Scaling group on AWS, the URL of the instance group on GCP.
    GroupId
);
name!(
    /// What CA calls an instance: byte for byte the node's `spec.providerID` (`aws:///<az>/<id>`, `gce://…`, `sim:///…`).
    InstanceId
);

/// How a machine is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// Cheaper, and may be taken back by the cloud.
    Spot,
    /// The list price, kept until returned.
    OnDemand,
}

/// The GPUs of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpus {
    /// Value of the GPU label, e.g. `nvidia-a10g`.
    pub model: String,
    /// How many a pod can ask for.
    pub count: u32,
    /// Memory of each, in MiB.
    #[serde(rename = "memoryMib", alias = "memory_mib")]
    pub memory_mib: u64,
    /// The extended resource that stands for them, `nvidia.com/gpu` as a rule.
    pub resource: String,
}

/// What one machine offers. `cpu_milli`, `memory` and `ephemeral_storage` are capacity; the reserved part is taken off
/// to get allocatable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Value of `node.kubernetes.io/instance-type`.
    pub instance_type: String,
    /// Value of `kubernetes.io/arch`: `amd64` or `arm64`.
    pub arch: String,
    /// Capacity in thousandths of a CPU.
    pub cpu_milli: u64,
    /// Capacity in bytes.
    pub memory: u64,
    /// Capacity in bytes.
    pub ephemeral_storage: u64,
    /// Most pods the kubelet accepts.
    pub pods: u32,
    /// Held back from pods, in thousandths of a CPU.
    pub reserved_cpu_milli: u64,
    /// Held back from pods, in bytes.
    pub reserved_memory: u64,
    /// Held back from pods, in bytes.
    #[serde(default)]
    pub reserved_ephemeral_storage: u64,
    /// None on a machine without GPUs.
    pub gpus: Option<Gpus>,
    /// Further resources by name, e.g. `hugepages-2Mi` in bytes or `vpc.amazonaws.com/efa` in pieces.
    #[serde(default)]
    pub extended: BTreeMap<String, u64>,
}

/// A node taint, as in core/v1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// The taint's key.
    pub key: String,
    /// May be empty.
    #[serde(default)]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// What a group says differently from CA's own flags. A group with none set is answered with no options at all,
/// because any answer makes CA 1.35 and newer buy twice (kubernetes/autoscaler#10245).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Overrides {
    /// 0 to 1.
    pub scale_down_utilization_threshold: Option<f64>,
    /// 0 to 1.
    pub scale_down_gpu_utilization_threshold: Option<f64>,
    /// How long a node must be unneeded before it goes.
    #[serde(with = "crate::fleet::group::seconds")]
    pub scale_down_unneeded_time: Option<Duration>,
    /// The same for a node that is not ready.
    #[serde(with = "crate::fleet::group::seconds")]
    pub scale_down_unready_time: Option<Duration>,
    /// How long a bought machine may take to become a Node.
    #[serde(with = "crate::fleet::group::seconds")]
    pub max_node_provision_time: Option<Duration>,
    /// Scale to the maximum or to zero only.
    pub zero_or_max_node_scaling: Option<bool>,
    /// Leave DaemonSet pods out of the utilization.
    pub ignore_daemon_sets_utilization: Option<bool>,
}

impl Overrides {
    /// Each of these over each of theirs.
    #[must_use]
    pub fn over(&self, theirs: &Self) -> Self {
        Self {
            scale_down_utilization_threshold: self
                .scale_down_utilization_threshold
                .or(theirs.scale_down_utilization_threshold),
            scale_down_gpu_utilization_threshold: self
                .scale_down_gpu_utilization_threshold
                .or(theirs.scale_down_gpu_utilization_threshold),
            scale_down_unneeded_time: self.scale_down_unneeded_time.or(theirs.scale_down_unneeded_time),
            scale_down_unready_time: self.scale_down_unready_time.or(theirs.scale_down_unready_time),
            max_node_provision_time: self.max_node_provision_time.or(theirs.max_node_provision_time),
            zero_or_max_node_scaling: self.zero_or_max_node_scaling.or(theirs.zero_or_max_node_scaling),
            ignore_daemon_sets_utilization: self
                .ignore_daemon_sets_utilization
                .or(theirs.ignore_daemon_sets_utilization),
        }
    }
}

/// What the configuration says of one group, over what its cloud says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct GroupSettings {
    /// Over CA's flags and over what the cloud says.
    pub options: Overrides,
    /// Labels of a new node.
    pub labels: BTreeMap<String, String>,
    /// Taints of a new node.
    pub taints: Vec<Taint>,
    /// What a new node offers: time-slicing replicas, MIG slices, or whatever else no cloud tells.
    pub resources: BTreeMap<String, String>,
}

impl GroupSettings {
    /// Puts all of it on the group; what cannot be read becomes a warning of the group.
    pub fn put_on(&self, group: &mut Group) {
        group.overrides = self.options.over(&group.overrides);
        group.labels.extend(self.labels.clone());
        let replaced =
            |taint: &Taint| self.taints.iter().any(|it| (&it.key, &it.effect) == (&taint.key, &taint.effect));
        group.taints.retain(|taint| !replaced(taint));
        group.taints.extend(self.taints.iter().cloned());
        let wrong = group.shape.overlay(&self.resources);
        group.warnings.extend(wrong.into_iter().map(|it| format!("groups.{}.resources: {it}", group.id)));
    }
}

/// A node group as its cloud describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// CA's name for it.
    pub id: GroupId,
    /// Fewest machines.
    pub min: u32,
    /// Most machines.
    pub max: u32,
    /// Spot or on-demand.
    pub market: Market,
    /// Value of `topology.kubernetes.io/region`.
    pub region: String,
    /// Zones a machine may come up in, in order of name. Never empty.
    pub zones: Vec<String>,
    /// What one machine offers.
    pub shape: Shape,
    /// Labels beyond those that [`crate::fleet`] derives from the fields above.
    pub labels: BTreeMap<String, String>,
    /// Taints of a new node.
    pub taints: Vec<Taint>,
    /// Millionths of a US dollar for one machine for one hour, the mean where zones differ; None when nobody said.
    pub price_micros: Option<u64>,
    /// Who says so; None without a price.
    pub price_origin: Option<PriceOrigin>,
    /// What this group says differently from CA's flags.
    pub overrides: Overrides,
    /// What a person should know: shown on the page, never acted on.
    pub warnings: Vec<String>,
}

/// How far an instance has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// The cloud is making it.
    Creating,
    /// The cloud says it runs; its kubelet may not have registered yet.
    Running,
    /// On its way out.
    Deleting,
}

/// One machine that the cloud lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Equals the node's `spec.providerID`.
    pub id: InstanceId,
    /// How far it has come.
    pub state: InstanceState,
    /// The zone it is in.
    pub zone: String,
    /// The client token of the launch that made it, where the cloud keeps one.
    pub token: Option<String>,
}

/// Why a cloud said no. Five classes, because a caller branches on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalClass {
    /// No machine of this kind is free right now.
    NoCapacity,
    /// The account may not hold more.
    Quota,
    /// What we asked for cannot be made as it is written.
    Configuration,
    /// The credentials do not allow it.
    Permission,
    /// Too many calls; the same call later may pass.
    Throttled,
}

/// A cloud's no, with its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of no.
    pub class: RefusalClass,
    /// The cloud's own code, low in cardinality (it becomes a metric label in CA).
    pub code: String,
    /// The cloud's own sentence.
    pub message: String,
}
