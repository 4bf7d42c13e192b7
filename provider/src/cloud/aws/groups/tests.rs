//! Auto Scaling groups in, our groups out.

use aws_sdk_autoscaling::types::{
    Instance as AsgInstance, LaunchTemplate, LaunchTemplateOverrides, LifecycleState, MixedInstancesPolicy,
    TagDescription,
};

use super::*;
use crate::cloud::aws::template::Facts;

mod templates;

fn listed_as(asg: AutoScalingGroup, facts: &Facts) -> Listed {
    listed(&asg, &View { ours: &Ours::default(), facts, region: "us-east-1", prefixes: false }).unwrap()
}

fn listed_alone(asg: AutoScalingGroup) -> Listed {
    listed_as(asg, &Facts::default())
}

fn tag(key: &str, value: &str) -> TagDescription {
    TagDescription::builder().key(format!("k8s.io/cluster-autoscaler/node-template/{key}")).value(value).build()
}

fn asg() -> aws_sdk_autoscaling::types::builders::AutoScalingGroupBuilder {
    AutoScalingGroup::builder().auto_scaling_group_name("gpu").min_size(0).max_size(8).availability_zones("us-east-1a")
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
fn a_spot_group_with_a_mixed_policy_is_described_by_its_type() {
    let label = tag("label/k8s.amazonaws.com/accelerator", "nvidia-a10g");
    let listed = listed_alone(asg().mixed_instances_policy(mixed(0, 0)).tags(label).build());
    let group = listed.group;
    assert_eq!((group.market, group.shape.instance_type.as_str()), (Market::Spot, "g5.2xlarge"));
    assert_eq!(group.zones, ["us-east-1a"]);
    assert_eq!(group.shape.gpus.unwrap().count, 1);
    assert_eq!(group.warnings, [""; 0]);
}

#[test]
fn what_is_not_known_is_said() {
    let bare = listed_alone(asg().launch_configuration_name("old").build());
    for part in ["instance type is not known", "capacity is not known"] {
        assert!(warned(&bare, part), "{part}");
    }
    let both = listed_alone(asg().mixed_instances_policy(mixed(1, 0)).build());
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
    let listed = listed_alone(asg().set_tags(Some(tags.to_vec())).build());
    let shape = &listed.group.shape;
    assert_eq!(
        (shape.cpu_milli, shape.memory, shape.pods, shape.gpus.as_ref().unwrap().count),
        (96_000, 1 << 40, 110, 8)
    );
    assert!(!warned(&listed, "capacity is not known"));
}

// in-tree: the region is the zone without its last letter, which is wrong in a local zone.
#[test]
fn the_region_is_the_clients_own_in_a_local_zone_too() {
    let group = listed_alone(asg().set_availability_zones(Some(vec!["us-east-1-bos-1a".to_owned()])).build()).group;
    assert_eq!((group.region.as_str(), group.zones), ("us-east-1", vec!["us-east-1-bos-1a".to_owned()]));
}

#[test]
fn a_machine_that_two_groups_claim_stays_with_the_one_that_keeps_it_and_both_say_so() {
    let machine = |state| {
        let it = AsgInstance::builder().instance_id("i-1").availability_zone("us-east-1a");
        it.lifecycle_state(state).build()
    };
    let leaving = asg().auto_scaling_group_name("a").instances(machine(LifecycleState::Detaching)).build();
    let keeping = asg().auto_scaling_group_name("b").instances(machine(LifecycleState::InService)).build();
    let other = asg().auto_scaling_group_name("c").build();
    let mut listing = [leaving, keeping, other].map(listed_alone);
    apart(&mut listing);
    assert_eq!(listing.each_ref().map(|it| it.instances.len()), [0, 1, 0]);
    assert!(warned(&listing[0], "claimed by b, too") && warned(&listing[1], "claimed by a, too"));
    assert!(!warned(&listing[2], "claimed"));
}

#[test]
fn bounds_in_the_configuration_stand_over_the_groups_own() {
    let named = |min, max| crate::config::NamedGroup { name: "gpu".to_owned(), min, max };
    for (named, bounds, wide, reversed) in [
        (named(Some(1), Some(4)), (1, 4), false, false),
        (named(None, None), (0, 8), false, false),
        (named(Some(0), Some(20)), (0, 20), true, false),
        (named(Some(5), Some(2)), (0, 0), false, true),
    ] {
        let ours = Ours { groups: vec![named], ..Ours::default() };
        let view = View { ours: &ours, facts: &Facts::default(), region: "us-east-1", prefixes: false };
        let of = listed(&asg().build(), &view).unwrap();
        assert_eq!((of.group.min, of.group.max), bounds);
        assert_eq!((warned(&of, "wider than"), warned(&of, "above its maximum")), (wide, reversed));
    }
}
