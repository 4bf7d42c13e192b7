//! What the autoscaler is told of a machine follows its lifecycle at AWS.

use serde_json::json;
use windlass_proto::externalgrpc::instance_status::InstanceState;
use windlass_tests::aws::{AwsCloud, Fault, Hook, Pace};

use super::stage::{Stage, gpu_group};

// in-tree: lifecycle hooks are not known.
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

// in-tree: real instances have no state.
/// In-tree knows neither a machine that comes up nor one that goes.
#[tokio::test]
async fn every_state_of_a_machine_is_told() {
    use InstanceState::{InstanceCreating, InstanceDeleting, InstanceRunning};
    // Nothing is launched in its place.
    let mut stage = Stage::of(gpu_group().desired(1).suspend("Launch")).await;
    let id = stage.cloud.group("gpu").machines()[0].id.clone();
    for (state, shown, counted) in [
        ("Pending", InstanceCreating, 1),
        ("Pending:Wait", InstanceCreating, 1),
        ("Pending:Proceed", InstanceCreating, 1),
        ("InService", InstanceRunning, 1),
        ("Standby", InstanceRunning, 1),
        ("Terminating", InstanceDeleting, 0),
        ("Terminating:Wait", InstanceDeleting, 0),
        ("Terminating:Proceed", InstanceDeleting, 0),
        ("Detaching", InstanceDeleting, 0),
    ] {
        stage.cloud.group("gpu").show(&id, Some(state));
        let told =
            async |stage: &mut Stage| stage.count("gpu", shown).await == 1 && stage.target("gpu").await == counted;
        stage.until(&format!("{state} is shown"), told).await;
    }
    stage.cloud.group("gpu").show(&id, Some("Warmed:Stopped"));
    stage.until("a warm machine is none", async |stage| stage.instances("gpu").await.is_empty()).await;
}

// in-tree: no word of spot interruptions.
#[tokio::test]
async fn a_spot_machine_that_is_taken_back_is_shown_as_leaving_at_once_and_its_message_is_used_up() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group().mixed(&["g5.xlarge"], true).desired(2));
    let queue = cloud.queue("interruptions");
    let mut stage = Stage::with(cloud, &json!({"cloud": {"interruptionQueue": queue}})).await;
    let machine = stage.cloud.group("gpu").machines()[0].id.clone();
    stage.cloud.publish("not an event");
    stage.cloud.publish(
        &json!({"detail-type": "EC2 Instance Rebalance Recommendation", "detail": {"instance-id": machine}})
            .to_string(),
    );
    let struck = stage.cloud.group("gpu").interrupt(&[machine], std::time::Duration::from_mins(2));
    assert_eq!(struck.len(), 1);
    let leaving = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceDeleting).await == 1;
    stage.until("it is shown as leaving", leaving).await;
    assert_eq!(stage.target("gpu").await, 1);
    stage.until("the queue is empty", async |stage| stage.cloud.with(|account, _| account.messages()) == 0).await;
    stage.increase("gpu", 1).await.unwrap();
    let replaced = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 2;
    stage.until("another runs beside it, before it is gone", replaced).await;
    assert_eq!(stage.count("gpu", InstanceState::InstanceDeleting).await, 1);
}

/// Two minutes are too few to wait for a queue.
#[tokio::test]
async fn notices_are_told_before_their_messages_are_deleted_and_once_however_often_they_come() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group().mixed(&["g5.xlarge"], true).desired(3));
    let queue = cloud.queue("interruptions");
    cloud.fault("DeleteMessage", Fault::Error(400, "InternalError".to_owned(), "later".to_owned()));
    let mut machines: Vec<_> = cloud.group("gpu").machines().into_iter().map(|it| it.id).collect();
    machines.truncate(2);
    assert_eq!(cloud.group("gpu").interrupt(&machines, std::time::Duration::from_mins(2)).len(), 2);
    let mut stage = Stage::with(cloud, &json!({"cloud": {"interruptionQueue": queue}})).await;
    let leaving = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceDeleting).await == 2;
    stage.until("both are shown as leaving", leaving).await;
    assert_eq!((stage.target("gpu").await, stage.cloud.with(|account, _| account.messages())), (1, 2));
    stage.cloud.with(|account, _| account.faults.clear("DeleteMessage"));
    stage.until("the queue is empty", async |stage| stage.cloud.with(|account, _| account.messages()) == 0).await;
    assert_eq!(stage.target("gpu").await, 1);
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_costs_nothing_but_its_notices() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group());
    let queue = format!("{}/123456789012/nowhere", cloud.endpoint());
    let mut stage = Stage::with(cloud, &json!({"cloud": {"interruptionQueue": queue}})).await;
    let asked = async |stage: &mut Stage| !stage.cloud.calls("ReceiveMessage").is_empty();
    stage.until("the queue was asked", asked).await;
    stage.increase("gpu", 1).await.unwrap();
    let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 1;
    stage.until("a machine runs", run).await;
}
