//! The machines of a scenario as Auto Scaling groups of a faked AWS account: tagged as their owners tag them, with the
//! same events as on the embedded cloud, and the machines that a kubelet could run on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::world::{Buying, Event, GPU, GPU_LABEL, MachineGroup, World};
use crate::aws::{ACCESS_KEY, Asg, AwsCloud, Pace, REGION, Scarcity};

/// The cluster whose tags the groups carry.
const CLUSTER: &str = "rig";
/// How fast the groups act: slower than in the tests of the provider alone, so that there is something to wait for.
const PACE: Pace = Pace {
    react: Duration::from_millis(500),
    retry: Duration::from_secs(5),
    pending: Duration::from_secs(2),
    shutdown: Duration::from_secs(1),
    health_check: Duration::from_secs(10),
};

/// What the provider needs in its environment: keys that are nobody's, and no look at the real instance metadata.
pub const ENVIRONMENT: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
    ("AWS_SECRET_ACCESS_KEY", "not-a-secret"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// An account with the scenario's groups.
///
/// # Errors
/// When it cannot listen.
pub fn account(world: &World) -> Result<Arc<AwsCloud>> {
    let cloud = AwsCloud::start().context("the faked AWS")?;
    let zones = world.zones();
    for group in &world.groups {
        let template = format!("lt-{}", group.id);
        let market = (group.market == "spot").then(|| json!({"marketType": "spot"}));
        let data = json!({"instanceType": group.instance_type, "imageId": "ami-0", "instanceMarketOptions": market});
        cloud.with(|account, _| account.launch_template(&template, data));
        cloud.add(group.id, asg(group, &zones).launch_template(&template, "$Default"));
    }
    for event in &world.events {
        let (Event::SoldOut { group, .. } | Event::Left { group, .. }) = event;
        let left = if let Event::Left { machines, .. } = event { *machines } else { 0 };
        cloud.scarce(scarcity(group).after(left));
    }
    Ok(Arc::new(cloud))
}

/// `cloud` of the provider's configuration.
#[must_use]
pub fn settings(cloud: &AwsCloud, world: &World, buying: Buying) -> Value {
    let mut settings = json!({"kind": "aws", "region": REGION, "endpoint": cloud.endpoint(), "clusterName": CLUSTER});
    if buying == Buying::DesiredCapacity {
        settings["launch"] = json!("desired-capacity");
    }
    if world.queue {
        settings["interruptionQueue"] = json!(cloud.queue("interruptions"));
    }
    settings
}

/// What was sold out is for sale again when its time is over.
pub(super) fn lift(world: &World, cloud: &Arc<AwsCloud>, tasks: &mut JoinSet<Result<()>>) {
    for event in &world.events {
        let Event::SoldOut { group, lasts } = *event else { continue };
        let cloud = cloud.clone();
        tasks.spawn(async move {
            tokio::time::sleep(lasts).await;
            cloud.scarce(scarcity(group).after(u32::MAX));
            // A task of the stage that ends, ends the stage.
            std::future::pending().await
        });
    }
}

/// Every instance that has a host, by provider id: its group, and whether a kubelet can run on it.
#[must_use]
pub fn hosts(cloud: &AwsCloud) -> BTreeMap<String, (String, bool)> {
    cloud.with(|account, now| {
        let mut hosts = BTreeMap::new();
        for (name, group) in &account.groups {
            let hosted =
                |it: &&crate::aws::Machine| it.state(now).is_some() && it.host_ends_at.is_none_or(|end| now < end);
            for machine in group.machines.values().filter(hosted) {
                let id = machine.provider_id();
                hosts.insert(id, (name.clone(), machine.runs(now)));
            }
        }
        hosts
    })
}

fn scarcity(group: &str) -> Scarcity {
    Scarcity::new("InsufficientInstanceCapacity").group(group)
}

/// The group with the tags that say what its machines will be.
fn asg(group: &MachineGroup, zones: &[&str]) -> Asg {
    let mut asg = Asg::new(zones).between(0, group.max).of_cluster(CLUSTER).pace(PACE);
    let of_node = ["kubernetes.io/hostname", "topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
    for (key, value) in group.labels("", "", REGION) {
        if !of_node.contains(&key.as_str()) {
            asg = asg.node_template(&format!("label/{key}"), &value);
        }
    }
    for (name, amount) in group.resources(true).as_object().into_iter().flatten() {
        asg = asg.node_template(&format!("resources/{name}"), amount.as_str().unwrap_or_default());
    }
    if group.gpus > 0 {
        asg = asg.node_template(&format!("taint/{GPU}"), "present:NoSchedule");
        asg = asg.node_template(&format!("label/{GPU_LABEL}"), "nvidia-a10g");
    }
    for (name, value) in group.options.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        asg = asg.node_template(&format!("autoscaling-options/{}", name.to_lowercase()), &value);
    }
    asg
}
