//! Pods as the scheduler counts them, written with the generated types and read by hand.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};
use windlass_proto::core;

use super::*;

fn quantities(map: &Value) -> BTreeMap<String, core::Quantity> {
    let entries = map.as_object().into_iter().flatten();
    entries.map(|(name, text)| (name.clone(), core::Quantity { string: Some(text.as_str().unwrap().into()) })).collect()
}

fn strings(map: &Value) -> BTreeMap<String, String> {
    let entries = map.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
}

fn containers(list: &Value) -> Vec<core::Container> {
    let container = |container: &Value| core::Container {
        name: None,
        resources: Some(core::ResourceRequirements {
            requests: quantities(&container["requests"]),
            limits: quantities(&container["limits"]),
        }),
        restart_policy: container["restartPolicy"].as_str().map(str::to_owned),
    };
    list.as_array().into_iter().flatten().map(container).collect()
}

fn encode(pod: &Value) -> Bytes {
    let expressions = pod["affinity"].as_array().into_iter().flatten().map(|term| core::NodeSelectorTerm {
        match_expressions: term
            .as_array()
            .unwrap()
            .iter()
            .map(|expression| core::NodeSelectorRequirement {
                key: expression[0].as_str().map(str::to_owned),
                operator: expression[1].as_str().map(str::to_owned),
                values: expression.as_array().unwrap()[2..]
                    .iter()
                    .map(|value| value.as_str().unwrap().to_owned())
                    .collect(),
            })
            .collect(),
    });
    let required = core::NodeSelector { node_selector_terms: expressions.collect() };
    let message = core::Pod {
        metadata: Some(core::ObjectMeta {
            name: Some("train".to_owned()),
            namespace: Some("ml".to_owned()),
            uid: Some(pod["uid"].as_str().unwrap_or("u-1").to_owned()),
            labels: strings(&json!({"app": "train"})),
            annotations: strings(&pod["annotations"]),
            ..core::ObjectMeta::default()
        }),
        spec: Some(core::PodSpec {
            containers: containers(&pod["containers"]),
            init_containers: containers(&pod["initContainers"]),
            node_selector: strings(&pod["nodeSelector"]),
            overhead: quantities(&pod["overhead"]),
            affinity: Some(core::Affinity {
                node_affinity: Some(core::NodeAffinity {
                    required_during_scheduling_ignored_during_execution: Some(required),
                }),
            }),
            ..core::PodSpec::default()
        }),
    };
    message.encode_to_vec().into()
}

/// A pod as JSON, and what is read of it: cpu in thousandths, memory in bytes, everything else.
#[track_caller]
fn check(pod: Value, expect: Value) {
    let ask = Pods::default().get(&encode(&pod)).unwrap();
    let read = json!([ask.needs.cpu_milli, ask.needs.memory, ask.needs.extended]);
    assert_eq!(read, expect, "{pod}");
}

#[test]
fn containers_add_up() {
    check(
        json!({"containers": [{"requests": {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "1"}}, {"requests": {"cpu": "1"}}]}),
        json!([1500, 1 << 30, {"nvidia.com/gpu": 1}]),
    );
}

#[test]
fn limits_stand_for_requests_that_are_not_given() {
    check(
        json!({"containers": [{"requests": {"cpu": "1"}, "limits": {"cpu": "4", "memory": "2Gi", "nvidia.com/gpu": "2"}}]}),
        json!([1000, 2_u64 << 30, {"nvidia.com/gpu": 2}]),
    );
}

#[test]
fn init_containers_count_by_their_peak_and_sidecars_always() {
    check(
        json!({
            "containers": [{"requests": {"cpu": "1"}}],
            "initContainers": [
                {"requests": {"cpu": "3"}},
                {"requests": {"cpu": "500m"}, "restartPolicy": "Always"},
                {"requests": {"cpu": "3", "nvidia.com/gpu": "1"}},
            ],
        }),
        json!([3500, 0, {"nvidia.com/gpu": 1}]),
    );
    check(
        json!({
            "containers": [{"requests": {"cpu": "4"}}],
            "initContainers": [{"requests": {"cpu": "500m"}, "restartPolicy": "Always"}, {"requests": {"cpu": "3"}}],
        }),
        json!([4500, 0, {}]),
    );
}

#[test]
fn overhead_is_part_of_it_and_local_storage_is_not() {
    check(
        json!({
            "containers": [{"requests": {"cpu": "1", "ephemeral-storage": "10Gi", "hugepages-2Mi": "4Mi"}}],
            "overhead": {"cpu": "250m", "memory": "120Mi"},
        }),
        json!([1250, 120 << 20, {}]),
    );
}

#[test]
fn a_quantity_that_is_none_counts_as_none() {
    check(
        json!({"containers": [{"requests": {"cpu": "many", "memory": "-1Gi", "nvidia.com/gpu": ""}}]}),
        json!([0, 0, {"nvidia.com/gpu": 0}]),
    );
}

#[test]
fn pod_level_requests_stand_for_those_of_the_containers() {
    let pod = encode(&json!({"containers": [{"requests": {"cpu": "1", "memory": "1Gi"}}]}));
    let mut spec = core::Pod::decode(pod).unwrap().spec.unwrap().encode_to_vec();
    let whole = core::ResourceRequirements { requests: quantities(&json!({"cpu": "2"})), ..Default::default() };
    // PodSpec.resources has the number 40, which the contract's subset leaves out.
    prost::encoding::message::encode(40, &whole, &mut spec);
    let mut bytes = Vec::new();
    prost::encoding::bytes::encode(2, &spec, &mut bytes);
    let ask = Pods::default().get(&bytes.into()).unwrap();
    assert_eq!((ask.needs.cpu_milli, ask.needs.memory), (2000, 1 << 30));
}

#[test]
fn selectors_and_single_terms_are_read_alike() {
    let pod = json!({
        "nodeSelector": {"zone": "a"},
        "affinity": [[["nvidia.com/gpu.product", "In", "NVIDIA-L40S"], ["nvidia.com/gpu.memory", "Gt", "30000"], ["arch", "In", "arm64", "amd64"]]],
    });
    let ask = Pods::default().get(&encode(&pod)).unwrap();
    assert_eq!(json!(ask.needs.selector), json!({"zone": "a", "nvidia.com/gpu.product": "NVIDIA-L40S"}));
    assert_eq!(ask.needs.gpu_memory_over, Some(30_000));
    let either = json!({"affinity": [[["zone", "In", "a"]], [["zone", "In", "b"]]]});
    assert!(
        Pods::default().get(&encode(&either)).unwrap().needs.selector.is_empty(),
        "one of two terms is no requirement"
    );
}

#[test]
fn pods_made_up_by_the_autoscaler_have_no_identity() {
    for annotation in ["podtype", "podType"] {
        let pod = json!({"annotations": {annotation: "any"}});
        assert_eq!(&*Pods::default().get(&encode(&pod)).unwrap().uid, "");
    }
}

#[test]
fn the_same_bytes_are_read_once() {
    let mut pods = Pods::default();
    let first = pods.get(&encode(&json!({}))).unwrap();
    assert!(Arc::ptr_eq(&first, &pods.get(&encode(&json!({}))).unwrap()));
    assert_eq!((&*first.name, &*first.uid), ("ml/train", "u-1"));
    let twin = pods.get(&encode(&json!({"uid": "u-2"}))).unwrap();
    assert!(Arc::ptr_eq(&first.needs, &twin.needs), "equal needs are kept once");
    let changed = pods.get(&encode(&json!({"nodeSelector": {"zone": "a"}}))).unwrap();
    assert!(!Arc::ptr_eq(&first, &changed), "the same uid with other bytes is read again");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), cut in 0_usize..200) {
        let _ = Pods::default().get(&bytes.into());
        let whole = encode(&json!({"containers": [{"requests": {"cpu": "1"}}], "overhead": {"cpu": "1"}}));
        let _ = Pods::default().get(&whole.slice(..cut.min(whole.len())));
    }
}
