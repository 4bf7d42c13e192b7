//! What a group without machines is described as, from everything AWS tells of it.

use std::time::Duration;

use aws_sdk_autoscaling::types::{
    AcceleratorCountRequest, InstanceRequirements, LaunchTemplateSpecification, MemoryMiBRequest, VCpuCountRequest,
};

use super::*;
use crate::{
    cloud::aws::{
        allocatable::Family,
        eks::{self, Nodegroup},
        template::{Recipe, Reference, Requirements},
        types::shipped,
    },
    fleet::group::Taint,
    timestamp::Timestamp,
};

const NOW: Timestamp = Timestamp(1);
const LONG: Duration = Duration::from_secs(3600);

fn specification(version: &str) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder().launch_template_id("lt-1").version(version).build()
}

fn reference(version: &str) -> Reference {
    Reference { template: "lt-1".to_owned(), version: version.to_owned() }
}

fn recipe(instance_type: &str) -> Recipe {
    Recipe { instance_type: Some(instance_type.to_owned()), ..Recipe::default() }
}

fn overrides(names: &[&str]) -> MixedInstancesPolicy {
    let all = names.iter().map(|name| LaunchTemplateOverrides::builder().instance_type(*name).build()).collect();
    policy(all)
}

fn policy(all: Vec<LaunchTemplateOverrides>) -> MixedInstancesPolicy {
    let template = LaunchTemplate::builder().launch_template_specification(specification("1")).set_overrides(Some(all));
    MixedInstancesPolicy::builder().launch_template(template.build()).build()
}

fn facts() -> Facts {
    let mut facts = Facts::default();
    facts.templates.put(reference("1"), Ok(recipe("g5.xlarge")), LONG, NOW);
    facts
}

fn managed() -> [TagDescription; 2] {
    [("eks:cluster-name", "c1"), ("eks:nodegroup-name", "gpu")]
        .map(|(key, value)| TagDescription::builder().key(key).value(value).build())
}

fn nodegroup() -> (eks::Name, Nodegroup) {
    let name = eks::Name { cluster: "c1".to_owned(), nodegroup: "gpu".to_owned() };
    let labels = [("eks.amazonaws.com/capacityType", "SPOT"), ("eks.amazonaws.com/nodegroup", "gpu"), ("team", "eks")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let taint = Taint { key: "gpu".to_owned(), value: String::new(), effect: "NoSchedule".to_owned() };
    (name, Nodegroup { labels, taints: vec![taint], ..Nodegroup::default() })
}

#[test]
fn the_launch_template_tells_type_volume_pods_labels_and_market() {
    let mut facts = Facts::default();
    let mut of = recipe("g5g.xlarge");
    of.volumes = vec![("/dev/xvda".to_owned(), 100 << 30)];
    of.market = Some(Market::Spot);
    of.user_data.max_pods = Some(110);
    of.user_data.labels.insert(GPU_LABEL.to_owned(), "nvidia-tesla-t4g".to_owned());
    facts.templates.put(reference("$Latest"), Ok(of), LONG, NOW);
    let group = listed_as(asg().launch_template(specification("$Latest")).build(), &facts).group;
    let shape = &group.shape;
    assert_eq!((shape.instance_type.as_str(), shape.arch.as_str(), shape.pods), ("g5g.xlarge", "arm64", 110));
    assert_eq!((group.market, shape.ephemeral_storage >> 30), (Market::Spot, 99));
    assert_eq!(shape.gpus.as_ref().unwrap().model, "nvidia-tesla-t4g");
    assert_eq!(group.warnings, [""; 0]);
}

// in-tree: a mixed policy is described by its first override.
#[test]
fn several_shapes_are_described_by_the_least_of_each_and_named() {
    let of = listed_as(asg().mixed_instances_policy(overrides(&["g5.12xlarge", "g5.2xlarge"])).build(), &facts());
    let shape = &of.group.shape;
    assert_eq!((shape.instance_type.as_str(), shape.cpu_milli), ("g5.2xlarge", 8000));
    assert_eq!(shape.gpus.as_ref().unwrap().count, 1);
    for part in ["plans with the least", "g5.12xlarge (48 CPUs", "g5.2xlarge (8 CPUs", "4 nvidia-a10g"] {
        assert!(warned(&of, part), "{part}: {:?}", of.group.warnings);
    }
}

#[test]
fn what_only_some_machines_have_is_not_promised() {
    let of = listed_as(asg().mixed_instances_policy(overrides(&["g5.2xlarge", "c5.2xlarge"])).build(), &facts());
    assert!(of.group.shape.gpus.is_none());
    let small = shipped("c5.2xlarge").unwrap().memory;
    assert!(of.group.shape.memory <= small);
}

#[test]
fn types_of_one_shape_are_no_reason_for_a_word() {
    let of = listed_as(asg().mixed_instances_policy(overrides(&["m5.xlarge", "m5d.xlarge"])).build(), &facts());
    assert!(!warned(&of, "differ"), "{:?}", of.group.warnings);
}

#[test]
fn an_override_may_have_a_launch_template_of_its_own() {
    let mut facts = facts();
    let mut arm = recipe("g5g.xlarge");
    arm.user_data.max_pods = Some(20);
    facts.templates.put(reference("2"), Ok(arm), LONG, NOW);
    let own = LaunchTemplateOverrides::builder().launch_template_specification(specification("2")).build();
    let group = listed_as(asg().mixed_instances_policy(policy(vec![own])).build(), &facts).group;
    assert_eq!((group.shape.instance_type.as_str(), group.shape.pods), ("g5g.xlarge", 20));
}

// in-tree: attribute-based groups are described by the first type that matches.
#[test]
fn attributes_stand_for_every_type_that_has_them() {
    let asked = InstanceRequirements::builder()
        .v_cpu_count(VCpuCountRequest::builder().min(4).build())
        .memory_mib(MemoryMiBRequest::builder().min(1).build())
        .accelerator_count(AcceleratorCountRequest::builder().min(1).build())
        .build();
    let mut facts = facts();
    let wanted = (Requirements::of(&asked), "x86_64".to_owned());
    let types = ["g5.4xlarge", "g4dn.xlarge"].map(ToOwned::to_owned).to_vec();
    facts.matching.put(wanted, Ok(types), LONG, NOW);
    let by = LaunchTemplateOverrides::builder().instance_requirements(asked).build();
    let of = listed_as(asg().mixed_instances_policy(policy(vec![by])).build(), &facts);
    assert_eq!((of.group.shape.instance_type.as_str(), of.group.shape.cpu_milli), ("g4dn.xlarge", 4000));
    assert!(warned(&of, "g5.4xlarge"));
}

// in-tree: what a node group's description says is lost after one failed call.
#[test]
fn a_node_groups_labels_and_taints_outlive_a_failed_call() {
    let mut facts = facts();
    let (name, known) = nodegroup();
    facts.nodegroups.put(name.clone(), Ok(known), LONG, NOW);
    facts.nodegroups.put(name, Err("throttled".to_owned()), LONG, NOW);
    let tags = [managed().to_vec(), vec![tag("label/team", "tagged")]].concat();
    let of = listed_as(asg().launch_template(specification("1")).set_tags(Some(tags)).build(), &facts);
    assert_eq!((of.group.market, of.group.labels["team"].as_str()), (Market::Spot, "tagged"));
    assert_eq!(of.group.taints.len(), 1);
    assert!(warned(&of, "EKS node group gpu could not be read: throttled"));
}

// in-tree: node groups are remembered by their name alone, so that two clusters' take each other's labels.
#[test]
fn node_groups_of_one_name_in_two_clusters_are_told_apart() {
    let mut facts = facts();
    let (name, known) = nodegroup();
    let other = eks::Name { cluster: "c2".to_owned(), ..name.clone() };
    facts.nodegroups.put(name, Ok(known), LONG, NOW);
    facts.nodegroups.put(other, Ok(Nodegroup::default()), LONG, NOW);
    for (cluster, team) in [("c1", Some("eks")), ("c2", None)] {
        let tags = [("eks:cluster-name", cluster), ("eks:nodegroup-name", "gpu")];
        let tags = tags.map(|(key, value)| TagDescription::builder().key(key).value(value).build());
        let group = asg().launch_template(specification("1")).set_tags(Some(tags.to_vec())).build();
        let labels = listed_as(group, &facts).group.labels;
        assert_eq!(labels.get("team").map(String::as_str), team, "{cluster}");
        assert!(labels.keys().all(|key| !key.starts_with("eks:")), "no node carries its group's tags: {labels:?}");
    }
}

// in-tree: the operating system is always Linux.
#[test]
fn the_operating_system_is_the_images() {
    let mut facts = facts();
    let mut of = recipe("m5.large");
    of.image = Some("ami-1".to_owned());
    facts.templates.put(reference("1"), Ok(of), LONG, NOW);
    for (family, os) in [(Family::Windows, Some("windows")), (Family::AmazonLinux, None)] {
        let image = crate::cloud::aws::template::Image { family, ..Default::default() };
        facts.images.put("ami-1".to_owned(), Ok(image), LONG, NOW);
        let group = listed_as(asg().launch_template(specification("1")).build(), &facts).group;
        assert_eq!(group.labels.get("kubernetes.io/os").map(String::as_str), os);
    }
}

#[test]
fn a_node_group_decides_on_image_volume_and_pods() {
    let mut facts = facts();
    let (name, mut known) = nodegroup();
    (known.family, known.disk) = (Family::Bottlerocket, Some(50 << 30));
    facts.nodegroups.put(name, Ok(known), LONG, NOW);
    let asg = asg().launch_template(specification("1")).set_tags(Some(managed().to_vec()));
    let shape = listed_as(asg.build(), &facts).group.shape;
    assert_eq!(shape.ephemeral_storage >> 30, 49);
    assert_eq!(shape.pods, 58);
}

// in-tree: node group tags stand over group tags.
#[test]
fn a_node_groups_tags_stand_over_its_auto_scaling_groups() {
    let mut facts = facts();
    let (name, mut known) = nodegroup();
    let key = "k8s.io/cluster-autoscaler/node-template/resources/nvidia.com/gpu".to_owned();
    known.tags.insert(key, "8".to_owned());
    facts.nodegroups.put(name, Ok(known), LONG, NOW);
    let tags = [managed().to_vec(), vec![tag("resources/nvidia.com/gpu", "2")]].concat();
    let of = listed_as(asg().launch_template(specification("1")).set_tags(Some(tags)).build(), &facts);
    assert_eq!(of.group.shape.gpus.unwrap().count, 8);
}

#[test]
fn a_launch_template_that_cannot_be_read_is_said_and_nothing_is_guessed() {
    let mut facts = Facts::default();
    let unread = listed_as(asg().launch_template(specification("1")).build(), &facts);
    assert!(warned(&unread, "lt-1 version 1 has not been read yet"));
    let why = "InvalidLaunchTemplateId.NotFound: no such template".to_owned();
    facts.templates.put(reference("1"), Err(why), LONG, NOW);
    let of = listed_as(asg().launch_template(specification("1")).build(), &facts);
    assert_eq!(of.group.shape.cpu_milli, 0);
    for part in ["could not be read: InvalidLaunchTemplateId.NotFound", "instance type is not known"] {
        assert!(warned(&of, part), "{part}");
    }
}

#[test]
fn a_launch_template_that_vanished_is_described_as_before() {
    let mut facts = facts();
    facts.templates.put(reference("1"), Err("gone".to_owned()), LONG, NOW);
    let of = listed_as(asg().launch_template(specification("1")).build(), &facts);
    assert_eq!(of.group.shape.instance_type, "g5.xlarge");
    assert!(warned(&of, "can no longer be read, what it said before stands: gone"));
}

#[test]
fn an_unknown_instance_type_is_said() {
    let mut facts = Facts::default();
    facts.templates.put(reference("1"), Ok(recipe("g99.xlarge")), LONG, NOW);
    facts.types.put("g99.xlarge".to_owned(), Err("InvalidInstanceType: no".to_owned()), LONG, NOW);
    let of = listed_as(asg().launch_template(specification("1")).build(), &facts);
    assert!(warned(&of, "instance type g99.xlarge is not known: InvalidInstanceType"), "{:?}", of.group.warnings);
    assert!(warned(&of, "capacity is not known"));
}

#[test]
fn only_nodes_that_say_how_they_are_paid_carry_the_label() {
    let mut facts = facts();
    let labels = |of: &Listed| Dialect::aws().labels(&of.group);
    let plain = listed_as(asg().launch_template(specification("1")).build(), &facts);
    assert!(!labels(&plain).contains_key("eks.amazonaws.com/capacityType"));
    let (name, known) = nodegroup();
    facts.nodegroups.put(name, Ok(known), LONG, NOW);
    let asg = asg().launch_template(specification("1")).set_tags(Some(managed().to_vec()));
    assert_eq!(labels(&listed_as(asg.build(), &facts))["eks.amazonaws.com/capacityType"], "SPOT");
}
