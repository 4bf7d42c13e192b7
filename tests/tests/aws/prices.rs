//! What a machine costs, wherever it is asked for.

use std::path::Path;

use prost::Message as _;
use serde_json::json;
use windlass_proto::{
    core::{Container, Pod, PodSpec, Quantity, ResourceRequirements},
    externalgrpc::{ExternalGrpcNode, PricingNodePriceRequest, PricingPodPriceRequest},
};
use windlass_tests::aws::AwsCloud;

use super::stage::{Stage, gpu_group};

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

/// What a node of the group costs in two hours.
async fn of_a_node(stage: &mut Stage) -> f64 {
    let labels = stage.template().await.metadata.unwrap().labels.into_iter().collect();
    let node = ExternalGrpcNode { name: "n".to_owned(), labels, ..Default::default() };
    let (start_timestamp, end_timestamp) = (at(0), at(7200));
    let request = PricingNodePriceRequest { node: Some(node), start_timestamp, end_timestamp, ..Default::default() };
    stage.client.pricing_node_price(request).await.unwrap().into_inner().price
}

/// What a pod that asks for one GPU and nothing else costs in two hours.
async fn of_a_pod(stage: &mut Stage) -> f64 {
    let one = [("nvidia.com/gpu".to_owned(), Quantity { string: Some("1".to_owned()) })].into();
    let resources = Some(ResourceRequirements { requests: one, ..Default::default() });
    let containers = vec![Container { resources, ..Default::default() }];
    let pod = Pod { spec: Some(PodSpec { containers, ..Default::default() }), ..Default::default() };
    let (start_timestamp, end_timestamp) = (at(0), at(7200));
    let request =
        PricingPodPriceRequest { pod_bytes: pod.encode_to_vec(), start_timestamp, end_timestamp, ..Default::default() };
    stage.client.pricing_pod_price(request).await.unwrap().into_inner().price
}

fn write(file: &Path, dollars: &str) {
    std::fs::write(file, format!("# ours\ng5.xlarge,on-demand,us-east-1,{dollars}\n")).unwrap();
}

fn near(price: f64, expected: f64) -> bool {
    (price - expected).abs() < 1e-6
}

// in-tree: no price.
#[tokio::test]
async fn the_operators_prices_stand_over_all_others_and_are_taken_over_while_it_runs() {
    let (cloud, folder) = (AwsCloud::start().unwrap(), tempfile::tempdir().unwrap());
    cloud.add("gpu", gpu_group().mixed(&["g5.xlarge"], false));
    let file = folder.path().join("prices.csv");
    write(&file, "0.70");
    let mut stage = Stage::with(cloud, &json!({"cloud": {"priceOverrides": file}})).await;
    assert!(near(of_a_node(&mut stage).await, 1.4), "the table has $1.006 an hour");
    assert!(near(of_a_pod(&mut stage).await, 1.4), "one GPU is what this machine is bought for");
    let groups = String::from_utf8(stage.run(&["groups"]).stdout).unwrap();
    assert!(groups.contains("$0.70 ") && groups.contains("your own price"), "{groups}");
    write(&file, "0.35");
    stage.until("a changed file is taken over", async |stage| near(of_a_node(stage).await, 0.7)).await;
    assert!(near(of_a_pod(&mut stage).await, 0.7));
    assert!(stage.page("/").await.contains("0.35"));
    std::fs::write(&file, "g5.xlarge,on-demand,us-east-1,cheap\n").unwrap();
    let told = async |stage: &mut Stage| stage.page("/").await.contains("the last good file stands");
    stage.until("the page says what is wrong with the file", told).await;
    assert!(near(of_a_node(&mut stage).await, 0.7));
}
