//! EKS managed node groups: what EKS puts on their nodes, and no Auto Scaling group tells.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types::AutoScalingGroup;
use aws_sdk_eks::{
    Client,
    types::{Nodegroup as EksNodegroup, Taint as EksTaint, TaintEffect},
};
use serde::{Deserialize, Serialize};

use super::{allocatable::Family, errors};
use crate::{
    cloud::CloudError,
    fleet::{group::Taint, template::CAPACITY_LABEL},
};

const NODEGROUP_LABEL: &str = "eks.amazonaws.com/nodegroup";

/// A managed node group's name, which is unique in its cluster alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Name {
    pub(super) cluster: String,
    pub(super) nodegroup: String,
}

impl Name {
    /// By the tags that EKS puts on its Auto Scaling groups; None for a group of another maker.
    pub(super) fn of(asg: &AutoScalingGroup) -> Option<Self> {
        let tag = |key: &str| asg.tags().iter().find(|tag| tag.key() == Some(key))?.value().map(ToOwned::to_owned);
        Some(Self { cluster: tag("eks:cluster-name")?, nodegroup: tag("eks:nodegroup-name")? })
    }
}

/// A managed node group, as far as it shows on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Nodegroup {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) taints: Vec<Taint>,
    pub(super) family: Family,
    /// The image is of the user's choosing: EKS computes nothing for it.
    pub(super) custom: bool,
    /// Bytes; None where a launch template says it.
    pub(super) disk: Option<u64>,
    pub(super) tags: BTreeMap<String, String>,
    /// What EKS finds wrong with the group.
    pub(super) issues: Vec<String>,
}

/// One call of `DescribeNodegroup`.
pub(super) async fn describe(client: &Client, name: &Name) -> Result<Nodegroup, CloudError> {
    let request = client.describe_nodegroup().cluster_name(&name.cluster).nodegroup_name(&name.nodegroup);
    let answer = request.send().await.map_err(|error| errors::failed("DescribeNodegroup", &error))?;
    let of = answer.nodegroup().ok_or_else(|| CloudError::Unknown("DescribeNodegroup: an empty answer".to_owned()))?;
    Ok(read(name, of))
}

/// The name alone: what every node of the group carries, whatever else is known.
pub(super) fn unread(name: &Name) -> Nodegroup {
    let labels = BTreeMap::from([(NODEGROUP_LABEL.to_owned(), name.nodegroup.clone())]);
    Nodegroup { labels, ..Nodegroup::default() }
}

fn read(name: &Name, of: &EksNodegroup) -> Nodegroup {
    let mut nodegroup = unread(name);
    if let Some(capacity) = of.capacity_type() {
        nodegroup.labels.insert(CAPACITY_LABEL.to_owned(), capacity.as_str().to_owned());
    }
    let labels = of.labels().into_iter().flatten();
    nodegroup.labels.extend(labels.map(|(key, value)| (key.clone(), value.clone())));
    nodegroup.taints = of.taints().iter().filter_map(taint).collect();
    let image = of.ami_type().map_or("", |it| it.as_str());
    nodegroup.custom = image == "CUSTOM";
    nodegroup.family = match image {
        image if image.starts_with("BOTTLEROCKET") => Family::Bottlerocket,
        image if image.starts_with("WINDOWS") => Family::Windows,
        _ => Family::AmazonLinux,
    };
    nodegroup.disk = of.disk_size().and_then(|gib| u64::try_from(gib).ok()).map(|gib| gib << 30);
    nodegroup.tags = of.tags().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    let issues = of.health().into_iter().flat_map(|health| health.issues());
    nodegroup.issues = issues
        .map(|it| format!("{}: {}", it.code().map_or("unknown", |code| code.as_str()), it.message().unwrap_or("")))
        .collect();
    nodegroup
}

/// A taint without a value is one with an empty value.
fn taint(of: &EksTaint) -> Option<Taint> {
    let effect = match of.effect()? {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
        _ => return None,
    };
    Some(Taint { key: of.key()?.to_owned(), value: of.value().unwrap_or("").to_owned(), effect: effect.to_owned() })
}

#[cfg(test)]
mod tests {
    use aws_sdk_eks::types::{AmiTypes, CapacityTypes};

    use super::*;

    fn name() -> Name {
        Name { cluster: "c1".to_owned(), nodegroup: "gpu".to_owned() }
    }

    // in-tree: a taint without a value is dropped.
    #[test]
    fn a_taint_without_a_value_is_kept() {
        let taints = [Some("yes"), None].map(|value| {
            EksTaint::builder().key("gpu").set_value(value.map(Into::into)).effect(TaintEffect::NoSchedule).build()
        });
        let of = read(&name(), &EksNodegroup::builder().set_taints(Some(taints.into())).build());
        let values: Vec<_> = of.taints.iter().map(|it| it.value.as_str()).collect();
        assert_eq!(values, ["yes", ""]);
    }

    #[test]
    fn labels_capacity_image_and_disk_are_read() {
        for (capacity, label) in [
            (CapacityTypes::Spot, "SPOT"),
            (CapacityTypes::OnDemand, "ON_DEMAND"),
            (CapacityTypes::CapacityBlock, "CAPACITY_BLOCK"),
        ] {
            let of = EksNodegroup::builder()
                .capacity_type(capacity)
                .labels("team", "vision")
                .ami_type(AmiTypes::BottlerocketX8664Nvidia)
                .disk_size(100);
            let of = read(&name(), &of.build());
            assert_eq!(of.labels[CAPACITY_LABEL], label);
            assert_eq!((of.labels["team"].as_str(), of.labels[NODEGROUP_LABEL].as_str()), ("vision", "gpu"));
            assert_eq!((of.family, of.disk, of.custom), (Family::Bottlerocket, Some(100 << 30), false));
        }
    }
}
