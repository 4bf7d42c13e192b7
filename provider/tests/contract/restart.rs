//! A provider that was killed goes on where it ended.

use crate::stage::{Stage, eventually, node};

#[tokio::test]
async fn a_launch_under_way_is_neither_lost_nor_doubled() {
    let mut stage = Stage::start("events: [{at: 0s, for: 3s, group: od, slowCalls: 1s}]").await;
    stage.increase("od", 2).await.unwrap();
    stage.restart().await;
    assert_eq!(stage.target("od").await, 2);
    eventually("both machines, and nothing else", async || {
        stage.machines("od").await.len() == 2 && stage.nodes("od").await.len() == 2
    })
    .await;
    assert_eq!(stage.target("od").await, 2);
}

#[tokio::test]
async fn a_deletion_stays_counted_once() {
    let mut stage = Stage::start("events: [{at: 0s, for: 3s, group: spot, failCalls: unavailable}]").await;
    let machines = stage.machines("spot").await;
    stage.delete("spot", vec![node(&machines[0])]).await.unwrap();
    stage.restart().await;
    assert_eq!(stage.target("spot").await, 1);
    stage.delete("spot", vec![node(&machines[0])]).await.unwrap();
    eventually("it is gone after all", async || stage.machines("spot").await == machines[1..]).await;
    assert_eq!(stage.target("spot").await, 1);
}
