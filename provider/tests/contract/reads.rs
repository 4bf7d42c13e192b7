//! What CA reads.

use prost::Message as _;
use tonic::Code;
use windlass_proto::{core::Node, core::Pod, externalgrpc as wire};

use crate::stage::{Stage, code, eventually, fake, node};

#[tokio::test]
async fn before_the_first_listing_nothing_looks_like_an_empty_cloud() {
    let stage = Stage::start_unsynced("events: [{at: 0s, failCalls: unavailable}]", "").await;
    let mut client = stage.client.clone();
    let refused = [
        client.refresh(wire::RefreshRequest {}).await.unwrap_err().code(),
        client.node_groups(wire::NodeGroupsRequest {}).await.unwrap_err().code(),
        client.node_group_for_node(wire::NodeGroupForNodeRequest::default()).await.unwrap_err().code(),
        client.node_group_nodes(wire::NodeGroupNodesRequest { id: "spot".to_owned() }).await.unwrap_err().code(),
        code(stage.increase("spot", 1).await),
        code(stage.delete("spot", vec![node("x")]).await),
    ];
    assert_eq!(refused, [Code::Unavailable; 6]);
    assert_eq!(client.gpu_label(wire::GpuLabelRequest {}).await.unwrap().into_inner().label, "example.com/accelerator");
    client.cleanup(wire::CleanupRequest {}).await.unwrap();
    assert_eq!(stage.running.as_ref().unwrap().shared.ready.pending(), ["the first listing of the cloud"]);
}

#[tokio::test]
async fn groups_are_listed_whole_while_the_cloud_is_away_and_after_a_cleanup() {
    let mut stage = Stage::start("").await;
    stage.happens("events: [{at: 0s, failCalls: unavailable}]");
    eventually("the cloud is away", async || stage.snapshot().troubles.failing.is_some()).await;
    for _ in 0..10 {
        let groups = stage.client.node_groups(wire::NodeGroupsRequest {}).await.unwrap().into_inner().node_groups;
        let said: Vec<_> = groups.iter().map(|it| (it.id.as_str(), it.min_size, it.max_size)).collect();
        assert_eq!(said, [("cpu", 0, 5), ("od", 0, 5), ("spot", 1, 5)]);
        stage.client.refresh(wire::RefreshRequest {}).await.unwrap();
        stage.client.cleanup(wire::CleanupRequest {}).await.unwrap();
    }
    assert_eq!((stage.target("spot").await, stage.machines("spot").await.len()), (2, 2));
}

#[tokio::test]
async fn a_node_is_found_by_its_provider_id_and_a_stranger_is_no_error() {
    let stage = Stage::start("").await;
    let machines = stage.machines("spot").await;
    let spot = ("spot".to_owned(), 1, 5);
    assert_eq!(stage.group_of(node(&machines[0])).await, spot);
    assert_eq!(stage.group_of(fake(&machines[0], "unregistered")).await, spot);
    for stranger in ["", "aws:///r-a/i-1", "windlass://nowhere/w-1-0/0", "windlass://", "\u{0}"] {
        assert_eq!(stage.group_of(node(stranger)).await, (String::new(), 0, 0), "{stranger:?}");
    }
    let answer = stage.client.clone().node_group_for_node(wire::NodeGroupForNodeRequest { node: None }).await.unwrap();
    assert_eq!(answer.into_inner().node_group.unwrap_or_default().id, "");
}

#[tokio::test]
async fn a_group_that_is_not_known_is_not_found() {
    let stage = Stage::start("").await;
    let (mut client, id) = (stage.client.clone(), "nowhere".to_owned());
    let codes = [
        client.node_group_target_size(wire::NodeGroupTargetSizeRequest { id: id.clone() }).await.map(|_| ()),
        client.node_group_nodes(wire::NodeGroupNodesRequest { id: id.clone() }).await.map(|_| ()),
        client
            .node_group_template_node_info(wire::NodeGroupTemplateNodeInfoRequest { id: id.clone() })
            .await
            .map(|_| ()),
        client
            .node_group_get_options(wire::NodeGroupAutoscalingOptionsRequest { id: id.clone(), defaults: None })
            .await
            .map(|_| ()),
        stage.increase(&id, 1).await,
        stage.decrease(&id, -1).await,
        stage.delete(&id, vec![]).await,
    ]
    .map(code);
    assert_eq!(codes, [Code::NotFound; 7]);
}

#[tokio::test]
async fn a_template_is_whole_under_both_numbers() {
    let stage = Stage::start("").await;
    let request = wire::NodeGroupTemplateNodeInfoRequest { id: "spot".to_owned() };
    let answer = stage.client.clone().node_group_template_node_info(request).await.unwrap().into_inner();
    assert_eq!(answer.node_info, answer.node_bytes);
    let node = Node::decode(&*answer.node_bytes).unwrap();
    let labels = node.metadata.unwrap().labels;
    for (label, value) in [
        ("example.com/accelerator", "a10g"),
        ("team", "vision"),
        ("kubernetes.io/arch", "amd64"),
        ("kubernetes.io/os", "linux"),
        ("node.kubernetes.io/instance-type", "g5.xlarge"),
        ("topology.kubernetes.io/region", "r"),
        ("topology.kubernetes.io/zone", "r-a"),
        ("eks.amazonaws.com/capacityType", "SPOT"),
    ] {
        assert_eq!(labels.get(label).map(String::as_str), Some(value), "{label}");
    }
    assert_eq!(node.spec.unwrap().taints[0].key(), "nvidia.com/gpu");
    let status = node.status.unwrap();
    for resources in [status.capacity, status.allocatable] {
        for name in ["cpu", "memory", "pods", "ephemeral-storage", "nvidia.com/gpu"] {
            assert!(resources.contains_key(name), "{name}");
        }
    }
    assert!(status.conditions.iter().any(|it| it.r#type() == "Ready" && it.status() == "True"));
}

#[tokio::test]
async fn options_are_answered_only_where_a_group_says_something_else() {
    let config = "groups: {spot: {options: {scaleDownUnneededTime: 90s}}}";
    let mut stage = Stage::start_unsynced("", config).await;
    stage.sync().await;
    let new = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let old = |seconds: i64| Some(wire::LegacyDuration { duration: seconds * 1_000_000_000 });
    let defaults = wire::NodeGroupAutoscalingOptions {
        scale_down_unneeded_time: old(600),
        scale_down_unready_time: old(1200),
        ..Default::default()
    };
    let ca_1_33 = wire::NodeGroupAutoscalingOptions { max_node_provision_time: old(900), ..defaults };
    let ca_1_36 = wire::NodeGroupAutoscalingOptions {
        scale_down_unneeded_duration: new(600),
        scale_down_unready_duration: new(1200),
        max_node_provision_duration: new(900),
        ..Default::default()
    };
    for (id, defaults, answered) in [
        ("od", &ca_1_33, false),
        ("od", &ca_1_36, false),
        ("spot", &defaults, false),
        ("spot", &ca_1_33, true),
        ("spot", &ca_1_36, true),
    ] {
        let request = wire::NodeGroupAutoscalingOptionsRequest { id: id.to_owned(), defaults: Some(*defaults) };
        let answer = stage.client.clone().node_group_get_options(request).await.unwrap().into_inner();
        let expect = wire::NodeGroupAutoscalingOptions {
            scale_down_unneeded_time: old(90),
            scale_down_unready_time: old(1200),
            max_node_provision_time: old(900),
            scale_down_unneeded_duration: new(90),
            scale_down_unready_duration: new(1200),
            max_node_provision_duration: new(900),
            ..Default::default()
        };
        assert_eq!(answer.node_group_autoscaling_options, answered.then_some(expect), "{id}");
    }
}

#[tokio::test]
async fn prices_follow_labels_and_hours_in_both_eras_fields() {
    let mut stage = Stage::start("").await;
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let labels = |spot: bool| {
        let market = if spot { "SPOT" } else { "ON_DEMAND" };
        [("node.kubernetes.io/instance-type", "g5.xlarge"), ("eks.amazonaws.com/capacityType", market)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let node = |spot| Some(wire::ExternalGrpcNode { labels: labels(spot).into(), ..Default::default() });
    let old = wire::PricingNodePriceRequest { start_time: time(0), end_time: time(7200), ..Default::default() };
    let new =
        wire::PricingNodePriceRequest { start_timestamp: time(0), end_timestamp: time(7200), ..Default::default() };
    for request in [old, new] {
        for (spot, price) in [(true, 0.8), (false, 2.0)] {
            let request = wire::PricingNodePriceRequest { node: node(spot), ..request.clone() };
            let said = stage.client.pricing_node_price(request).await.unwrap().into_inner().price;
            assert!((said - price).abs() < 1e-9, "{said} {price}");
        }
    }
    let timeless = wire::PricingNodePriceRequest { node: node(true), ..Default::default() };
    assert_eq!(stage.client.pricing_node_price(timeless).await.unwrap_err().code(), Code::InvalidArgument);
    let span =
        wire::PricingNodePriceRequest { start_timestamp: time(0), end_timestamp: time(60), ..Default::default() };
    assert_eq!(stage.client.pricing_node_price(span).await.unwrap_err().code(), Code::NotFound);
    let pod = Pod::default().encode_to_vec();
    let old = wire::PricingPodPriceRequest {
        pod: pod.clone(),
        start_time: time(0),
        end_time: time(60),
        ..Default::default()
    };
    let new = wire::PricingPodPriceRequest {
        pod_bytes: pod,
        start_timestamp: time(0),
        end_timestamp: time(60),
        ..Default::default()
    };
    for request in [old, new] {
        stage.client.pricing_pod_price(request).await.unwrap();
    }
    let bad = wire::PricingPodPriceRequest {
        pod_bytes: vec![255],
        start_timestamp: time(0),
        end_timestamp: time(60),
        ..Default::default()
    };
    assert_eq!(stage.client.pricing_pod_price(bad).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn gpu_types_are_the_values_of_the_gpu_label() {
    let mut stage = Stage::start("").await;
    let answer = stage.client.get_available_gpu_types(wire::GetAvailableGpuTypesRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.gpu_types.into_keys().collect::<Vec<_>>(), ["a10g"]);
}

/// CA knows that a machine is a Node before we do: it shows us by asking for the node's group.
#[tokio::test]
async fn a_machine_counts_as_registered_when_ca_shows_it_as_a_real_node() {
    let stage = Stage::start("").await;
    let machines = stage.machines("spot").await;
    let registered = async || {
        let snapshot = stage.running.as_ref().unwrap().shared.keeper.snapshot();
        let view = snapshot.fleet.group("spot").unwrap().clone();
        view.instances.iter().filter(|it| it.registered_at.is_some()).count()
    };
    stage.group_of(fake(&machines[0], "unregistered")).await;
    stage.group_of(node(&machines[1])).await;
    eventually("one is registered", async || registered().await == 1).await;
}
