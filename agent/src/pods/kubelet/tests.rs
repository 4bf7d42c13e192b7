//! Answers of the kubelet as they come, and as they should not.

use super::answer::{ASSIGNMENTS_MAX, NAME_MAX};
use super::*;
use prost::Message as _;
use windlass_proto::podresources::{
    ClaimResource, ContainerDevices, ContainerResources, DynamicResource, ListPodResourcesResponse, PodResources,
};

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
    let list = pod(vec![container("main", vec![devices("nvidia.com/gpu", &ids)])]);
    let answer = Answer::decode(&*list.encode_to_vec()).unwrap();
    assert_eq!((answer.found.len(), answer.named), (ASSIGNMENTS_MAX, ASSIGNMENTS_MAX + 5));
}

/// The same by prost's own reading of the whole message.
fn by_prost(answer: &[u8]) -> Option<Vec<(String, bool)>> {
    let list = ListPodResourcesResponse::decode(answer).ok()?;
    let mut found = Vec::new();
    for container in list.pod_resources.iter().flat_map(|pod| &pod.containers) {
        for devices in &container.devices {
            let ours = devices.device_ids.iter().filter(|id| {
                devices.resource_name.starts_with(b"nvidia.com/") || id.starts_with(b"GPU-") || id.starts_with(b"MIG-")
            });
            found.extend(ours.map(|id| (String::from_utf8_lossy(id).into_owned(), false)));
        }
        let claimed = container.dynamic_resources.iter().flat_map(|claim| &claim.claim_resources);
        let ours = claimed.filter(|device| &*device.driver_name == b"gpu.nvidia.com");
        found.extend(ours.map(|device| (String::from_utf8_lossy(&device.device_name).into_owned(), true)));
    }
    Some(found)
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
        let _decoded = decode(&bytes);
        let _decoded = pods::decode(&bytes);
    }

    #[test]
    fn an_answer_is_read_as_prost_reads_it(changes in proptest::collection::vec((0..usize::MAX, 0..=u8::MAX), 0..3)) {
        let claim = ClaimResource {
            driver_name: "gpu.nvidia.com".into(), device_name: "gpu-1".into(), share_id: Some("b8a3".into()), ..ClaimResource::default()
        };
        let mut main = container("main", vec![devices("nvidia.com/gpu", &["GPU-1", "x"]), devices("a/b", &["MIG-2", "y"])]);
        main.dynamic_resources = vec![DynamicResource { claim_resources: vec![claim], ..DynamicResource::default() }];
        let mut bytes = pod(vec![main, container("side", vec![devices("nvidia.com/gpu", &["GPU-3"])])]).encode_to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        // What prost refuses may hold fields that are none of ours: nothing depends on them.
        if let Some(expect) = by_prost(&bytes) {
            let found = decode(&bytes).unwrap();
            let found: Vec<_> = found.iter().map(|it| (it.device_id.to_string(), it.claimed)).collect();
            proptest::prop_assert_eq!(found, expect);
        }
    }
}
