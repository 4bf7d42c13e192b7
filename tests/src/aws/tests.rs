//! What the fake does, moment by moment, held to what AWS documents: the clock is an argument, so every lag is exact.

use std::time::Duration;

use serde_json::json;

use super::{
    ACCESS_KEY, Account, Asg, Hook, Pace, REGION, Scarcity, WarmPool,
    answer::Answer,
    request::{Parameters, Protocol, Request, Signature},
};

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
/// Some moment long after 1970.
const START: u64 = 1_795_392_000_000;
const PACE: Pace = Pace {
    react: Duration::from_secs(1),
    retry: Duration::from_secs(10),
    pending: Duration::from_secs(5),
    shutdown: Duration::from_secs(3),
    health_check: Duration::from_secs(20),
};

/// Seconds after the start.
fn at(seconds: u64) -> u64 {
    START + seconds * 1000
}

fn account(group: Asg) -> Account {
    let mut account = Account::default();
    account.add("g", group.pace(PACE), START);
    account
}

/// One signed call of the Auto Scaling API for the group `g`.
fn ask(account: &mut Account, action: &str, form: &str, now: u64) -> Answer {
    let key = ACCESS_KEY.to_owned();
    let signature = Signature { key, region: REGION.to_owned(), service: "autoscaling".to_owned() };
    let parameters = Parameters::of_form(&format!("AutoScalingGroupName=g&{form}"));
    let request = Request {
        protocol: Protocol::Query,
        service: "autoscaling",
        action: action.to_owned(),
        parameters,
        signature: Some(signature),
    };
    account.answer(&request, now)
}

fn launch(account: &mut Account, token: &str, count: u32, zone: &str, now: u64) -> Answer {
    let form = format!("ClientToken={token}&RequestedCapacity={count}&AvailabilityZones.member.1={zone}");
    ask(account, "LaunchInstances", &form, now)
}

/// Lifecycle states of the group's machines, in order of launch.
fn states(account: &mut Account, now: u64) -> Vec<String> {
    account.advance(now);
    account.groups["g"].machines.values().filter_map(|it| it.state(now).map(str::to_owned)).collect()
}

fn zones(account: &Account) -> Vec<&str> {
    let mut zones: Vec<&str> = account.groups["g"].machines.values().map(|it| it.zone.as_str()).collect();
    zones.sort_unstable();
    zones
}

fn failures(account: &Account) -> Vec<String> {
    account.groups["g"].activities.iter().filter_map(|it| it.failure.clone()).collect()
}

#[test]
fn a_desired_capacity_outside_the_bounds_is_refused_in_awss_words() {
    let mut account = account(Asg::new(&ZONES).between(1, 4).desired(1));
    for (wanted, says) in [
        ("5", "New SetDesiredCapacity value 5 is above max value 4 for the AutoScalingGroup."),
        ("0", "New SetDesiredCapacity value 0 is below min value 1 for the AutoScalingGroup."),
        ("-1", "New SetDesiredCapacity value -1 is below min value 1"),
    ] {
        let answer = ask(&mut account, "SetDesiredCapacity", &format!("DesiredCapacity={wanted}"), START);
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("<Code>ValidationError</Code>") && answer.body.contains(says), "{}", answer.body);
    }
    assert_eq!(account.groups["g"].desired, 1);
}

#[test]
fn machines_come_late_and_spread_over_the_zones() {
    let mut account = account(Asg::new(&ZONES));
    ask(&mut account, "SetDesiredCapacity", "DesiredCapacity=6", START);
    assert_eq!(states(&mut account, START), [""; 0]);
    assert_eq!(states(&mut account, at(1)), ["Pending"; 6]);
    assert_eq!(zones(&account), [ZONES[0], ZONES[0], ZONES[1], ZONES[1], ZONES[2], ZONES[2]]);
    let activities = ask(&mut account, "DescribeScalingActivities", "", at(2)).body;
    assert_eq!(activities.matches("<StatusCode>PreInService</StatusCode>").count(), 6);
    assert_eq!(states(&mut account, at(6)), ["InService"; 6]);
    let activities = ask(&mut account, "DescribeScalingActivities", "", at(6)).body;
    assert_eq!(activities.matches("<StatusCode>Successful</StatusCode>").count(), 6);
}

#[test]
fn a_group_tries_its_other_zones_and_notes_what_each_refused() {
    let mut account = account(Asg::new(&ZONES[..2]));
    account.supply.set(Scarcity::new("InsufficientInstanceCapacity").zone(ZONES[0]));
    ask(&mut account, "SetDesiredCapacity", "DesiredCapacity=1", START);
    assert_eq!(states(&mut account, at(2)), ["Pending"]);
    assert_eq!(zones(&account), [ZONES[1]]);
    let failed = failures(&account);
    assert!(
        failed.len() == 1
            && failed[0]
                .starts_with("Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently"),
        "{failed:?}"
    );
}

#[test]
fn what_nobody_gives_is_tried_again_until_it_comes() {
    let mut account = account(Asg::new(&ZONES[..1]));
    account.supply.set(Scarcity::new("VcpuLimitExceeded"));
    ask(&mut account, "SetDesiredCapacity", "DesiredCapacity=2", START);
    for (now, tries) in [(1, 1), (10, 1), (11, 2), (35, 4)] {
        account.advance(at(now));
        assert_eq!(failures(&account).len(), tries, "after {now} s");
    }
    account.supply.clear();
    assert_eq!(states(&mut account, at(50)), ["InService"; 2]);
}

#[test]
fn a_launch_is_exact_in_part_and_the_same_for_the_same_token() {
    let mut account = account(Asg::new(&ZONES));
    account.supply.set(Scarcity::new("InsufficientInstanceCapacity").zone(ZONES[0]).after(2));
    let first = launch(&mut account, "t", 3, ZONES[0], START);
    assert_eq!(first.body.matches("<member>i-").count(), 2);
    assert!(first.body.contains("<ErrorCode>InsufficientInstanceCapacity</ErrorCode>"), "{}", first.body);
    assert!(first.body.contains("<MarketType>on-demand</MarketType>"), "{}", first.body);
    assert_eq!(launch(&mut account, "t", 3, ZONES[0], at(60)), first);
    assert_eq!((account.groups["g"].desired, states(&mut account, at(60)).len()), (2, 2));
    let other = launch(&mut account, "t", 2, ZONES[0], at(60));
    assert!(other.status == 400 && other.body.contains("<Code>IdempotentParameterMismatch</Code>"), "{}", other.body);
    account.supply.clear();
    let later = launch(&mut account, "t", 2, ZONES[0], at(8 * 3600 + 1));
    assert_eq!((later.body.matches("<member>i-").count(), account.groups["g"].desired), (2, 4));
}

#[test]
fn a_launch_that_cannot_be_is_refused_whole() {
    let mixed = json!({
        "LaunchTemplate": {"LaunchTemplateSpecification": {"LaunchTemplateName": "lt-default"}},
        "InstancesDistribution": {"OnDemandBaseCapacity": 1, "OnDemandPercentageAboveBaseCapacity": 0},
    });
    let pool = WarmPool { min: 1, state: "Stopped" };
    for (group, token, count, zone, says) in [
        (Asg::new(&ZONES).between(0, 2), "t", 3, ZONES[0], "above max value 2"),
        (Asg::new(&ZONES), "t", 101, ZONES[0], "between 1 and 100"),
        (Asg::new(&ZONES), "", 1, ZONES[0], "clientToken"),
        (Asg::new(&ZONES), "t", 1, "us-east-1x", "not part of the AutoScalingGroup"),
        (Asg::new(&ZONES).launch_configuration("lc"), "t", 1, ZONES[0], "launch template"),
        (Asg::new(&ZONES).launch_template("gone", "$Latest"), "t", 1, ZONES[0], "valid fully-formed launch template"),
        (Asg::new(&ZONES).warm_pool(pool), "t", 1, ZONES[0], "warm pool"),
        (Asg::new(&ZONES).says("MixedInstancesPolicy", mixed), "t", 1, ZONES[0], "all On-Demand or all Spot"),
    ] {
        let mut account = account(group);
        let answer = launch(&mut account, token, count, zone, START);
        assert!(answer.status == 400 && answer.body.contains(says), "{says}: {}", answer.body);
        assert_eq!(account.groups["g"].desired, 0, "{says}");
    }
}

#[test]
fn a_named_machine_ends_at_once_and_once_and_never_below_the_minimum() {
    let mut account = account(Asg::new(&ZONES).between(1, 4).desired(2));
    let ids: Vec<String> = account.groups["g"].machines.keys().cloned().collect();
    let end = |account: &mut Account, id: &str, now| {
        ask(
            account,
            "TerminateInstanceInAutoScalingGroup",
            &format!("InstanceId={id}&ShouldDecrementDesiredCapacity=true"),
            now,
        )
    };
    assert_eq!(end(&mut account, &ids[0], START).status, 200);
    assert_eq!(
        (states(&mut account, START), account.groups["g"].desired),
        (vec!["Terminating".into(), "InService".into()], 1)
    );
    assert!(end(&mut account, &ids[0], at(1)).body.contains("ScalingActivityInProgress"));
    assert!(end(&mut account, &ids[1], at(1)).body.contains("desiredSize equals minSize (1)"));
    assert_eq!(states(&mut account, at(3)), ["InService"]);
    assert!(end(&mut account, &ids[0], at(4)).body.contains("Instance Id not found"));
}

#[test]
fn a_lower_desired_capacity_ends_machines_of_awss_choice_and_none_that_is_protected() {
    let mut account = account(Asg::new(&ZONES[..2]).desired(3));
    let group = account.groups.get_mut("g").unwrap();
    let crowded = group.machines.values().filter(|it| it.zone == ZONES[0]).map(|it| it.id.clone()).collect::<Vec<_>>();
    group.machines.get_mut(&crowded[0]).unwrap().protected = true;
    ask(&mut account, "SetDesiredCapacity", "DesiredCapacity=2", START);
    account.advance(at(2));
    let ending: Vec<_> =
        account.groups["g"].machines.values().filter(|it| it.ends_at.is_some()).map(|it| &it.id).collect();
    assert_eq!(ending.len(), 1);
    assert_ne!(ending[0], &crowded[0]);
}

#[test]
fn hooks_hold_a_machine_at_both_ends_until_they_are_completed() {
    let hook = |name: &str, launching| Hook { name: name.to_owned(), launching, holds: Duration::from_secs(100) };
    let mut account = account(Asg::new(&ZONES).hook(hook("up", true)).hook(hook("down", false)));
    launch(&mut account, "t", 1, ZONES[0], START);
    let id = account.groups["g"].machines.keys().next().unwrap().clone();
    let complete = |account: &mut Account, now| {
        ask(account, "CompleteLifecycleAction", &format!("InstanceId={id}&LifecycleActionResult=CONTINUE"), now).status
    };
    assert_eq!(states(&mut account, at(6)), ["Pending:Wait"]);
    assert_eq!(complete(&mut account, at(7)), 200);
    assert_eq!(states(&mut account, at(7)), ["InService"]);
    assert_eq!(complete(&mut account, at(8)), 400);
    ask(
        &mut account,
        "TerminateInstanceInAutoScalingGroup",
        &format!("InstanceId={id}&ShouldDecrementDesiredCapacity=true"),
        at(9),
    );
    assert_eq!(states(&mut account, at(50)), ["Terminating:Wait"]);
    assert_eq!(complete(&mut account, at(51)), 200);
    assert_eq!(states(&mut account, at(51)), ["Terminating:Proceed"]);
    assert_eq!(states(&mut account, at(54)), [""; 0]);
}

#[test]
fn a_warm_machine_is_woken_first_and_the_pool_fills_again() {
    let mut account = account(Asg::new(&ZONES).warm_pool(WarmPool { min: 1, state: "Stopped" }));
    account.advance(START);
    let warm = account.groups["g"].warm.keys().next().unwrap().clone();
    let listed = ask(&mut account, "DescribeWarmPool", "", START).body;
    assert!(listed.contains("<LifecycleState>Warmed:Stopped</LifecycleState>"), "{listed}");
    assert!(!ask(&mut account, "DescribeAutoScalingGroups", "", START).body.contains(&warm));
    ask(&mut account, "SetDesiredCapacity", "DesiredCapacity=1", START);
    assert_eq!(states(&mut account, at(2)), ["Pending"]);
    assert!(account.groups["g"].machines.contains_key(&warm));
    assert_eq!(account.groups["g"].warm.len(), 1);
}

#[test]
fn reads_lag_behind_by_what_was_said() {
    let mut account = account(Asg::new(&ZONES));
    account.history.lag(Duration::from_secs(10), &account.groups, START);
    launch(&mut account, "t", 2, ZONES[0], at(20));
    let listed = |account: &mut Account, now| ask(account, "DescribeAutoScalingGroups", "", now).body;
    assert!(listed(&mut account, at(29)).contains("<DesiredCapacity>0</DesiredCapacity>"));
    let seen = listed(&mut account, at(30));
    assert!(seen.contains("<DesiredCapacity>2</DesiredCapacity>") && seen.contains("Pending"), "{seen}");
    assert!(listed(&mut account, at(35)).contains("InService"));
}

#[test]
fn an_interrupted_spot_machine_is_warned_of_ends_and_is_replaced_when_the_group_notices() {
    let mut account = account(Asg::new(&ZONES).mixed(&["g5.xlarge"], true).desired(1));
    account.queue("q", "http://localhost");
    let id = account.groups["g"].machines.keys().next().unwrap().clone();
    assert_eq!(account.interrupt("g", std::slice::from_ref(&id), 120_000, START), std::slice::from_ref(&id));
    assert_eq!(account.messages(), 1);
    let machine = |account: &Account| account.groups["g"].machines[&id].clone();
    assert!(machine(&account).runs(at(119)) && !machine(&account).runs(at(120)));
    assert_eq!(states(&mut account, at(139)), ["InService"]);
    assert_eq!(states(&mut account, at(140)), ["Terminating", "Pending"]);
    assert_eq!(states(&mut account, at(150)), ["InService"]);
}

#[test]
fn zones_are_balanced_by_awss_own_will_unless_that_is_suspended() {
    let mut account = account(Asg::new(&ZONES[..2]));
    launch(&mut account, "t", 2, ZONES[0], START);
    let group = account.groups.get_mut("g").unwrap();
    group.suspended.insert("AZRebalance".to_owned());
    assert!(!account.rebalance("g", at(10)));
    ask(&mut account, "ResumeProcesses", "ScalingProcesses.member.1=AZRebalance", at(10));
    assert!(account.rebalance("g", at(10)));
    account.advance(at(20));
    assert_eq!((zones(&account), account.groups["g"].desired), (vec![ZONES[0], ZONES[1]], 2));
    assert!(!account.rebalance("g", at(20)));
}

#[test]
fn a_caller_is_let_in_by_key_scope_and_permission() {
    let mut account = account(Asg::new(&ZONES));
    let signed = |key: &str, service: &str| Signature {
        key: key.to_owned(),
        region: REGION.to_owned(),
        service: service.to_owned(),
    };
    account.denied.insert("autoscaling:Set*".to_owned());
    account.expired.insert("ASIA1".to_owned());
    for (signature, action, code) in [
        (None, "DescribeAutoScalingGroups", "MissingAuthenticationToken"),
        (Some(signed(ACCESS_KEY, "ec2")), "DescribeAutoScalingGroups", "SignatureDoesNotMatch"),
        (Some(signed("AKIDOTHER", "autoscaling")), "DescribeAutoScalingGroups", "InvalidClientTokenId"),
        (Some(signed("ASIA1", "autoscaling")), "DescribeAutoScalingGroups", "ExpiredToken"),
        (Some(signed(ACCESS_KEY, "autoscaling")), "SetDesiredCapacity", "AccessDenied"),
        (Some(signed("ASIA2", "autoscaling")), "DescribeAutoScalingGroups", "AutoScalingGroups"),
    ] {
        let action = action.to_owned();
        let (protocol, service) = (Protocol::Query, "autoscaling");
        let request = Request { protocol, service, action, parameters: Parameters::default(), signature };
        let answer = account.answer(&request, START);
        assert!(answer.body.contains(code), "{code}: {}", answer.body);
    }
    assert_eq!(account.calls.iter().filter(|call| call.failed).count(), 5);
}
