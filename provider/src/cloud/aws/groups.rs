//! An Auto Scaling group as AWS describes it, in our words; and how groups are found.

use std::{fmt, str::FromStr};

use aws_sdk_autoscaling::types::{AutoScalingGroup, Filter, Instance as AsgInstance, InstancesDistribution};
use serde::Deserialize;

use super::{GPU_LABEL, states, tags, types};
use crate::{
    cloud::Listed,
    fleet::group::{Group, Market},
};

/// One auto-discovery spec in cluster-autoscaler's own syntax, `asg:tag=key[=value][,key[=value]…]`: a group matches
/// when it has all of these tags. Several specs are alternatives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Discovery(Vec<(String, Option<String>)>);

/// A spec that is not of the form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no discovery spec; write asg:tag=k8s.io/cluster-autoscaler/enabled,k8s.io/cluster-autoscaler/<cluster>"
)]
pub struct DiscoveryError(String);

impl FromStr for Discovery {
    type Err = DiscoveryError;

    fn from_str(text: &str) -> Result<Self, DiscoveryError> {
        let wrong = || DiscoveryError(text.to_owned());
        let tags = text.strip_prefix("asg:tag=").ok_or_else(wrong)?;
        let pair = |tag: &str| match tag.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (tag.to_owned(), None),
        };
        let tags: Vec<_> = tags.split(',').map(|tag| pair(tag.trim())).collect();
        if tags.iter().any(|(key, _)| key.is_empty()) { Err(wrong()) } else { Ok(Self(tags)) }
    }
}

impl TryFrom<String> for Discovery {
    type Error = DiscoveryError;

    fn try_from(text: String) -> Result<Self, DiscoveryError> {
        text.parse()
    }
}

impl fmt::Display for Discovery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |(key, value): &(String, Option<String>)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        };
        write!(out, "asg:tag={}", self.0.iter().map(pair).collect::<Vec<_>>().join(","))
    }
}

impl Discovery {
    /// The same as filters of `DescribeAutoScalingGroups`.
    pub(super) fn filters(&self) -> Vec<Filter> {
        let filter = |(key, value): &(String, Option<String>)| match value {
            Some(value) => Filter::builder().name(format!("tag:{key}")).values(value).build(),
            None => Filter::builder().name("tag-key").values(key).build(),
        };
        self.0.iter().map(filter).collect()
    }
}

/// The group and its machines; None for one without a name or on its way out.
pub(super) fn listed(asg: AutoScalingGroup, region: &str) -> Option<Listed> {
    let id = asg.auto_scaling_group_name.clone().filter(|_| asg.status.is_none())?;
    let mut described =
        tags::describe(asg.tags().iter().filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or("")))));
    let instance_type = instance_type(&asg, &described);
    let mut shape = types::shape(&instance_type).unwrap_or_else(|| types::unknown(&instance_type));
    described.reshape(&mut shape);
    let market = market(&asg, &described);
    let mut group = Group {
        id: id.into(),
        min: bound(asg.min_size),
        max: bound(asg.max_size),
        market,
        region: region.to_owned(),
        zones: zones(&asg),
        shape,
        labels: described.labels,
        taints: described.taints,
        price_micros: None,
        price_origin: None,
        overrides: described.overrides,
        warnings: described.warnings,
    };
    group.warnings.extend(warnings(&group));
    labelled_model(&mut group);
    let suspended = |process| asg.suspended_processes().iter().any(|it| it.process_name() == Some(process));
    let replaces = !suspended("ReplaceUnhealthy") && !suspended("Terminate");
    let instances = asg.instances().iter().filter_map(|it| states::instance(it, replaces)).collect();
    Some(Listed::new(group, instances))
}

fn bound(size: Option<i32>) -> u32 {
    size.and_then(|size| u32::try_from(size).ok()).unwrap_or(0)
}

fn zones(asg: &AutoScalingGroup) -> Vec<String> {
    let mut zones = asg.availability_zones().to_vec();
    zones.sort_unstable();
    zones
}

/// The type a new machine would have, as far as the Auto Scaling API tells: a mixed policy names types, a group with
/// machines shows theirs, and a tag can say it. What stands in a launch template is not seen from here.
fn instance_type(asg: &AutoScalingGroup, described: &tags::Described) -> String {
    let overrides = asg.mixed_instances_policy().and_then(|policy| policy.launch_template());
    let named = overrides.and_then(|template| template.overrides().iter().find_map(|it| it.instance_type()));
    let told = || described.labels.get("node.kubernetes.io/instance-type").map(String::as_str);
    let seen = || asg.instances().iter().find_map(AsgInstance::instance_type);
    named.or_else(told).or_else(seen).unwrap_or_default().to_owned()
}

fn distribution(asg: &AutoScalingGroup) -> Option<&InstancesDistribution> {
    asg.mixed_instances_policy()?.instances_distribution()
}

/// Spot when a mixed policy leaves nothing to on-demand, or when EKS's label says so.
fn market(asg: &AutoScalingGroup, described: &tags::Described) -> Market {
    let all_spot = distribution(asg).is_some_and(|it| {
        it.on_demand_base_capacity().unwrap_or(0) == 0 && it.on_demand_percentage_above_base_capacity() == Some(0)
    });
    let labelled = described.labels.get("eks.amazonaws.com/capacityType").is_some_and(|value| value == "SPOT");
    if all_spot || labelled { Market::Spot } else { Market::OnDemand }
}

/// What a person should know of this group.
fn warnings(group: &Group) -> Vec<String> {
    let shape = &group.shape;
    let rows = [
        (
            shape.instance_type.is_empty(),
            "its instance type is not known: tag it with k8s.io/cluster-autoscaler/node-template/label/node.kubernetes.io/instance-type",
        ),
        (
            shape.cpu_milli == 0 || shape.memory == 0 || shape.pods == 0,
            "its capacity is not known: tag it with k8s.io/cluster-autoscaler/node-template/resources/{cpu,memory,pods}",
        ),
        (group.zones.is_empty(), "it has no Availability Zone"),
        (group.min > group.max, "its minimum is above its maximum"),
        (
            shape.gpus.is_some() && !group.labels.contains_key(GPU_LABEL),
            "no tag says that its nodes carry k8s.amazonaws.com/accelerator at registration: a node without it is bought twice",
        ),
    ];
    rows.into_iter().filter(|(is, _)| *is).map(|(_, text)| text.to_owned()).collect()
}

/// The GPU model is the value of the label, where a tag tells it.
fn labelled_model(group: &mut Group) {
    if let (Some(gpus), Some(model)) = (&mut group.shape.gpus, group.labels.get(GPU_LABEL)) {
        gpus.model.clone_from(model);
    }
}

#[cfg(test)]
mod tests;
