//! Answers of the kubelet as they come, and as they should not.

use super::*;
use prost::Message as _;
use windlass_proto::podresources::{ClaimResource, ContainerDevices, DynamicResource, PodResources};

fn devices(resource: &str, ids: &[&str]) -> ContainerDevices {
    ContainerDevices {
        resource_name: resource.to_owned().into(),
        device_ids: ids.iter().map(|id| (*id).to_owned().into()).collect(),
    }
}

fn container(name: &str, devices: Vec<ContainerDevices>) -> ContainerResources {
    ContainerResources { name: name.to_owned().into(), devices, ..ContainerResources::default() }
}

fn pod(containers: Vec<ContainerResources>) -> ListPodResourcesResponse {
    let pod = PodResources { name: "train".into(), namespace: "ml".into(), containers };
    ListPodResourcesResponse { pod_resources: vec![pod] }
}

fn check(list: &ListPodResourcesResponse, expect: &[&str]) {
    let found = decode(&list.encode_to_vec()).unwrap();
    let line = |a: &Assignment| {
        format!("{} {} {}{}", a.owner.pod, a.owner.container, a.device_id, if a.claimed { " claimed" } else { "" })
    };
    assert_eq!(found.iter().map(line).collect::<Vec<_>>(), expect);
}

#[test]
fn only_gpus_are_kept() {
    let main =
        container("main", vec![devices("nvidia.com/gpu", &["GPU-1", "GPU-2"]), devices("vendor.com/nic", &["eth7"])]);
    check(&pod(vec![main, container("sidecar", Vec::new())]), &["train main GPU-1", "train main GPU-2"]);
    // A plugin of another vendor that gives out the driver's own ids.
    check(&pod(vec![container("main", vec![devices("vendor.com/vgpu", &["GPU-1"])])]), &["train main GPU-1"]);
}

#[test]
fn claims_name_their_devices() {
    let claim = |driver: &str, device: &str, share: Option<&str>| DynamicResource {
        claim_name: "gpus".into(),
        claim_namespace: "ml".into(),
        claim_resources: vec![ClaimResource {
            driver_name: driver.to_owned().into(),
            pool_name: "node-a".into(),
            device_name: device.to_owned().into(),
            share_id: share.map(|share| share.to_owned().into()),
            ..ClaimResource::default()
        }],
    };
    let mut main = container("main", vec![devices("nvidia.com/gpu", &["GPU-1"])]);
    main.dynamic_resources = vec![
        claim("gpu.nvidia.com", "gpu-1", Some("b8a3")),
        claim("compute-domain.nvidia.com", "channel-0", None),
        claim("gpu.nvidia.com", "gpu-0-mig-1g10gb-19-2", None),
    ];
    check(
        &pod(vec![main]),
        &["train main GPU-1", "train main gpu-1 claimed", "train main gpu-0-mig-1g10gb-19-2 claimed"],
    );
}

#[test]
fn a_name_that_is_no_text_costs_only_itself() {
    let mut list = pod(vec![container("main", vec![devices("nvidia.com/gpu", &["GPU-1"])])]);
    let broken = PodResources {
        name: vec![b'x', 0xff, 0xfe].into(),
        namespace: "ml".into(),
        containers: vec![container(&"y".repeat(1000), vec![devices("nvidia.com/gpu", &["GPU-2"])])],
    };
    list.pod_resources.insert(0, broken);
    let long = "y".repeat(NAME_MAX);
    check(&list, &[&format!("x\u{fffd}\u{fffd} {long} GPU-2"), "train main GPU-1"]);
}

#[test]
fn more_devices_than_are_kept_are_counted() {
    let ids: Vec<String> = (0..ASSIGNMENTS_MAX + 5).map(|replica| format!("GPU-1::{replica}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (found, named) = assignments(&pod(vec![container("main", vec![devices("nvidia.com/gpu", &ids)])]));
    assert_eq!((found.len(), named), (ASSIGNMENTS_MAX, ASSIGNMENTS_MAX + 5));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
        let _decoded = decode(&bytes);
        let _decoded = pods::decode(&bytes);
    }
}
