//! Who calls AWS, how often, and that every call is signed.

use serde_json::json;
use windlass_proto::externalgrpc::instance_status::InstanceState;
use windlass_tests::aws::{ACCESS_KEY, AwsCloud, Fault, Recorded};

use super::stage::{Stage, gpu_group};

#[tokio::test]
async fn every_call_is_signed_for_its_service() {
    let stage = Stage::of(gpu_group()).await;
    let unsigned = stage.cloud.with(|account, _| {
        account
            .calls
            .iter()
            .filter(|call| call.key.as_deref() != Some(ACCESS_KEY) || call.failed)
            .cloned()
            .collect::<Vec<_>>()
    });
    assert_eq!(unsigned, []);
}

#[tokio::test]
async fn three_pages_of_groups_are_read_to_the_end() {
    let cloud = AwsCloud::start().unwrap();
    for number in 0..250 {
        cloud.add(&format!("g-{number:03}"), gpu_group());
    }
    let mut stage = Stage::new(cloud).await;
    assert_eq!(stage.groups().await.len(), 250);
}

#[tokio::test]
async fn quiet_groups_are_read_once_a_minute_and_busy_ones_by_name() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group());
    cloud.add("quiet", gpu_group());
    let mut stage = Stage::with(cloud, &json!({"refresh": "1m"})).await;
    stage.increase("gpu", 1).await.unwrap();
    let runs = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 1;
    stage.until("the machine is seen running", runs).await;
    let calls = stage.cloud.calls("DescribeAutoScalingGroups");
    let by_name = |call: &&Recorded| call.parameters.keys().any(|key| key.starts_with("AutoScalingGroupNames"));
    let (named, all): (Vec<_>, Vec<_>) = calls.iter().partition(by_name);
    assert_eq!(all.len(), 1, "all groups were read once");
    assert!(named.iter().all(|call| call.parameters.values().all(|value| value != "quiet")), "{named:?}");
}

// in-tree: throttling is left to the SDK.
#[tokio::test]
async fn what_aws_finds_too_fast_is_asked_for_more_slowly_and_counted() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group());
    cloud.with(|account, _| account.faults.next("DescribeAutoScalingGroups", Fault::Throttled, 2));
    let mut stage = Stage::new(cloud).await;
    assert_eq!(stage.groups().await.len(), 1);
    let metrics = stage.page("/metrics").await;
    let row = "aws_calls_total{action=\"DescribeAutoScalingGroups\",outcome=\"throttled\",service=\"autoscaling\"} 2";
    assert!(metrics.contains(row), "{metrics}");
    assert!(metrics.contains("windlass_provider_aws_clock_ahead_seconds "), "{metrics}");
}
