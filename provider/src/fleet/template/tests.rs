//! The template, field by field.

use prost::Message as _;

use super::*;
use crate::fleet::tests::group;

fn text(resources: &BTreeMap<String, Quantity>) -> Vec<String> {
    resources.iter().map(|(name, amount)| format!("{name}={}", amount.string())).collect()
}

#[test]
fn a_template_has_all_that_a_kubelet_would_say() {
    let mut of = group("g", 0, 3);
    of.labels.insert("team".to_owned(), "vision".to_owned());
    let node = node(&of, &Dialect::sim());
    let labels: Vec<String> =
        node.metadata.as_ref().unwrap().labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        labels,
        [
            "eks.amazonaws.com/capacityType=SPOT",
            "k8s.amazonaws.com/accelerator=nvidia-a10g",
            "kubernetes.io/arch=amd64",
            "kubernetes.io/os=linux",
            "node.kubernetes.io/instance-type=g5.xlarge",
            "team=vision",
            "topology.kubernetes.io/region=eu-west-1",
            "topology.kubernetes.io/zone=eu-west-1a",
        ]
    );
    let status = node.status.as_ref().unwrap();
    let whole = ["cpu=4000m", "ephemeral-storage=85899345920", "memory=17179869184", "nvidia.com/gpu=1", "pods=58"];
    assert_eq!(text(&status.capacity), whole);
    let left = ["cpu=3920m", "ephemeral-storage=85899345920", "memory=16106127360", "nvidia.com/gpu=1", "pods=58"];
    assert_eq!(text(&status.allocatable), left);
    assert!(status.conditions.iter().any(|it| it.r#type() == "Ready" && it.status() == "True"));
}

#[test]
fn equal_groups_give_equal_bytes() {
    let bytes = || node(&group("g", 0, 3), &Dialect::sim()).encode_to_vec();
    assert!((0..20).all(|_| bytes() == bytes()));
}

#[test]
fn what_ca_does_not_know_as_a_gpu_carries_no_gpu_label() {
    for (resource, labelled) in
        [("nvidia.com/gpu", true), ("nvidia.com/mig-1g.10gb", false), ("nvidia.com/gpu.shared", false)]
    {
        let mut of = group("g", 0, 3);
        of.labels.insert("k8s.amazonaws.com/accelerator".to_owned(), "by hand".to_owned());
        of.shape.gpus.as_mut().unwrap().resource = resource.to_owned();
        let node = node(&of, &Dialect::sim());
        let has = node.metadata.unwrap().labels.contains_key("k8s.amazonaws.com/accelerator");
        assert_eq!(has, labelled, "{resource}");
        assert_eq!(node.status.unwrap().capacity[resource].string(), "1");
    }
}
