//! The desired capacity, in tables: what is read and what is wanted, against what is asked.

use std::sync::Arc;

use aws_sdk_autoscaling::types::{
    InstancesDistribution, LaunchTemplate, MixedInstancesPolicy, SuspendedProcess, WarmPoolConfiguration,
};

use super::*;

fn ids(of: &str) -> BTreeSet<InstanceId> {
    of.split_whitespace().map(InstanceId::from).collect()
}

fn wanted(live: &str, doomed: &str, outstanding: u32) -> Wanted {
    let known = ids(&format!("{live} {doomed}"));
    Wanted { known: Arc::new(known), live: Arc::new(ids(live)), outstanding }
}

fn group(desired: u32, counted: &str) -> Growth {
    Growth { desired, max: 9, listed: ids(counted), counted: ids(counted), ..Growth::default() }
}

#[test]
fn a_raise_is_absolute_and_a_repeated_one_asks_for_nothing() {
    for (desired, counted, wanted, expected) in [
        (2, "a b", wanted("a b", "", 3), Some(5)),
        (5, "a b", wanted("a b", "", 3), None),
        (5, "a b c", wanted("a b", "", 3), None),
        (4, "a b c d", wanted("a b", "", 3), Some(5)),
        (5, "a b c d e", wanted("a b", "", 3), None),
    ] {
        assert_eq!(group(desired, counted).raise(&wanted), (expected, 0), "{desired} {counted}");
    }
}

#[test]
fn the_desired_capacity_is_never_lowered() {
    for desired in 0..12 {
        for counted in ["", "a", "a b c d e f g h"] {
            for outstanding in 0..4 {
                let (to, _) = group(desired, counted).raise(&wanted("a b", "c", outstanding));
                assert!(to.is_none_or(|to| to > desired && to <= 9), "{desired} {counted} {outstanding}");
            }
        }
    }
}

/// In-tree sets what it remembers; a machine that it has not seen yet is then one too many (kubernetes/autoscaler#10147).
#[test]
fn a_list_that_lags_behind_never_leads_below_what_lives() {
    let behind = group(4, "a b");
    assert_eq!(behind.raise(&wanted("a b c d", "", 1)), (Some(5), 0), "the ledger has seen more");
    let ahead = group(4, "a b c d");
    assert_eq!(ahead.raise(&wanted("a b", "", 3)), (Some(5), 0), "two of the three have come");
}

#[test]
fn a_reading_older_than_our_own_raise_does_not_take_it_back() {
    let mut raised = Raised::heard(6, Timestamp(1_000));
    let read = || group(4, "a b c d");
    assert_eq!(raised.corrected(read(), Timestamp(2_000)).raise(&wanted("a b c d", "", 1)), (None, 0));
    raised.lowered(2);
    assert_eq!(raised.corrected(read(), Timestamp(2_000)).raise(&wanted("a b c d", "", 1)), (Some(5), 0));
    let raised = Raised::heard(6, Timestamp(1_000));
    assert_eq!(raised.corrected(read(), Timestamp(6_000)).desired, 4, "a later reading is the truth");
}

/// Whether AWS heard a raise or not, it is never taken back, and what is wanted is asked for.
#[test]
fn a_raise_that_aws_has_not_answered_is_said_once_more() {
    let next = |raised: Raised, read: Growth, now| {
        raised.next(&raised.corrected(read, Timestamp(now)), &wanted("a b", "", 2), Timestamp(now))
    };
    for now in [2_000, 60_000] {
        for read in [group(2, "a b"), group(4, "a b")] {
            assert_eq!(next(Raised::asked(4, Timestamp(1_000)), read, now), Some(4), "{now}");
        }
    }
    assert_eq!(next(Raised::asked(4, Timestamp(1_000)), group(7, "a b"), 2_000), Some(7), "someone else's stays");
    assert_eq!(next(Raised::heard(4, Timestamp(1_000)), group(2, "a b"), 2_000), None);
    assert_eq!(next(Raised::asked(9, Timestamp(1_000)), group(2, "a b"), 400_000), Some(4), "long given up");
}

#[test]
fn a_machine_on_its_way_out_and_one_in_standby_are_no_reason_to_buy() {
    assert_eq!(group(3, "a b c").raise(&wanted("a b", "c", 1)), (Some(4), 0), "c leaves, and its place with it");
    let standby = Growth { listed: ids("a b s"), ..group(2, "a b") };
    assert_eq!(standby.raise(&wanted("a b s", "", 1)), (Some(3), 0));
}

#[test]
fn what_the_group_tries_for_anyway_is_not_ordered_once_more() {
    assert_eq!(group(5, "a b c d").raise(&wanted("a b c d", "", 1)), (None, 0), "a replacement is on its way");
}

#[test]
fn what_the_maximum_leaves_out_is_told() {
    assert_eq!(group(8, "a b c d e f g h").raise(&wanted("a b", "", 9)), (Some(9), 2));
    assert_eq!(group(9, "a b c d e f g h i").raise(&wanted("a b c d e f g h i", "", 2)), (None, 2));
}

fn policy(base: i32, share: i32) -> MixedInstancesPolicy {
    let distribution = InstancesDistribution::builder();
    let distribution = distribution.on_demand_base_capacity(base).on_demand_percentage_above_base_capacity(share);
    MixedInstancesPolicy::builder()
        .instances_distribution(distribution.build())
        .launch_template(LaunchTemplate::builder().build())
        .build()
}

#[test]
fn launch_instances_is_asked_where_the_group_allows_it() {
    let asg = AutoScalingGroup::builder;
    for (of, expected) in [
        (asg(), true),
        (asg().mixed_instances_policy(policy(0, 100)), true),
        (asg().mixed_instances_policy(policy(3, 100)), true),
        (asg().mixed_instances_policy(policy(0, 0)), true),
        (asg().mixed_instances_policy(policy(1, 0)), false),
        (asg().mixed_instances_policy(policy(0, 50)), false),
        (asg().launch_configuration_name("old"), false),
        (asg().warm_pool_configuration(WarmPoolConfiguration::builder().build()), false),
    ] {
        let of = of.build();
        assert_eq!(Growth::of(&of).not_instances.is_none(), expected, "{of:?}");
    }
}

#[test]
fn a_group_that_cannot_grow_says_why() {
    let suspended = SuspendedProcess::builder().process_name("Launch").build();
    let asg = AutoScalingGroup::builder().suspended_processes(suspended).build();
    assert_eq!(Growth::of(&asg).obstacle().map(|it| it.code), Some("LaunchSuspended".to_owned()));
    let weighted = LaunchTemplateOverrides::builder().weighted_capacity("4").build();
    let policy = MixedInstancesPolicy::builder().launch_template(LaunchTemplate::builder().overrides(weighted).build());
    let asg = AutoScalingGroup::builder().mixed_instances_policy(policy.build()).build();
    assert_eq!(Growth::of(&asg).obstacle().map(|it| it.code), Some("InstanceWeights".to_owned()));
    assert_eq!(Growth::default().obstacle(), None);
}
