//! What the provider sees to by itself: groups that let it down, machines that nobody else ends, files that change.

use windlass_proto::externalgrpc::RefreshRequest;

use crate::stage::{Stage, eventually, fake, node};

/// Ids of machines, and how many more are on their way.
async fn shown(stage: &Stage, group: &str) -> (Vec<String>, usize) {
    let machines = stage.machines(group).await;
    let waiting = stage.nodes(group).await.len() - machines.len();
    (machines, waiting)
}

#[tokio::test]
async fn a_group_whose_machines_never_register_is_tried_with_one_machine() {
    let stage = Stage::start("").await;
    stage.increase("od", 2).await.unwrap();
    eventually("two machines", async || stage.machines("od").await.len() == 2).await;
    let given_up = stage.machines("od").await.iter().map(|id| fake(id, "unregistered")).collect();
    stage.delete("od", given_up).await.unwrap();
    eventually("they are gone", async || stage.machines("od").await.is_empty()).await;
    let snapshot = stage.running.as_ref().unwrap().shared.keeper.snapshot();
    let group = snapshot.fleet.group("od").unwrap();
    let shunned = snapshot.offerings.shunned(&group.group, snapshot.at);
    assert!(shunned.is_some_and(|it| it.why.contains("never register")));

    stage.increase("od", 3).await.unwrap();
    eventually("the probe", async || shown(&stage, "od").await.0.len() == 1).await;
    stage.relisted().await;
    let (machines, waiting) = shown(&stage, "od").await;
    assert_eq!((machines.len(), waiting, stage.target("od").await), (1, 2, 3), "the cost of trying is one machine");
    stage.group_of(node(&machines[0])).await;
    eventually("the others follow once it is a Node", async || shown(&stage, "od").await.0.len() == 3).await;
    assert_eq!(stage.target("od").await, 3);
}

#[tokio::test]
async fn after_a_stock_out_one_machine_is_asked_for_and_the_rest_only_if_it_comes() {
    let stage = Stage::start("events: [{at: 0s, group: od, stockOut: true}]").await;
    for _ in 0..2 {
        stage.increase("od", 2).await.unwrap();
        let refused = async || stage.nodes("od").await.iter().filter(|it| is_refused(it)).count() == 2;
        eventually("both are refused", refused).await;
        let given_up = stage.nodes("od").await.iter().map(|it| fake(&it.id, "create-error")).collect();
        stage.delete("od", given_up).await.unwrap();
    }
    stage.happens("");
    stage.increase("od", 4).await.unwrap();
    eventually("all come when the first has", async || shown(&stage, "od").await == (stage.machines("od").await, 0))
        .await;
    assert_eq!((stage.machines("od").await.len(), stage.target("od").await), (4, 4));
}

fn is_refused(node: &windlass_proto::externalgrpc::Instance) -> bool {
    node.status.as_ref().is_some_and(|status| status.error_info.is_some())
}

#[tokio::test]
async fn machines_that_never_become_nodes_are_ended_while_ca_is_calling_and_others_are_not() {
    let mut stage = Stage::start_unsynced("", "unregistered: {reapAfter: 6s}").await;
    stage.sync().await;
    let others = stage.machines("spot").await;
    stage.increase("od", 2).await.unwrap();
    eventually("two machines", async || stage.machines("od").await.len() == 2).await;
    let machines = stage.machines("od").await;
    eventually("one of them is ended", async || {
        let _ = stage.client.clone().refresh(RefreshRequest {}).await;
        stage.group_of(node(&machines[0])).await;
        stage.group_of(fake(&machines[1], "unregistered")).await;
        stage.machines("od").await == machines[..1]
    })
    .await;
    assert_eq!(
        (stage.target("od").await, stage.machines("spot").await),
        (1, others),
        "what others made is not ours to end"
    );
}

#[tokio::test]
async fn a_file_swapped_by_its_link_is_a_change_too() {
    let stage = Stage::start("").await;
    let (folder, file) = (stage.folder.path(), stage.folder.path().join("windlass.yaml"));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(folder.join("v1"), &text).unwrap();
    let changed = format!("{text}groups: {{spot: {{options: {{ignoreDaemonSetsUtilization: true}}}}}}\n");
    std::fs::write(folder.join("v2"), changed).unwrap();
    for version in ["v1", "v2"] {
        std::os::unix::fs::symlink(version, folder.join("new")).unwrap();
        std::fs::rename(folder.join("new"), &file).unwrap();
    }
    eventually("the new one is in force", async || {
        let snapshot = stage.running.as_ref().unwrap().shared.keeper.snapshot();
        snapshot.fleet.group("spot").unwrap().group.overrides.ignore_daemon_sets_utilization == Some(true)
    })
    .await;
}
