//! Machines are bought zone by zone, and what AWS will not give is told in its own words.

use std::time::Duration;

use serde_json::json;
use windlass_proto::externalgrpc::instance_status::InstanceState;
use windlass_tests::aws::{Asg, AwsCloud, Fault, Pace, WarmPool};

use super::stage::{Stage, gpu_group};

// in-tree: LaunchInstances is not used (kubernetes/autoscaler#8970).
#[tokio::test]
async fn a_zone_without_machines_sends_the_launch_to_the_other() {
    let mut stage = Stage::of(gpu_group()).await;
    stage.cloud.group("gpu").zone("us-east-1a").gives(1, "InsufficientInstanceCapacity");
    stage.increase("gpu", 3).await.unwrap();
    assert_eq!(stage.target("gpu").await, 3);
    let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 3;
    stage.until("three machines run", run).await;
    assert_eq!(stage.target("gpu").await, 3);
    assert_eq!(stage.cloud.group("gpu").desired(), 3);
    assert!(stage.cloud.group("gpu").machines().iter().any(|machine| machine.zone == "us-east-1b"));
}

#[tokio::test]
async fn a_shortfall_is_told_with_awss_own_code_and_the_desired_capacity_stays() {
    let mut stage = Stage::of(gpu_group()).await;
    stage.cloud.group("gpu").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu", 2).await.unwrap();
    let told = async |stage: &mut Stage| {
        let errors = stage.errors("gpu").await;
        errors.iter().filter(|(class, code, _)| *class == 1 && code == "InsufficientInstanceCapacity").count() == 2
    };
    stage.until("the refusal is shown", told).await;
    assert_eq!(stage.cloud.group("gpu").desired(), 0);
}

/// In-tree gives every machine to the zone that AWS picks, and forgets which one refused.
// in-tree: nothing is remembered of a zone.
#[tokio::test]
async fn a_zone_that_refused_lately_is_asked_last_by_the_next_launch() {
    let mut stage = Stage::of(gpu_group()).await;
    stage.cloud.group("gpu").zone("us-east-1a").refuse("InsufficientInstanceCapacity");
    for machines in 1..=2 {
        stage.increase("gpu", 1).await.unwrap();
        let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == machines;
        stage.until("the machine runs", run).await;
    }
    let zones = asked(&stage, "LaunchInstances", "AvailabilityZones.member.1");
    assert_eq!(zones, ["us-east-1a", "us-east-1b", "us-east-1b"]);
}

// in-tree: every failed activity is "out of resources".
#[tokio::test]
async fn every_kind_of_refusal_is_told_in_its_class_by_both_ways_to_buy() {
    for launch in ["launch-instances", "desired-capacity"] {
        for (code, class) in [
            ("InsufficientInstanceCapacity", 1),
            ("VcpuLimitExceeded", 1),
            ("InvalidParameterValue", 99),
            ("UnauthorizedOperation", 99),
        ] {
            let mut stage = staged(gpu_group(), launch).await;
            stage.cloud.group("gpu").refuse(code);
            stage.increase("gpu", 2).await.unwrap();
            let told = async |stage: &mut Stage| {
                let errors = stage.errors("gpu").await;
                errors.iter().filter(|(told, named, _)| *told == class && named == code).count() == 2
            };
            stage.until(&format!("{code} is shown by {launch}"), told).await;
        }
    }
}

#[tokio::test]
async fn a_launch_whose_answer_is_lost_is_asked_again_under_its_token_and_bought_once() {
    let mut stage = Stage::of(gpu_group()).await;
    stage.cloud.with(|account, _| account.faults.next("LaunchInstances", Fault::HalfAnswer, 1));
    stage.increase("gpu", 2).await.unwrap();
    let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 2;
    stage.until("two machines run", run).await;
    stage.relisted().await;
    let mut tokens = asked(&stage, "LaunchInstances", "ClientToken");
    assert!(tokens.len() >= 2, "{tokens:?}");
    tokens.dedup();
    assert_eq!(tokens.len(), 1);
    assert_eq!((stage.cloud.group("gpu").desired(), stage.target("gpu").await), (2, 2));
}

#[tokio::test]
async fn more_than_a_hundred_machines_are_bought_in_several_calls() {
    let mut stage = Stage::of(gpu_group().between(0, 300)).await;
    stage.increase("gpu", 230).await.unwrap();
    let come = async |stage: &mut Stage| stage.cloud.group("gpu").machines().len() == 230;
    stage.until("they have all come", come).await;
    assert_eq!(asked(&stage, "LaunchInstances", "RequestedCapacity"), ["100", "100", "30"]);
}

// in-tree: no word of warm pools.
#[tokio::test]
async fn a_group_that_launch_instances_does_not_serve_has_its_desired_capacity_raised() {
    let pool = WarmPool { min: 1, state: "Stopped" };
    let mixed = json!({"OnDemandBaseCapacity": 1, "OnDemandPercentageAboveBaseCapacity": 0});
    let mut policy = gpu_group().mixed(&["g5.xlarge"], true);
    policy.description["MixedInstancesPolicy"]["InstancesDistribution"] = mixed;
    for group in [gpu_group().warm_pool(pool), policy] {
        let mut stage = Stage::of(group).await;
        stage.increase("gpu", 2).await.unwrap();
        let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 2;
        stage.until("two machines run", run).await;
        assert_eq!(stage.target("gpu").await, 2);
        assert_eq!(asked(&stage, "SetDesiredCapacity", "DesiredCapacity"), ["2"]);
        assert_eq!(stage.cloud.calls("LaunchInstances"), []);
    }
}

/// Credentials made for the in-tree provider know nothing of LaunchInstances.
#[tokio::test]
async fn without_the_permission_for_launch_instances_the_desired_capacity_is_raised() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group());
    cloud.with(|account, _| _ = account.denied.insert("autoscaling:LaunchInstances".to_owned()));
    let mut stage = Stage::new(cloud).await;
    for machines in 1..=2 {
        stage.increase("gpu", 1).await.unwrap();
        let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == machines;
        stage.until("the machine runs", run).await;
    }
    assert_eq!(
        asked(&stage, "LaunchInstances", "ClientToken").len(),
        1,
        "asked once, and not again: {:?}",
        stage.cloud.calls("LaunchInstances")
    );
    let told = async |stage: &mut Stage| stage.page("/").await.contains("LaunchInstances cannot be used with it");
    stage.until("the page says so", told).await;
}

/// A policy may be tied to tags of the groups: what is denied for one says nothing of the others.
#[tokio::test]
async fn a_launch_that_is_denied_for_one_group_is_still_asked_for_the_others() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("denied", gpu_group());
    cloud.add("allowed", gpu_group());
    cloud.with(|account, _| _ = account.denied.insert("autoscaling:LaunchInstances/denied".to_owned()));
    let mut stage = Stage::new(cloud).await;
    for machines in 1..=2 {
        for group in ["denied", "allowed"] {
            stage.increase(group, 1).await.unwrap();
            let run = async |stage: &mut Stage| stage.count(group, InstanceState::InstanceRunning).await == machines;
            stage.until("the machine runs", run).await;
        }
    }
    let groups = |action| {
        let mut groups = asked(&stage, action, "AutoScalingGroupName");
        groups.sort_unstable();
        groups
    };
    assert_eq!(
        groups("LaunchInstances"),
        ["allowed", "allowed", "denied"],
        "denied once, and then not asked for a while"
    );
    assert_eq!(groups("SetDesiredCapacity"), ["denied", "denied"]);
}

/// In-tree raises by what it remembers; a lost answer makes it count twice.
#[tokio::test]
async fn a_raise_whose_answer_is_lost_is_not_made_twice() {
    let mut stage = staged(gpu_group().desired(1), "desired-capacity").await;
    stage.cloud.with(|account, _| account.faults.next("SetDesiredCapacity", Fault::HalfAnswer, 1));
    stage.increase("gpu", 2).await.unwrap();
    let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 3;
    stage.until("three machines run", run).await;
    stage.relisted().await;
    assert_eq!((stage.cloud.group("gpu").desired(), stage.target("gpu").await), (3, 3));
}

/// For a refusal that passes, and for requests that AWS never hears.
#[tokio::test]
async fn a_raise_that_did_not_come_about_is_made_in_the_next_try() {
    let pending = "You already have a pending update to an Auto Scaling resource.";
    for fault in [Fault::Error(400, "ResourceContention".to_owned(), pending.to_owned()), Fault::Down] {
        let mut stage = staged(gpu_group().desired(1), "desired-capacity").await;
        stage.cloud.with(|account, _| account.faults.next("SetDesiredCapacity", fault.clone(), 3));
        stage.increase("gpu", 2).await.unwrap();
        let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 3;
        stage.until(&format!("three machines run after {fault:?}"), run).await;
        stage.relisted().await;
        assert_eq!((stage.cloud.group("gpu").desired(), stage.target("gpu").await), (3, 3));
    }
}

#[tokio::test]
async fn a_restart_between_order_and_machines_neither_loses_nor_doubles_them() {
    let pace = Pace { react: Duration::from_secs(2), ..Pace::default() };
    let mut stage = staged(gpu_group().desired(1).pace(pace), "desired-capacity").await;
    stage.increase("gpu", 2).await.unwrap();
    let raised = async |stage: &mut Stage| stage.cloud.group("gpu").desired() == 3;
    stage.until("the desired capacity is raised", raised).await;
    stage.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.start();
    let run = async |stage: &mut Stage| {
        !stage.groups().await.is_empty() && stage.count("gpu", InstanceState::InstanceRunning).await == 3
    };
    stage.until("three machines run", run).await;
    stage.relisted().await;
    assert_eq!((stage.cloud.group("gpu").desired(), stage.target("gpu").await), (3, 3));
}

// in-tree: after a restart any old failed activity counts.
/// In-tree counts any failure of the last six weeks after a restart, and backs a healthy group off.
#[tokio::test]
async fn failures_from_before_the_order_never_count() {
    let mut stage = staged(gpu_group(), "desired-capacity").await;
    stage.cloud.group("gpu").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu", 1).await.unwrap();
    stage.until("the refusal is shown", async |stage| stage.errors("gpu").await.len() == 1).await;
    let shown = stage.instances("gpu").await[0].id.clone();
    stage.delete("gpu", &[&shown]).await.unwrap();
    stage.kill();
    stage.cloud.plenty();
    stage.start();
    let listed = async |stage: &mut Stage| !stage.groups().await.is_empty();
    stage.until("the groups are listed", listed).await;
    stage.increase("gpu", 2).await.unwrap();
    let run = async |stage: &mut Stage| {
        assert_eq!(stage.errors("gpu").await, []);
        stage.count("gpu", InstanceState::InstanceRunning).await == 2
    };
    stage.until("two machines run", run).await;
}

// in-tree: one failure makes all placeholders fail.
/// In-tree drops all placeholders at the first failure, those that are about to come too.
#[tokio::test]
async fn of_an_order_that_is_filled_in_part_exactly_the_rest_is_refused() {
    let mut stage = staged(gpu_group(), "desired-capacity").await;
    for zone in ["us-east-1a", "us-east-1b"] {
        stage.cloud.group("gpu").zone(zone).gives(1, "InsufficientInstanceCapacity");
    }
    stage.increase("gpu", 3).await.unwrap();
    stage.until("one is refused", async |stage| stage.errors("gpu").await.len() == 1).await;
    let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 2;
    stage.until("two run", run).await;
    assert_eq!(stage.target("gpu").await, 3, "until the autoscaler has taken note of the refusal");
    let errors = stage.errors("gpu").await;
    assert!(errors[0].2.contains("us-east-1a") && errors[0].2.contains("us-east-1b"), "{errors:?}");
}

#[tokio::test]
async fn a_group_whose_launches_are_suspended_says_so_and_is_not_asked() {
    let mut stage = Stage::of(gpu_group().suspend("Launch")).await;
    stage.increase("gpu", 1).await.unwrap();
    let told = async |stage: &mut Stage| stage.errors("gpu").await.iter().any(|(_, code, _)| code == "LaunchSuspended");
    stage.until("the obstacle is shown", told).await;
    assert_eq!((stage.cloud.calls("LaunchInstances"), stage.cloud.calls("SetDesiredCapacity")), (vec![], vec![]));
}

// in-tree: AZRebalance may end nodes, and nothing says so (kubernetes/autoscaler#3693, #1744).
/// AZRebalance ends nodes behind the autoscaler's back (kubernetes/autoscaler#3693).
#[tokio::test]
async fn az_rebalance_is_told_and_suspended_where_that_is_wanted() {
    let stage = Stage::of(gpu_group()).await;
    assert!(stage.page("/").await.contains("AZRebalance may end machines"));
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group());
    let mut stage = Stage::with(cloud, &json!({"cloud": {"suspendAzRebalance": true}})).await;
    stage.relisted().await;
    assert!(stage.cloud.group("gpu").with(|group, _| group.suspended.contains("AZRebalance")));
    assert_eq!(stage.cloud.calls("SuspendProcesses").len(), 1);
    assert!(!stage.page("/").await.contains("AZRebalance"));
}

/// A provider that buys by this call, on one group.
pub(crate) async fn staged(group: Asg, launch: &str) -> Stage {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", group);
    Stage::with(cloud, &json!({"cloud": {"launch": launch}})).await
}

/// One parameter of every call of an action, in order.
fn asked(stage: &Stage, action: &str, parameter: &str) -> Vec<String> {
    stage.cloud.calls(action).into_iter().filter_map(|mut call| call.parameters.remove(parameter)).collect()
}
