//! Auto Scaling groups in, our groups out.

use aws_sdk_autoscaling::types::{LaunchTemplate, LaunchTemplateOverrides, MixedInstancesPolicy, TagDescription};

use super::*;

fn tag(key: &str, value: &str) -> TagDescription {
    TagDescription::builder().key(format!("k8s.io/cluster-autoscaler/node-template/{key}")).value(value).build()
}

fn asg() -> aws_sdk_autoscaling::types::builders::AutoScalingGroupBuilder {
    AutoScalingGroup::builder()
        .auto_scaling_group_name("gpu")
        .min_size(0)
        .max_size(8)
        .availability_zones("us-east-1b")
        .availability_zones("us-east-1a")
}

fn mixed(base: i32, above: i32) -> MixedInstancesPolicy {
    let overrides = LaunchTemplateOverrides::builder().instance_type("g5.2xlarge").build();
    let distribution =
        InstancesDistribution::builder().on_demand_base_capacity(base).on_demand_percentage_above_base_capacity(above);
    MixedInstancesPolicy::builder()
        .launch_template(LaunchTemplate::builder().overrides(overrides).build())
        .instances_distribution(distribution.build())
        .build()
}

fn warned(listed: &Listed, part: &str) -> bool {
    listed.group.warnings.iter().any(|warning| warning.contains(part))
}

#[test]
fn a_spot_group_with_a_mixed_policy_is_described_by_its_first_type() {
    let label = tag("label/k8s.amazonaws.com/accelerator", "nvidia-a10g");
    let listed = listed(asg().mixed_instances_policy(mixed(0, 0)).tags(label).build(), "us-east-1").unwrap();
    let group = listed.group;
    assert_eq!((group.market, group.shape.instance_type.as_str()), (Market::Spot, "g5.2xlarge"));
    assert_eq!(group.zones, ["us-east-1a", "us-east-1b"]);
    assert_eq!(group.shape.gpus.unwrap().count, 1);
    assert_eq!(group.warnings, [""; 0]);
}

#[test]
fn what_is_not_known_is_said() {
    let bare = listed(asg().launch_configuration_name("old").build(), "us-east-1").unwrap();
    for part in ["instance type is not known", "capacity is not known"] {
        assert!(warned(&bare, part), "{part}");
    }
    let both = listed(asg().mixed_instances_policy(mixed(1, 0)).build(), "us-east-1").unwrap();
    assert_eq!(both.group.market, Market::OnDemand);
    assert!(warned(&both, "at registration"));
}

#[test]
fn tags_describe_a_machine_whose_type_nobody_knows() {
    let tags = [
        tag("resources/cpu", "96"),
        tag("resources/memory", "1Ti"),
        tag("resources/pods", "110"),
        tag("resources/nvidia.com/gpu", "8"),
    ];
    let listed = listed(asg().set_tags(Some(tags.to_vec())).build(), "us-east-1").unwrap();
    let shape = &listed.group.shape;
    assert_eq!(
        (shape.cpu_milli, shape.memory, shape.pods, shape.gpus.as_ref().unwrap().count),
        (96_000, 1 << 40, 110, 8)
    );
    assert!(!warned(&listed, "capacity is not known"));
}

#[test]
fn discovery_is_written_as_for_the_in_tree_provider() {
    let spec: Discovery = "asg:tag=k8s.io/cluster-autoscaler/enabled,team=vision".parse().unwrap();
    assert_eq!(spec.to_string(), "asg:tag=k8s.io/cluster-autoscaler/enabled,team=vision");
    let filters: Vec<_> =
        spec.filters().iter().map(|it| (it.name().unwrap().to_owned(), it.values().to_vec())).collect();
    assert_eq!(filters[0], ("tag-key".to_owned(), vec!["k8s.io/cluster-autoscaler/enabled".to_owned()]));
    assert_eq!(filters[1], ("tag:team".to_owned(), vec!["vision".to_owned()]));
    for wrong in ["", "asg:tag=", "mig:namePrefix=x", "asg:tag=a,,b"] {
        assert!(wrong.parse::<Discovery>().unwrap_err().to_string().contains("asg:tag="), "{wrong}");
    }
}
