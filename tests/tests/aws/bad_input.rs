//! Broken answers, expired credentials and regions that do not answer cost what they concern, and nothing else.

use windlass_tests::aws::Fault;

use super::stage::{Stage, gpu_group};

#[tokio::test]
async fn a_region_that_does_not_answer_leaves_the_last_good_listing() {
    let mut stage = Stage::of(gpu_group().desired(1)).await;
    stage.relisted().await;
    stage.cloud.fault("*", Fault::Hang);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    stage.refresh().await.unwrap();
    assert_eq!((stage.groups().await.len(), stage.target("gpu").await), (1, 1));
    assert_eq!(stage.instances("gpu").await.len(), 1);
}

#[tokio::test]
async fn broken_answers_change_nothing_and_good_ones_are_taken_again() {
    let mut stage = Stage::of(gpu_group().desired(1)).await;
    for fault in [Fault::BrokenBody, Fault::HalfAnswer, Fault::Down, Fault::Nonsense] {
        stage.cloud.fault("DescribeAutoScalingGroups", fault.clone());
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        assert_eq!((stage.groups().await.len(), stage.target("gpu").await), (1, 1), "{fault:?}");
    }
    stage.cloud.no_faults();
    stage.cloud.group("gpu").with(|group, _| group.max = 7);
    let seen = async |stage: &mut Stage| stage.groups().await.iter().any(|group| group.max_size == 7);
    stage.until("the new bound is seen", seen).await;
}
