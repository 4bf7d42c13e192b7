//! Machines are bought zone by zone, and what AWS will not give is told in its own words.

use windlass_proto::externalgrpc::instance_status::InstanceState;

use super::stage::{Stage, gpu_group};

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
