//! Exactly the machines that are named go back, and nothing else ever does.

use super::stage::{Stage, gpu_group};

#[tokio::test]
async fn exactly_the_named_machine_is_ended_and_the_target_falls_once() {
    let mut stage = Stage::of(gpu_group().desired(2)).await;
    let machines = stage.cloud.group("gpu").machines();
    let id = format!("aws:///{}/{}", machines[0].zone, machines[0].id);
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
