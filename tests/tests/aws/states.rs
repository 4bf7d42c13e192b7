//! What the autoscaler is told of a machine follows its lifecycle at AWS.

use windlass_proto::externalgrpc::instance_status::InstanceState;
use windlass_tests::aws::{Hook, Pace};

use super::stage::{Stage, gpu_group};

#[tokio::test]
async fn a_machine_that_waits_for_its_hook_is_still_being_created() {
    let hour = std::time::Duration::from_hours(1);
    let hook = Hook { name: "bootstrap".to_owned(), launching: true, holds: hour };
    let mut stage = Stage::of(gpu_group().hook(hook).pace(Pace::default())).await;
    stage.increase("gpu", 1).await.unwrap();
    let waits = async |stage: &mut Stage| stage.cloud.group("gpu").in_state("Pending:Wait").len() == 1;
    stage.until("the machine waits for its hook", waits).await;
    stage.relisted().await;
    assert_eq!(stage.count("gpu", InstanceState::InstanceCreating).await, 1);
}
