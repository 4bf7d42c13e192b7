//! The part of the configuration that says which cloud, and which of its groups.

use std::path::PathBuf;

use serde::Deserialize;

/// Which cloud.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cloud {
    /// Its kind.
    pub kind: CloudKind,
    /// `sim`: the scenario.
    #[serde(default)]
    pub scenario: Option<PathBuf>,
    /// `sim`: where its machines outlive the process.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// `aws`: the region; else what the SDK finds (`AWS_REGION`, the profile, the instance metadata).
    #[serde(default)]
    pub region: Option<String>,
    /// `aws`: another address for every API.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// `aws`: endpoints that keep to FIPS 140.
    #[serde(default)]
    pub fips: bool,
    /// `aws`: endpoints that answer over IPv6, too.
    #[serde(default)]
    pub dual_stack: bool,
    /// `aws`: prices of the operator's own, lines of `type,market,place,dollars per hour`.
    #[serde(default)]
    pub price_overrides: Option<PathBuf>,
    /// `aws`: the cluster whose tag, with `k8s.io/cluster-autoscaler/enabled`, makes a group ours.
    #[serde(default)]
    pub cluster_name: Option<String>,
    /// `aws`: further specs in cluster-autoscaler's syntax, `asg:tag=key[=value],…`; each is an alternative.
    #[serde(default)]
    pub discovery: Vec<String>,
    /// `aws`: which call machines are asked for with.
    #[serde(default)]
    pub launch: LaunchMode,
    /// `aws`: suspend the process `AZRebalance` of groups with several zones, which ends machines that nobody named.
    #[serde(default)]
    pub suspend_az_rebalance: bool,
    /// `aws`: URL of an SQS queue that EventBridge feeds with EC2's notices of interruptions.
    #[serde(default)]
    pub interruption_queue: Option<String>,
    /// `aws`: groups by name, whatever their tags.
    #[serde(default)]
    pub groups: Vec<NamedGroup>,
    /// `aws`: names of groups that are not ours, whatever their tags; `*` and `?` as in a shell.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// `aws`: the VPC CNI runs with `ENABLE_PREFIX_DELEGATION`, which allows more pods on a machine.
    #[serde(default)]
    pub prefix_delegation: bool,
}

/// A group by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NamedGroup {
    /// The name of the Auto Scaling group.
    pub name: String,
    /// Fewest machines; the group's own minimum by default.
    #[serde(default)]
    pub min: Option<u32>,
    /// Most machines; the group's own maximum by default.
    #[serde(default)]
    pub max: Option<u32>,
}

/// Which call machines are asked for with on AWS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaunchMode {
    /// `LaunchInstances` where the group allows it, else `SetDesiredCapacity`.
    #[default]
    Auto,
    /// `LaunchInstances` always; a group that does not allow it says so when it is asked.
    LaunchInstances,
    /// `SetDesiredCapacity` always.
    DesiredCapacity,
}

impl Cloud {
    /// Every discovery spec, the cluster's own first.
    #[must_use]
    pub fn specs(&self) -> Vec<String> {
        let prefix = "k8s.io/cluster-autoscaler";
        let own = self.cluster_name.iter().map(|name| format!("asg:tag={prefix}/enabled,{prefix}/{name}"));
        own.chain(self.discovery.iter().cloned()).collect()
    }
}

/// The clouds there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloudKind {
    /// Auto Scaling groups; in builds with the `aws` feature.
    Aws,
    /// The embedded one.
    Sim,
}
