//! What a loop of the autoscaler sees that begins after AWS has answered. The provider lists everything once in ten
//! minutes here: what it learns, it learns because a loop begins.

use std::time::Duration;

use serde_json::json;
use windlass_proto::externalgrpc::instance_status::InstanceState;
use windlass_tests::aws::{Activity, Asg, AwsCloud, Fault, Pace};

use super::stage::{Stage, gpu_group};

/// After the provider's own first look at an order, and before its second.
const LATE: Duration = Duration::from_secs(6);
/// Longer than any test.
const NEVER: Duration = Duration::from_hours(1);

/// In-tree reads activities once a minute.
#[tokio::test]
async fn a_refusal_before_a_loop_begins_is_seen_in_that_loop_by_desired_capacity() {
    let mut stage = seldom(&["gpu"], LATE, "desired-capacity").await;
    stage.cloud.group("gpu").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu", 2).await.unwrap();
    stage.until("AWS has given up", async |stage| failed(stage, "gpu") == 2).await;
    let errors = seen_by_a_loop(&mut stage, "gpu", 2).await;
    assert!(errors.iter().all(|(class, code, _)| *class == 1 && code == "InsufficientInstanceCapacity"), "{errors:?}");
}

#[tokio::test]
async fn a_loop_waits_for_the_answer_to_launch_instances() {
    let mut stage = seldom(&["gpu"], LATE, "launch-instances").await;
    stage.cloud.group("gpu").refuse("InsufficientInstanceCapacity");
    stage.cloud.fault("LaunchInstances", Fault::Slow(Duration::from_millis(500)));
    stage.increase("gpu", 2).await.unwrap();
    seen_by_a_loop(&mut stage, "gpu", 2).await;
    assert_eq!(stage.cloud.calls("DescribeScalingActivities"), []);
}

#[tokio::test]
async fn what_came_before_a_loop_begins_is_not_refused_with_the_rest() {
    let mut stage = seldom(&["gpu"], LATE, "desired-capacity").await;
    for zone in ["us-east-1a", "us-east-1b"] {
        stage.cloud.group("gpu").zone(zone).gives(1, "InsufficientInstanceCapacity");
    }
    stage.increase("gpu", 3).await.unwrap();
    stage.until("AWS has given up", async |stage| failed(stage, "gpu") == 2).await;
    seen_by_a_loop(&mut stage, "gpu", 1).await;
    let instances = stage.instances("gpu").await;
    let machines = instances.iter().filter(|it| it.id.starts_with("aws:///")).count();
    assert_eq!((machines, stage.target("gpu").await), (2, 3), "{instances:?}");
}

/// AWS tries the next zone by itself: a loop in between is told nothing, the one after that is.
#[tokio::test]
async fn a_zone_that_refuses_is_told_once_the_others_had_their_time() {
    let mut stage = seldom(&["gpu"], NEVER, "desired-capacity").await;
    stage.increase("gpu", 1).await.unwrap();
    stage.until("the order is given", async |stage| stage.cloud.group("gpu").desired() == 1).await;
    stage.cloud.group("gpu").with(|group, now| group.activities.push_back(refusal("us-east-1a", now)));
    let before = stage.cloud.calls("DescribeScalingActivities").len();
    let read = async |stage: &mut Stage| {
        // However slow this machine is: it has only just refused.
        stage.cloud.group("gpu").with(|group, now| group.activities.back_mut().unwrap().ended_at = now);
        stage.refresh().await.unwrap();
        stage.cloud.calls("DescribeScalingActivities").len() >= before + 2
    };
    stage.until("it is read", read).await;
    assert_eq!(stage.errors("gpu").await, []);
    let told = async |stage: &mut Stage| {
        stage.refresh().await.unwrap();
        stage.errors("gpu").await.len() == 1
    };
    stage.until("it is told", told).await;
}

/// However many groups were asked, one question tells what became of them.
#[tokio::test]
async fn orders_of_many_groups_are_read_together() {
    let names = ["gpu", "gpu-2", "gpu-3"];
    let mut stage = seldom(&names, LATE, "desired-capacity").await;
    for name in names {
        stage.cloud.group(name).refuse("MaxSpotInstanceCountExceeded");
        stage.increase(name, 1).await.unwrap();
    }
    for name in names {
        stage.until("AWS has given up", async |stage| failed(stage, name) > 0).await;
    }
    for name in names {
        seen_by_a_loop(&mut stage, name, 1).await;
    }
    let asked = stage.cloud.calls("DescribeScalingActivities");
    assert!(asked.iter().all(|it| !it.parameters.contains_key("AutoScalingGroupName")), "{asked:?}");
}

#[tokio::test]
async fn a_storm_of_loops_asks_aws_no_more_often_and_an_aws_that_hangs_holds_none_up() {
    let mut stage = seldom(&["gpu"], NEVER, "desired-capacity").await;
    stage.increase("gpu", 1).await.unwrap();
    stage.until("the order is given", async |stage| stage.cloud.group("gpu").desired() == 1).await;
    let begun = tokio::time::Instant::now();
    for _ in 0..400 {
        stage.refresh().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (asked, most) = (stage.cloud.calls("DescribeScalingActivities").len(), begun.elapsed().as_secs() / 3 + 2);
    assert!(asked >= 1 && asked as u64 <= most, "{asked} readings, at most {most}");
    stage.cloud.fault("DescribeScalingActivities", Fault::Hang);
    for _ in 0..8 {
        stage.refresh().await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(stage.count("gpu", InstanceState::InstanceCreating).await, 1);
}

/// The errors of which a loop learns that waits for AWS's answer. It waits for a second at most, and a machine may stall
/// for longer: one of ten does. Ten that did not wait would be over before AWS is asked.
async fn seen_by_a_loop(stage: &mut Stage, group: &str, count: usize) -> Vec<(i32, String, String)> {
    for _ in 0..10 {
        stage.refresh().await.unwrap();
        let errors = stage.errors(group).await;
        if errors.len() == count {
            return errors;
        }
    }
    panic!("ten loops came and went while AWS was answering");
}

/// A provider that lists everything once in ten minutes, on groups that act on a new desired capacity after `react`.
async fn seldom(names: &[&str], react: Duration, launch: &str) -> Stage {
    let cloud = AwsCloud::start().unwrap();
    for name in names {
        cloud.add(name, gpu_group().pace(Pace { react, retry: NEVER, ..Pace::default() }));
    }
    Stage::with(cloud, &json!({"refresh": "10m", "cloud": {"launch": launch}})).await
}

/// How many attempts of the group's have failed.
fn failed(stage: &Stage, group: &str) -> usize {
    let failures = |group: &mut Asg, _| group.activities.iter().filter(|it| it.failure.is_some()).count();
    stage.cloud.group(group).with(failures)
}

/// A zone refuses, and nothing else is tried yet.
fn refusal(zone: &str, now: u64) -> Activity {
    Activity {
        id: "00000000-0000-4000-8000-00000000abcd".to_owned(),
        description: "Launching a new EC2 instance".to_owned(),
        cause: String::new(),
        started_at: now,
        ended_at: now,
        zone: zone.to_owned(),
        failure: Some(
            "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity.".to_owned(),
        ),
    }
}
