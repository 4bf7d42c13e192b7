//! A real node, learned and put in place of a description.

use windlass_proto::core::{NodeCondition, NodeSpec, NodeStatus, ObjectMeta};

use super::*;
use crate::fleet::{template, tests::group};

const AT: Timestamp = Timestamp(7);

/// The node that [`group`] describes, as a machine would register it.
fn real(allocatable: &[(&str, &str)]) -> Node {
    let of = template::node(&group("g", 0, 3), &Dialect::sim());
    let mut labels = of.metadata.unwrap().labels;
    labels.insert("kubernetes.io/hostname".to_owned(), "ip-10-0-0-1".to_owned());
    labels.insert("topology.kubernetes.io/zone".to_owned(), "eu-west-1b".to_owned());
    labels.insert("nvidia.com/gpu.product".to_owned(), "NVIDIA-A10G".to_owned());
    let mut status = of.status.unwrap();
    for (name, text) in allocatable {
        for of in [&mut status.allocatable, &mut status.capacity] {
            of.insert((*name).to_owned(), Quantity { string: Some((*text).to_owned()) });
        }
    }
    Node {
        metadata: Some(ObjectMeta { name: Some("template-node-for-g-1".to_owned()), labels, ..ObjectMeta::default() }),
        spec: Some(NodeSpec { provider_id: Some("aws:///eu-west-1b/i-1".to_owned()), ..NodeSpec::default() }),
        status: Some(NodeStatus { ..status }),
    }
}

fn applied(node: &Node) -> Group {
    let mut group = group("g", 0, 3);
    let mut learned = Learned::of(node, &group, AT).unwrap();
    assert!(learned.apply(&mut group, &Dialect::sim()));
    group
}

#[test]
fn a_group_without_nodes_is_described_as_its_last_node_was() {
    let group = applied(&real(&[("memory", "15Gi"), ("vpc.amazonaws.com/efa", "1"), ("pods", "29")]));
    assert_eq!((group.shape.memory, group.shape.pods), (15 << 30, 29));
    assert_eq!(group.shape.extended["vpc.amazonaws.com/efa"], 1);
    assert_eq!(group.labels["nvidia.com/gpu.product"], "NVIDIA-A10G");
    let labels = template::node(&group, &Dialect::sim()).metadata.unwrap().labels;
    assert_eq!(labels["topology.kubernetes.io/zone"], "eu-west-1a");
    assert!(!labels.contains_key("kubernetes.io/hostname"));
}

#[test]
fn mig_slices_and_shared_gpus_are_learned() {
    let group = applied(&real(&[("nvidia.com/gpu", "0"), ("nvidia.com/mig-1g.5gb", "7")]));
    let gpus = group.shape.gpus.unwrap();
    assert_eq!((gpus.resource.as_str(), gpus.count), ("nvidia.com/mig-1g.5gb", 7));
    let group = applied(&real(&[("nvidia.com/gpu", "4")]));
    assert_eq!(group.shape.gpus.unwrap().count, 4);
}

#[test]
fn template_and_node_are_compared_field_by_field() {
    let mut node = real(&[("nvidia.com/gpu", "4"), ("pods", "29"), ("cpu", "3920m"), ("memory", "12Gi")]);
    let labels = &mut node.metadata.as_mut().unwrap().labels;
    labels.remove("k8s.amazonaws.com/accelerator");
    labels.insert("kubernetes.io/arch".to_owned(), "arm64".to_owned());
    node.spec.as_mut().unwrap().taints.push(windlass_proto::core::Taint {
        key: Some("gpu".to_owned()),
        value: None,
        effect: Some("NoSchedule".to_owned()),
    });
    let told = applied(&node).warnings;
    for part in [
        "label k8s.amazonaws.com/accelerator is not on it, nvidia-a10g was said",
        "label kubernetes.io/arch is arm64, not amd64",
        "allocatable nvidia.com/gpu is 4, not 1",
        "allocatable pods is 29, not 58",
        "allocatable memory is 12Gi, not 16106127360",
        "taint gpu=:NoSchedule is on it, nothing was said",
    ] {
        assert!(told.iter().any(|it| it.ends_with(part)), "{part}: {told:#?}");
    }
    assert_eq!(told.len(), 6, "{told:#?}");
}

#[test]
fn a_node_as_described_is_worth_no_word() {
    assert_eq!(applied(&real(&[])).warnings, [""; 0]);
}

#[test]
fn our_own_description_an_unready_node_and_another_type_teach_nothing() {
    let of = group("g", 0, 3);
    let mut copy = real(&[]);
    copy.spec = Some(NodeSpec::default());
    let mut unready = real(&[]);
    unready.status.as_mut().unwrap().conditions = vec![NodeCondition {
        r#type: Some("Ready".to_owned()),
        status: Some("False".to_owned()),
        ..NodeCondition::default()
    }];
    let mut larger = real(&[]);
    let labels = &mut larger.metadata.as_mut().unwrap().labels;
    labels.insert("node.kubernetes.io/instance-type".to_owned(), "g5.2xlarge".to_owned());
    let silent = real(&[("nvidia.com/gpu", "0")]);
    for (name, node) in [("copy", copy), ("unready", unready), ("larger", larger), ("silent", silent)] {
        assert_eq!(Learned::of(&node, &of, AT), None, "{name}");
    }
}

#[test]
fn a_group_that_changed_is_learned_anew() {
    let mut learned = Learned::of(&real(&[]), &group("g", 0, 3), AT).unwrap();
    assert!(learned.apply(&mut group("g", 0, 3), &Dialect::sim()));
    let mut changed = group("g", 0, 3);
    changed.shape.instance_type = "g6.xlarge".to_owned();
    let before = changed.clone();
    assert!(!learned.apply(&mut changed, &Dialect::sim()));
    assert_eq!(changed, before);
}

#[test]
fn the_noise_between_machines_of_one_kind_is_nothing_new() {
    let of = group("g", 0, 3);
    let learned = |memory: &str| Learned::of(&real(&[("memory", memory)]), &of, AT).unwrap();
    assert!(learned("16000000Ki").is_like(&learned("16004096Ki")));
    assert!(!learned("16000000Ki").is_like(&learned("15000000Ki")));
}
