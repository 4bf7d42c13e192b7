//! Who calls AWS, how often, and that every call is signed.

use windlass_tests::aws::{ACCESS_KEY, AwsCloud};

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
