//! What the in-tree provider does otherwise, as far as no other file shows it. `deploy/aws/README.md` has the whole list.

use serde_json::json;
use windlass_proto::externalgrpc::{
    GetAvailableGpuTypesRequest, NodeGroupAutoscalingOptions, NodeGroupAutoscalingOptionsRequest,
};
use windlass_tests::aws::Asg;

use super::{
    stage::{Stage, gpu_group},
    templates::{bare, of},
};

// in-tree: types are asked for once, at the start.
#[tokio::test]
async fn a_type_that_is_new_is_asked_for_while_the_provider_runs() {
    let mut stage = of(bare().mixed(&["g5.xlarge"], true), |_| {}).await;
    let described = json!({
        "instanceType": "zz9.xlarge", "hypervisor": "nitro", "processorInfo": {"supportedArchitectures": ["x86_64"]},
        "vCpuInfo": {"defaultVCpus": 4}, "memoryInfo": {"sizeInMiB": 16384},
        "networkInfo": {"maximumNetworkInterfaces": 4, "ipv4AddressesPerInterface": 15, "defaultNetworkCardIndex": 0},
        "gpuInfo": {"gpus": [{"name": "X1", "manufacturer": "NVIDIA", "count": 2, "memoryInfo": {"sizeInMiB": 1024}}]},
    });
    stage.cloud.with(|account, _| account.types.insert("zz9.xlarge".to_owned(), described));
    let policy = bare().mixed(&["zz9.xlarge"], true).description["MixedInstancesPolicy"].clone();
    stage.cloud.group("gpu").with(|group, _| group.description["MixedInstancesPolicy"] = policy);
    let seen = async |stage: &mut Stage| stage.allocatable("nvidia.com/gpu").await.as_deref() == Some("2");
    stage.until("the new type is known", seen).await;
}

// in-tree: the launch template of a mixed policy without overrides is read anew every minute.
#[tokio::test]
async fn the_launch_template_of_a_mixed_policy_without_overrides_is_kept() {
    let mut stage = of(bare().mixed(&[], true), |_| {}).await;
    for _ in 0..3 {
        stage.relisted().await;
    }
    let read = stage.cloud.calls("DescribeLaunchTemplateVersions").len();
    assert_eq!((stage.allocatable("nvidia.com/gpu").await.as_deref(), read), (Some("1"), 1));
}

// in-tree: the template is in the first zone, whatever that zone refused (and buys for pods that cannot go elsewhere).
#[tokio::test]
async fn the_zone_of_the_template_is_the_one_that_gives_machines() {
    let mut stage = Stage::of(gpu_group().mixed(&["g5.xlarge"], true)).await;
    assert_eq!(stage.label("topology.kubernetes.io/zone").await.as_deref(), Some("us-east-1a"));
    stage.cloud.group("gpu").zone("us-east-1a").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu", 1).await.unwrap();
    let moved = async |stage: &mut Stage| stage.label("topology.kubernetes.io/zone").await.unwrap() == "us-east-1b";
    stage.until("the template is in the other zone", moved).await;
    stage.warns("one in the zone that is asked first").await;
}

// in-tree: H100 and newer are no GPU types, and maxnodeprovisiontime is no option.
#[tokio::test]
async fn newer_gpus_are_gpu_types_and_every_option_is_read_from_its_tag() {
    let option =
        |group: Asg, (name, value): (&str, &str)| group.node_template(&format!("autoscaling-options/{name}"), value);
    let told = [
        ("scaledownutilizationthreshold", "0.4"),
        ("scaledowngpuutilizationthreshold", "0.3"),
        ("scaledownunneededtime", "3m"),
        ("scaledownunreadytime", "4m"),
        ("maxnodeprovisiontime", "5m"),
        ("ignoredaemonsetsutilization", "true"),
    ];
    let group = told.into_iter().fold(bare().mixed(&["p5.48xlarge"], false), option);
    let mut stage = Stage::of(group).await;
    let types =
        stage.client.get_available_gpu_types(GetAvailableGpuTypesRequest {}).await.unwrap().into_inner().gpu_types;
    for model in ["nvidia-h100", "nvidia-h200", "nvidia-b200"] {
        assert!(types.contains_key(model), "{model}: {types:?}");
    }
    let new = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let defaults = NodeGroupAutoscalingOptions {
        scale_down_unneeded_duration: new(600),
        scale_down_unready_duration: new(1200),
        max_node_provision_duration: new(900),
        ..Default::default()
    };
    let request = NodeGroupAutoscalingOptionsRequest { id: "gpu".to_owned(), defaults: Some(defaults) };
    let answer = stage.client.node_group_get_options(request).await.unwrap().into_inner();
    let options = answer.node_group_autoscaling_options.unwrap();
    let near = |value: f64, expected: f64| (value - expected).abs() < 1e-9;
    assert!(near(options.scale_down_utilization_threshold, 0.4), "{options:?}");
    assert!(near(options.scale_down_gpu_utilization_threshold, 0.3), "{options:?}");
    assert!(options.ignore_daemon_sets_utilization, "{options:?}");
    let spans = [
        options.scale_down_unneeded_duration,
        options.scale_down_unready_duration,
        options.max_node_provision_duration,
    ];
    assert_eq!(spans, [new(180), new(240), new(300)]);
}

// in-tree: back-off belongs to the process and is forgotten with it.
#[tokio::test]
async fn a_refusal_is_remembered_over_a_restart() {
    let mut stage = Stage::of(gpu_group()).await;
    stage.cloud.group("gpu").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu", 1).await.unwrap();
    stage.warns("left alone for").await;
    stage.kill();
    stage.start();
    stage.until("the groups are listed again", async |stage: &mut Stage| !stage.groups().await.is_empty()).await;
    let page = stage.page("/").await;
    assert!(page.contains("left alone for") && page.contains("InsufficientInstanceCapacity"), "{page}");
}
