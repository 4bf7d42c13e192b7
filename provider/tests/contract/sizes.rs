//! Sizes asked for, taken back, and machines deleted.

use tonic::Code;

use crate::stage::{Stage, code, eventually, fake, node};

const RUNNING: i32 = 1;
const CREATING: i32 = 2;
const DELETING: i32 = 3;

/// `(id, state, error code, error class)` of what the group lists beyond its machines.
async fn placeholders(stage: &Stage, group: &str) -> Vec<(String, i32, String, i32)> {
    let nodes = stage.nodes(group).await.into_iter().filter(|node| node.id.starts_with("windlass://"));
    let shown = nodes.map(|node| {
        let status = node.status.unwrap();
        let error = status.error_info.unwrap_or_default();
        (node.id, status.instance_state, error.error_code, error.instance_error_class)
    });
    shown.collect()
}

#[tokio::test]
async fn an_increase_is_seen_by_the_very_next_call_and_becomes_machines() {
    let stage = Stage::start("").await;
    assert_eq!(stage.target("spot").await, 2);
    stage.increase("spot", 2).await.unwrap();
    assert_eq!(stage.target("spot").await, 4);
    stage.increase("spot", 1).await.unwrap();
    assert_eq!(stage.target("spot").await, 5, "the same request again is another increase");
    eventually("five machines run", async || {
        let nodes = stage.nodes("spot").await;
        nodes.len() == 5 && nodes.iter().all(|node| node.status.as_ref().unwrap().instance_state == RUNNING)
    })
    .await;
    assert_eq!(stage.target("spot").await, 5);
}

#[tokio::test]
async fn an_increase_that_makes_no_sense_has_no_effect() {
    let stage = Stage::start("").await;
    for (group, delta, expect) in [
        ("spot", 0, Code::InvalidArgument),
        ("spot", -1, Code::InvalidArgument),
        ("spot", i32::MIN, Code::InvalidArgument),
        ("spot", 4, Code::OutOfRange),
        ("spot", i32::MAX, Code::OutOfRange),
        ("nowhere", 1, Code::NotFound),
        ("", 1, Code::NotFound),
    ] {
        assert_eq!(code(stage.increase(group, delta).await), expect, "{group} {delta}");
        assert_eq!((stage.target("spot").await, stage.nodes("spot").await.len()), (2, 2), "{group} {delta}");
    }
}

/// CA's gRPC library, as this one, reads no answer of more than 4 MiB.
#[tokio::test]
async fn the_most_that_can_be_refused_at_once_is_read_in_one_answer() {
    let id = "a-group-that-may-grow-without-end".repeat(7);
    let group =
        format!("  - {{id: {id}, max: 1000000, instanceType: t, region: r, zones: [r-a], cpu: 4, memory: 16Gi}}");
    let stage = Stage::start(&format!("{group}\nevents: [{{at: 0s, group: {id}, stockOut: true}}]")).await;
    for delta in [1_000_000, 4_001] {
        assert_eq!(code(stage.increase(&id, delta).await), Code::FailedPrecondition, "{delta}");
    }
    stage.increase(&id, 4_000).await.unwrap();
    assert_eq!(code(stage.increase(&id, 1).await), Code::FailedPrecondition);
    let refused = async || placeholders(&stage, &id).await.iter().filter(|it| !it.2.is_empty()).count() == 4_000;
    eventually("all of them are refused", refused).await;
    let nodes = placeholders(&stage, &id).await.iter().map(|it| fake(&it.0, "create-error")).collect();
    stage.delete(&id, nodes).await.unwrap();
    assert_eq!((stage.target(&id).await, stage.nodes(&id).await.len()), (0, 0));
}

#[tokio::test]
async fn a_decrease_cancels_what_has_not_come_and_ends_nothing() {
    let stage = Stage::start("events: [{at: 0s, group: spot, failCalls: unavailable}]").await;
    let machines = stage.machines("spot").await;
    stage.increase("spot", 2).await.unwrap();
    for (delta, expect) in [
        (0, Code::InvalidArgument),
        (1, Code::InvalidArgument),
        (-3, Code::FailedPrecondition),
        (i32::MIN, Code::FailedPrecondition),
    ] {
        assert_eq!(code(stage.decrease("spot", delta).await), expect, "{delta}");
        assert_eq!(stage.target("spot").await, 4, "{delta}");
    }
    assert_eq!(code(stage.decrease("nowhere", -1).await), Code::NotFound);
    stage.decrease("spot", -1).await.unwrap();
    assert_eq!(stage.target("spot").await, 3);
    for machine in machines {
        assert!(stage.machines("spot").await.contains(&machine));
    }
}

#[tokio::test]
async fn deleting_ends_exactly_the_named_machine_once() {
    let stage = Stage::start("").await;
    let machines = stage.machines("spot").await;
    stage.delete("spot", vec![node(&machines[0])]).await.unwrap();
    assert_eq!(stage.target("spot").await, 1);
    let nodes = stage.nodes("spot").await;
    let state = |id: &str| nodes.iter().find(|it| it.id == id).map(|it| it.status.as_ref().unwrap().instance_state);
    assert!(state(&machines[0]).is_none_or(|state| state == DELETING), "{nodes:?}");
    assert_eq!(state(&machines[1]), Some(RUNNING));
    for _ in 0..2 {
        stage.delete("spot", vec![node(&machines[0])]).await.unwrap();
        assert_eq!(stage.target("spot").await, 1, "counted once");
    }
    eventually("it is gone", async || stage.machines("spot").await == machines[1..]).await;
    stage.delete("spot", vec![node(&machines[0])]).await.unwrap();
    assert_eq!((stage.target("spot").await, stage.machines("spot").await), (1, machines[1..].to_vec()));
}

#[tokio::test]
async fn one_wrong_node_fails_the_whole_deletion() {
    let stage = Stage::start("").await;
    stage.increase("od", 1).await.unwrap();
    eventually("a machine of the other group", async || stage.machines("od").await.len() == 1).await;
    let (mine, other) = (stage.machines("spot").await, stage.machines("od").await);
    stage.increase("spot", 1).await.unwrap();
    let nameless = windlass_proto::externalgrpc::ExternalGrpcNode { name: "n".to_owned(), ..Default::default() };
    for wrong in [node(&other[0]), node("aws:///r-a/i-stranger"), node("windlass://od/w-1-0/0"), nameless] {
        let answer = stage.delete("spot", vec![node(&mine[0]), wrong]).await;
        assert_eq!(code(answer), Code::InvalidArgument);
        assert_eq!(stage.target("spot").await, 3);
        assert!(stage.machines("spot").await.contains(&mine[0]));
    }
    assert_eq!(code(stage.delete("nowhere", vec![node(&mine[0])]).await), Code::NotFound);
    stage.delete("spot", vec![]).await.unwrap();
    assert_eq!(stage.target("spot").await, 3);
}

#[tokio::test]
async fn the_minimum_holds_for_real_nodes_and_not_for_made_up_ones() {
    let stage = Stage::start("").await;
    let machines = stage.machines("spot").await;
    let both = |made: fn(&str) -> _| machines.iter().map(|id| made(id)).collect();
    assert_eq!(code(stage.delete("spot", both(node)).await), Code::FailedPrecondition);
    assert_eq!((stage.target("spot").await, stage.machines("spot").await.len()), (2, 2));
    stage.delete("spot", both(|id| fake(id, "unregistered"))).await.unwrap();
    assert_eq!(stage.target("spot").await, 0);
    eventually("both are gone", async || stage.machines("spot").await.is_empty()).await;
}

#[tokio::test]
async fn a_stock_out_shows_as_placeholders_with_a_class_and_new_ids_each_time() {
    let stage = Stage::start("events: [{at: 0s, group: spot, stockOut: true}]").await;
    stage.increase("spot", 2).await.unwrap();
    assert_eq!(stage.target("spot").await, 4);
    let refused = async || placeholders(&stage, "spot").await.iter().filter(|it| !it.2.is_empty()).count() == 2;
    eventually("the refusal shows", refused).await;
    let first = placeholders(&stage, "spot").await;
    for (id, state, code, class) in &first {
        assert_eq!((*state, *class), (CREATING, 1), "{id} {code}");
        assert_eq!(stage.group_of(fake(id, "create-error")).await.0, "spot");
    }
    assert_eq!(placeholders(&stage, "spot").await, first, "stable between loops");
    assert_eq!(stage.target("spot").await, 4, "as long as they are shown they count");
    let nodes: Vec<_> = first.iter().map(|it| fake(&it.0, "create-error")).collect();
    stage.delete("spot", nodes.clone()).await.unwrap();
    assert_eq!((stage.target("spot").await, placeholders(&stage, "spot").await.len()), (2, 0));
    stage.delete("spot", nodes).await.unwrap();
    assert_eq!((stage.target("spot").await, stage.machines("spot").await.len()), (2, 2), "once");
    stage.increase("spot", 1).await.unwrap();
    let shown = async || !placeholders(&stage, "spot").await.is_empty();
    eventually("the next refusal shows", shown).await;
    let again = placeholders(&stage, "spot").await;
    assert!(again.iter().all(|it| first.iter().all(|old| old.0 != it.0)), "{again:?}");
}

#[tokio::test]
async fn other_refusals_carry_the_other_class() {
    let stage = Stage::start("events: [{at: 0s, group: od, failCalls: permission}]").await;
    stage.increase("od", 1).await.unwrap();
    let shown = async || placeholders(&stage, "od").await.iter().any(|it| !it.2.is_empty());
    eventually("the refusal shows", shown).await;
    assert_eq!(placeholders(&stage, "od").await[0].3, 99);
}

#[tokio::test]
async fn a_launch_whose_answer_is_lost_is_asked_again_and_not_doubled() {
    let stage = Stage::start("events: [{at: 0s, for: 1500ms, group: od, failCalls: lost}]").await;
    stage.increase("od", 2).await.unwrap();
    eventually("both run", async || stage.machines("od").await.len() == 2).await;
    eventually("nothing is pending", async || stage.nodes("od").await.len() == 2).await;
    assert_eq!(stage.target("od").await, 2);
}

#[tokio::test]
async fn concurrent_changes_keep_the_target_exact() {
    let stage = Stage::start("").await;
    let machines = stage.machines("spot").await;
    let (up, down, again) = tokio::join!(
        stage.increase("spot", 2),
        stage.delete("spot", vec![node(&machines[0])]),
        stage.delete("spot", vec![node(&machines[0])]),
    );
    assert_eq!([code(up), code(down), code(again)], [Code::Ok; 3]);
    assert_eq!(stage.target("spot").await, 3);
    eventually("three machines", async || stage.machines("spot").await.len() == 3).await;
    assert_eq!(stage.target("spot").await, 3);
}

#[tokio::test]
async fn a_machine_that_vanishes_leaves_the_target() {
    let stage = Stage::start("events: [{at: 300ms, group: spot, interrupt: {instances: 1, notice: 0s}}]").await;
    eventually("the interruption shows", async || stage.target("spot").await == 1).await;
    eventually("it is gone", async || stage.machines("spot").await.len() == 1).await;
}

#[tokio::test]
async fn a_machine_that_the_cloud_will_not_end_counts_again() {
    let stage = Stage::start("events: [{at: 0s, group: spot, failCalls: permission}]").await;
    let machines = stage.machines("spot").await;
    stage.delete("spot", vec![node(&machines[0])]).await.unwrap();
    eventually("it is back", async || stage.target("spot").await == 2).await;
    let nodes = stage.nodes("spot").await;
    assert!(nodes.iter().all(|node| node.status.as_ref().unwrap().instance_state == RUNNING), "{nodes:?}");
}
