//! The first listing of a new process: groups are there at once, nothing is promised that was not read, and what the last
//! process read is known.

use serde_json::{Value, json};
use windlass_tests::aws::{Asg, AwsCloud, Fault};

use super::{stage::Stage, templates::bare};

/// The managed node group of a name.
fn managed(name: &str) -> Asg {
    bare().tag("eks:cluster-name", "c1").tag("eks:nodegroup-name", name).mixed(&["g5.xlarge"], true).between(0, 5)
}

fn nodegroup() -> Value {
    json!({"status": "ACTIVE", "capacityType": "SPOT", "labels": {"team": "vision"},
           "taints": [{"key": "gpu", "value": "yes", "effect": "NO_SCHEDULE"}]})
}

/// An account with these node groups and the group `gpu`, which is one, too.
fn account(others: usize) -> AwsCloud {
    let cloud = AwsCloud::start().unwrap();
    let names = (0..others).map(|number| format!("ng-{number:03}")).chain(["gpu".to_owned()]);
    for name in names {
        cloud.add(&name, managed(&name));
        cloud.with(|account, _| account.nodegroups.insert(("c1".to_owned(), name), nodegroup()));
    }
    cloud
}

async fn taints(stage: &mut Stage) -> usize {
    stage.template().await.spec.map_or(0, |spec| spec.taints.len())
}

#[tokio::test]
async fn a_restart_knows_what_the_last_process_read_and_asks_for_nothing_that_is_not_due() {
    let mut stage = Stage::new(account(0)).await;
    let read = async |stage: &mut Stage| stage.label("team").await.as_deref() == Some("vision");
    stage.until("the node group is read", read).await;
    let kept = async |stage: &mut Stage| stage.path("state.json.templates").exists();
    stage.until("what was read is kept", kept).await;
    stage.kill();
    let calls = stage.cloud.actions();
    for call in ["DescribeNodegroup", "DescribeLaunchTemplateVersions", "DescribeInstanceTypes"] {
        stage.cloud.fault(call, Fault::Hang);
    }
    stage.start();
    stage.until("the groups are listed again", async |stage: &mut Stage| !stage.groups().await.is_empty()).await;
    assert_eq!((stage.label("team").await.as_deref(), taints(&mut stage).await), (Some("vision"), 1));
    assert_eq!(stage.allocatable("nvidia.com/gpu").await.as_deref(), Some("1"));
    let again = stage.cloud.actions();
    for call in ["eks:DescribeNodegroup", "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeInstanceTypes"] {
        assert_eq!(again[call], calls[call], "{call}");
    }
    // A file that cannot be read costs nothing but calls.
    stage.kill();
    stage.cloud.no_faults();
    std::fs::write(stage.path("state.json.templates"), "{").unwrap();
    stage.start();
    stage.until("the groups are listed once more", async |stage: &mut Stage| !stage.groups().await.is_empty()).await;
    stage.until("the node group is read again", read).await;
}

#[tokio::test]
async fn hundreds_of_node_groups_are_listed_before_they_are_read_and_nothing_is_promised_of_those_until_then() {
    let cloud = account(300);
    cloud.fault("DescribeNodegroup", Fault::Hang);
    let mut stage = Stage::new(cloud).await;
    assert_eq!(stage.groups().await.len(), 301);
    stage.refresh().await.unwrap();
    assert_eq!(stage.allocatable("cpu").await.as_deref(), Some("0m"), "its taints are not known");
    stage.warns("its EKS node group gpu has not been read yet").await;
    stage.increase("gpu", 1).await.unwrap();
    stage.until("it is bought, being asked for", async |stage| stage.cloud.group("gpu").desired() == 1).await;
}

#[tokio::test]
async fn a_node_group_that_may_not_be_read_is_described_by_what_else_is_known() {
    let cloud = account(0);
    cloud.with(|account, _| account.denied.insert("eks:DescribeNodegroup".to_owned()));
    let mut stage = Stage::new(cloud).await;
    stage.warns("its EKS node group gpu could not be read").await;
    assert_eq!((stage.allocatable("cpu").await.as_deref(), taints(&mut stage).await), (Some("3920m"), 0));
}
