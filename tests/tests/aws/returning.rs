//! Exactly the machines that are named go back, and nothing else ever does.

use windlass_proto::externalgrpc::{ExternalGrpcNode, NodeGroupDeleteNodesRequest, instance_status::InstanceState};
use windlass_tests::aws::{Fault, Hook, Machine};

use super::{
    buying::staged,
    stage::{Stage, gpu_group},
};

#[tokio::test]
async fn exactly_the_named_machine_is_ended_and_the_target_falls_once() {
    let mut stage = Stage::of(gpu_group().desired(2)).await;
    let machines = stage.cloud.group("gpu").machines();
    let id = machines[0].provider_id();
    for _ in 0..2 {
        stage.delete("gpu", &[&id]).await.unwrap();
    }
    assert_eq!(stage.target("gpu").await, 1);
    stage.until("the machine is gone", async |stage| stage.instances("gpu").await.len() == 1).await;
    let left = stage.cloud.group("gpu").machines();
    assert_eq!(left.iter().map(|it| &it.id).collect::<Vec<_>>(), [&machines[1].id]);
    assert_eq!(stage.cloud.group("gpu").desired(), 1);
}

#[tokio::test]
async fn a_lower_target_never_ends_a_machine_that_lives() {
    let mut stage = Stage::of(gpu_group().desired(2)).await;
    stage.relisted().await;
    // Whether it is refused or granted without effect: no machine may go.
    let _ = stage.decrease("gpu", -1).await;
    stage.relisted().await;
    assert_eq!((stage.cloud.group("gpu").machines().len(), stage.cloud.group("gpu").desired()), (2, 2));
    assert_eq!(stage.target("gpu").await, 2);
}

// in-tree: placeholders are removed by lowering the desired capacity, which can end machines that live
// (kubernetes/autoscaler#10147, #9182, #5829).
/// In-tree sets the desired capacity to what it last saw: a machine that came meanwhile, or one that it did not see, is
/// then one too many, and a healthy one is ended (kubernetes/autoscaler#10147, #9182, #5829).
#[tokio::test]
async fn giving_up_what_has_not_come_never_touches_the_desired_capacity_nor_a_machine() {
    let mut stage = staged(gpu_group().desired(2), "desired-capacity").await;
    let before = names(&stage);
    stage.cloud.group("gpu").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu", 2).await.unwrap();
    stage.until("the refusal is shown", async |stage| stage.errors("gpu").await.len() == 2).await;
    let shown: Vec<String> = placeholders(&mut stage).await;
    stage.delete("gpu", &[&shown[0]]).await.unwrap();
    stage.decrease("gpu", -1).await.unwrap();
    stage.relisted().await;
    assert_eq!(stage.target("gpu").await, 2);
    assert_eq!(names(&stage), before);
    assert_eq!(stage.cloud.calls("SetDesiredCapacity").len(), 1, "raised once, never lowered");
}

#[tokio::test]
async fn a_machine_that_comes_after_it_was_given_up_is_given_back_by_its_name() {
    let mut stage = staged(gpu_group().desired(2), "desired-capacity").await;
    let before = names(&stage);
    stage.cloud.group("gpu").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu", 1).await.unwrap();
    stage.until("the refusal is shown", async |stage| stage.errors("gpu").await.len() == 1).await;
    let shown = placeholders(&mut stage).await;
    stage.delete("gpu", &[&shown[0]]).await.unwrap();
    assert_eq!(stage.cloud.group("gpu").desired(), 3, "AWS goes on trying");
    stage.cloud.plenty();
    let returned = async |stage: &mut Stage| {
        stage.cloud.calls("TerminateInstanceInAutoScalingGroup").len() == 1 && names(stage).len() == 2
    };
    stage.until("it has come and gone", returned).await;
    assert_eq!((names(&stage), stage.cloud.group("gpu").desired(), stage.target("gpu").await), (before, 2, 2));
}

#[tokio::test]
async fn a_machine_that_comes_while_its_refusal_is_shown_takes_its_place() {
    let mut stage = staged(gpu_group(), "desired-capacity").await;
    stage.cloud.group("gpu").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu", 1).await.unwrap();
    stage.until("the refusal is shown", async |stage| stage.errors("gpu").await.len() == 1).await;
    stage.cloud.plenty();
    let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 1;
    stage.until("it runs", run).await;
    assert_eq!((stage.errors("gpu").await, stage.target("gpu").await), (vec![], 1));
    assert_eq!(stage.cloud.calls("TerminateInstanceInAutoScalingGroup"), []);
}

#[tokio::test]
async fn what_was_given_up_and_not_brought_yet_serves_the_next_wish() {
    let mut stage = staged(gpu_group(), "desired-capacity").await;
    stage.cloud.group("gpu").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu", 1).await.unwrap();
    stage.until("the refusal is shown", async |stage| stage.errors("gpu").await.len() == 1).await;
    let shown = placeholders(&mut stage).await;
    stage.delete("gpu", &[&shown[0]]).await.unwrap();
    stage.cloud.group("gpu").with(|group, _| group.pace.retry = std::time::Duration::from_secs(1));
    stage.increase("gpu", 1).await.unwrap();
    stage.cloud.plenty();
    let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 1;
    stage.until("it runs", run).await;
    stage.relisted().await;
    assert_eq!((stage.cloud.group("gpu").desired(), stage.target("gpu").await, names(&stage).len()), (1, 1, 1));
}

// in-tree: machines are ended one after the other.
/// In-tree ends machines one after the other.
#[tokio::test]
async fn many_machines_are_ended_side_by_side_and_each_once() {
    let mut stage = Stage::of(gpu_group().between(0, 40).desired(40)).await;
    stage.cloud.fault("TerminateInstanceInAutoScalingGroup", Fault::Slow(std::time::Duration::from_millis(500)));
    let named = names(&stage)[..30].to_vec();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    stage.delete("gpu", &named).await.unwrap();
    assert_eq!(stage.target("gpu").await, 10);
    stage.until("they are gone", async |stage| names(stage).len() == 10).await;
    assert_eq!(stage.cloud.group("gpu").desired(), 10);
    let at: Vec<u64> = stage.cloud.calls("TerminateInstanceInAutoScalingGroup").iter().map(|it| it.at).collect();
    assert_eq!(at.len(), 30);
    assert!(at.windows(2).any(|pair| pair[1] - pair[0] < 400), "not one after the other: {at:?}");
}

#[tokio::test]
async fn a_machine_that_is_gone_or_going_already_counts_as_ended() {
    let hook = Hook { name: "drain".to_owned(), launching: false, holds: std::time::Duration::from_hours(1) };
    let mut stage = Stage::of(gpu_group().desired(3).hook(hook)).await;
    let ids = names(&stage);
    // Someone else ends one, and its hook holds it; our own listing has not seen it yet.
    stage.cloud.lag(std::time::Duration::from_secs(2));
    stage.cloud.group("gpu").with(|group, now| {
        let id = ids[0].rsplit('/').next().unwrap();
        group.machines.get_mut(id).unwrap().ends_at = Some(now);
        group.desired = 2;
    });
    stage.delete("gpu", &[&ids[0]]).await.unwrap();
    stage.cloud.lag(std::time::Duration::ZERO);
    stage.relisted().await;
    assert_eq!((stage.target("gpu").await, stage.cloud.group("gpu").desired()), (2, 2));
    assert_eq!(stage.count("gpu", InstanceState::InstanceDeleting).await, 1, "the hook still holds it");
    stage.delete("gpu", &[&ids[0]]).await.unwrap();
    stage.relisted().await;
    assert_eq!(stage.target("gpu").await, 2);
}

// in-tree: at the minimum nothing is ended.
#[tokio::test]
async fn a_machine_without_a_node_goes_even_at_the_minimum_and_is_replaced() {
    let mut stage = Stage::of(gpu_group().between(1, 5).desired(1)).await;
    let before = names(&stage);
    let node = ExternalGrpcNode {
        provider_id: before[0].clone(),
        name: before[0].clone(),
        annotations: [("k8s.io/cluster-autoscaler/fake-node-reason".to_owned(), "unregistered".to_owned())].into(),
        ..Default::default()
    };
    let request = NodeGroupDeleteNodesRequest { nodes: vec![node], id: "gpu".to_owned() };
    stage.client.node_group_delete_nodes(request).await.unwrap();
    let replaced = async |stage: &mut Stage| names(stage).len() == 1 && names(stage) != before;
    stage.until("another machine has taken its place", replaced).await;
    assert_eq!(stage.cloud.group("gpu").desired(), 1);
}

#[tokio::test]
async fn a_real_node_is_kept_at_the_minimum() {
    let mut stage = Stage::of(gpu_group().between(1, 5).desired(1)).await;
    let before = names(&stage);
    assert!(stage.delete("gpu", &[&before[0]]).await.is_err());
    stage.relisted().await;
    assert_eq!((names(&stage), stage.cloud.calls("TerminateInstanceInAutoScalingGroup")), (before, vec![]));
}

#[tokio::test]
async fn a_machine_that_scale_in_spares_is_ended_when_it_is_named() {
    let mut stage = Stage::of(gpu_group().desired(2)).await;
    stage.cloud.group("gpu").with(|group, _| group.machines.values_mut().for_each(|it| it.protected = true));
    stage.relisted().await;
    assert!(stage.page("/").await.contains("protected from scale-in"));
    let ids = names(&stage);
    stage.delete("gpu", &[&ids[0]]).await.unwrap();
    stage.until("it is gone", async |stage| names(stage) == ids[1..]).await;
}

#[tokio::test]
async fn the_end_of_a_machine_in_standby_costs_no_other_its_place() {
    let mut stage = Stage::of(gpu_group().desired(3)).await;
    let ids = names(&stage);
    let bare = ids[0].rsplit('/').next().unwrap().to_owned();
    stage.cloud.group("gpu").standby(&[bare]);
    stage.relisted().await;
    stage.delete("gpu", &[&ids[0]]).await.unwrap();
    stage.until("it is gone", async |stage| names(stage) == ids[1..]).await;
    assert_eq!(stage.cloud.group("gpu").desired(), 2);
}

/// While a group puts new machines in the place of old (AZRebalance, Capacity Rebalancing) it has more than it wants.
#[tokio::test]
async fn the_end_of_a_machine_too_many_costs_no_other_its_place() {
    let mut stage = Stage::of(gpu_group().desired(3).suspend("Terminate")).await;
    stage.cloud.group("gpu").with(|group, _| group.desired = 2);
    stage.relisted().await;
    let ids = names(&stage);
    stage.delete("gpu", &[&ids[0]]).await.unwrap();
    stage.until("it is gone", async |stage| names(stage) == ids[1..]).await;
    stage.cloud.group("gpu").with(|group, _| group.suspended.clear());
    stage.relisted().await;
    assert_eq!((names(&stage), stage.cloud.group("gpu").desired()), (ids[1..].to_vec(), 2));
}

/// The provider ids of the group's machines that are not on their way out, in order.
fn names(stage: &Stage) -> Vec<String> {
    stage.cloud.group("gpu").with(|group, now| {
        let alive = |it: &&Machine| it.state(now).is_some_and(|state| !state.starts_with("Terminating"));
        let ids = group.machines.values().filter(alive).map(Machine::provider_id);
        let mut ids: Vec<String> = ids.collect();
        ids.sort_unstable();
        ids
    })
}

async fn placeholders(stage: &mut Stage) -> Vec<String> {
    stage.instances("gpu").await.into_iter().map(|it| it.id).filter(|id| id.starts_with("windlass://")).collect()
}
