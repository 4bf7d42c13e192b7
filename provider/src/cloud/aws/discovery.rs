//! Which Auto Scaling groups are ours: by tags in cluster-autoscaler's own syntax, by name, and not by name.

use std::{collections::BTreeMap, fmt, str::FromStr};

use aws_sdk_autoscaling::{
    Client,
    operation::describe_auto_scaling_groups::builders::DescribeAutoScalingGroupsFluentBuilder,
    types::{AutoScalingGroup, Filter},
};
use serde::Deserialize;

use super::{errors, pages};
use crate::{
    cloud::{CloudError, Missing},
    config::{NamedGroup, limits},
};

/// Groups in one page, and names in one call; the API's own limit.
const PAGE: usize = 100;

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

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    /// A group is ours when any of these matches.
    pub specs: Vec<Discovery>,
    /// A group is ours when it is named here.
    pub groups: Vec<NamedGroup>,
    /// A group is not ours when its name matches any of these; `*` stands for any text, `?` for one character.
    pub exclude: Vec<String>,
}

impl Ours {
    /// Every group that is ours, by name.
    ///
    /// # Errors
    /// Any page that could not be read: a part of the groups is none.
    pub(super) async fn find(&self, client: &Client) -> Result<BTreeMap<String, AutoScalingGroup>, CloudError> {
        let all = client.describe_auto_scaling_groups().max_records(i32::try_from(PAGE).unwrap_or(i32::MAX));
        let by_tags = self.specs.iter().map(|spec| all.clone().set_filters(Some(spec.filters())));
        let names: Vec<String> = self.groups.iter().map(|group| group.name.clone()).collect();
        let by_name = names.chunks(PAGE).map(|names| all.clone().set_auto_scaling_group_names(Some(names.to_vec())));
        let mut found = BTreeMap::new();
        for request in by_tags.chain(by_name) {
            let groups = described(&request).await?.into_iter();
            found.extend(groups.filter_map(|group| Some((group.auto_scaling_group_name.clone()?, group))));
        }
        // One with a status is on its way out.
        found.retain(|name, group| group.status().is_none() && !self.excludes(name));
        Ok(found)
    }

    /// Groups that are named and not among those that were found.
    pub(super) fn missing(&self, found: &[AutoScalingGroup], region: &str) -> Vec<Missing> {
        let is_there = |name: &str| found.iter().any(|group| group.auto_scaling_group_name() == Some(name));
        let missing = |NamedGroup { name, .. }: &NamedGroup| {
            let why = if self.excludes(name) {
                "cloud.groups names it and cloud.exclude leaves it out: take it from one of the two".to_owned()
            } else {
                format!(
                    "cloud.groups names it, and {region} has no such Auto Scaling group, or it is being deleted: mend the name (the Auto Scaling group's, not the EKS node group's) or the region"
                )
            };
            Missing { group: name.as_str().into(), why }
        };
        self.groups.iter().filter(|named| !is_there(&named.name)).map(missing).collect()
    }

    /// What is said of the group by name.
    pub(super) fn named(&self, name: &str) -> Option<&NamedGroup> {
        self.groups.iter().find(|group| group.name == name)
    }

    fn excludes(&self, name: &str) -> bool {
        self.exclude.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
    }
}

/// Every page of `DescribeAutoScalingGroups`.
///
/// # Errors
/// AWS's own.
pub(super) async fn described(
    request: &DescribeAutoScalingGroupsFluentBuilder,
) -> Result<Vec<AutoScalingGroup>, CloudError> {
    const CALL: &str = "DescribeAutoScalingGroups";
    pages::all(CALL, limits::AWS_PAGES, async |token| {
        let page = request.clone().set_next_token(token).send().await.map_err(|error| errors::failed(CALL, &error))?;
        Ok((page.auto_scaling_groups.unwrap_or_default(), page.next_token))
    })
    .await
}

/// Whether `text` is of the form of `pattern`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and up to where it reaches.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == text.get(t) => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, reach)) => {
                    star = Some((at, reach + 1));
                    (p, t) = (at + 1, reach + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_is_written_as_for_the_in_tree_provider() {
        let spec: Discovery = "asg:tag=k8s.io/cluster-autoscaler/enabled,team=vision".parse().unwrap();
        assert_eq!(spec.to_string(), "asg:tag=k8s.io/cluster-autoscaler/enabled,team=vision");
        let filters: Vec<_> =
            spec.filters().iter().map(|it| (it.name().unwrap().to_owned(), it.values().to_vec())).collect();
        assert_eq!(filters[0], ("tag-key".to_owned(), vec!["k8s.io/cluster-autoscaler/enabled".to_owned()]));
        assert_eq!(filters[1], ("tag:team".to_owned(), vec!["vision".to_owned()]));
        for wrong in ["", "asg:tag=", "mig:namePrefix=x", "asg:tag=a,,b"] {
            assert!(wrong.parse::<Discovery>().unwrap_err().to_string().contains("asg:tag="), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_matches_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("gpu", "gpu", true),
            ("gpu", "gpu-1", false),
            ("gpu-*", "gpu-1", true),
            ("*", "", true),
            ("*-spot-*", "a-spot-b-spot-c", true),
            ("*-spot", "a-spot-b", false),
            ("gpu-?", "gpu-1", true),
            ("gpu-?", "gpu-", false),
            ("", "gpu", false),
            ("a*b*c", "abbbc", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
