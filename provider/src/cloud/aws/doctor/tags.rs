//! How many groups each discovery spec finds, and where one finds none, how far each of its tags alone would reach: the
//! usual trouble is a cluster's name that is not quite the tag's.

use aws_sdk_autoscaling::Client;

use super::super::{access::Access, discovery::Discovery, errors};
use crate::{cloud::CloudError, config::Config, doctor::Finding, expander::plural};

const ABOUT: &str = "tags";
const NAMED: &str = "names";
/// Names in one call; the API's own limit.
const PAGE: usize = 100;

pub(super) async fn examine(access: &Access, config: &Config) -> Vec<Finding> {
    let client = Client::new(&access.sdk);
    let mut findings = Vec::new();
    for spec in config.cloud.specs() {
        findings.push(match count(&client, &spec).await {
            Ok(0) => nothing(&client, &spec).await,
            Ok(count) => Finding::ok(ABOUT, format!("{spec}: {}", plural(count, "group"))),
            Err(error) => Finding::note(ABOUT, format!("{spec}: could not be asked: {error}"), ""),
        });
    }
    findings.extend(named(&client, config).await);
    findings
}

/// Groups that the configuration names and AWS does not have.
async fn named(client: &Client, config: &Config) -> Option<Finding> {
    let names: Vec<_> = config.cloud.groups.iter().map(|group| group.name.clone()).take(PAGE).collect();
    if names.is_empty() {
        return None;
    }
    let request = client.describe_auto_scaling_groups().set_auto_scaling_group_names(Some(names.clone()));
    let found = match request.max_records(100).send().await {
        Ok(answer) => answer.auto_scaling_groups.unwrap_or_default(),
        Err(error) => {
            let error = errors::failed("DescribeAutoScalingGroups", &error);
            return Some(Finding::note(NAMED, format!("could not be asked: {error}"), ""));
        }
    };
    let is_missing = |name: &&String| !found.iter().any(|group| group.auto_scaling_group_name.as_ref() == Some(*name));
    let missing: Vec<_> = names.iter().filter(is_missing).map(String::as_str).collect();
    Some(match missing.as_slice() {
        [] => Finding::ok(NAMED, format!("{} named in the configuration", plural(found.len() as u64, "group"))),
        missing => {
            let what = format!("the region has no Auto Scaling group {}", missing.join(", "));
            Finding::mend(
                NAMED,
                what,
                "mend the name in cloud.groups (it is the Auto Scaling group's, not the EKS node group's), or the region",
            )
        }
    })
}

async fn nothing(client: &Client, spec: &str) -> Finding {
    let tags: Vec<_> = spec.trim_start_matches("asg:tag=").split(',').map(str::trim).collect();
    let mut each = Vec::new();
    for tag in tags {
        let found = count(client, &format!("asg:tag={tag}")).await.unwrap_or(0);
        each.push(format!("{} with {tag}", plural(found, "group")));
    }
    let remedy = "a group needs all tags of a spec: add the missing ones, or name the cluster as the tag does (cloud.clusterName)";
    Finding::mend(ABOUT, format!("{spec}: no group; {}", each.join(", ")), remedy)
}

/// At most a page: enough to tell none from some.
async fn count(client: &Client, spec: &str) -> Result<u32, CloudError> {
    let Ok(spec) = spec.parse::<Discovery>() else { return Ok(0) };
    let request = client.describe_auto_scaling_groups().set_filters(Some(spec.filters())).max_records(100);
    let answer = request.send().await.map_err(|error| errors::failed("DescribeAutoScalingGroups", &error))?;
    Ok(u32::try_from(answer.auto_scaling_groups().len()).unwrap_or(u32::MAX))
}

/// Any group of ours, to try permissions on.
pub(super) async fn first_group(client: &Client, config: &Config) -> Option<String> {
    if let Some(named) = config.cloud.groups.first() {
        return Some(named.name.clone());
    }
    for spec in config.cloud.specs().iter().filter_map(|spec| spec.parse::<Discovery>().ok()) {
        let request = client.describe_auto_scaling_groups().set_filters(Some(spec.filters())).max_records(1);
        let found = request.send().await.ok()?.auto_scaling_groups.unwrap_or_default().into_iter().next();
        if let Some(name) = found.and_then(|group| group.auto_scaling_group_name) {
            return Some(name);
        }
    }
    None
}
