//! The Auto Scaling API: its reads, and where its changes are carried out.

use serde_json::{Value, json};

use super::{
    Account, Asg,
    answer::{Outcome, Refused, page},
    launch::zone_id,
    machine::Machine,
    moment::{self, Moment},
    request::Parameters,
    request::Request,
};

pub(super) fn answer(account: &mut Account, request: &Request, now: Moment) -> Outcome {
    let asked = &request.parameters;
    match request.action.as_str() {
        "DescribeAutoScalingGroups" => groups(account, asked, now),
        "DescribeAutoScalingInstances" => instances(account, asked, now),
        "DescribeScalingActivities" => activities(account, asked, now),
        "DescribeLaunchConfigurations" => launch_configurations(account, asked),
        "DescribeWarmPool" => warm_pool(account, asked, now),
        "DescribeLifecycleHooks" => hooks(account, asked),
        "DescribeTags" => tags(account, asked),
        "LaunchInstances" => account.launch_instances(asked, now),
        "SetDesiredCapacity" => account.set_desired_capacity(asked, now),
        "TerminateInstanceInAutoScalingGroup" => account.terminate_instance(asked, now),
        "SuspendProcesses" => suspend(account, asked, true),
        "ResumeProcesses" => suspend(account, asked, false),
        "SetInstanceProtection" => protect(account, asked),
        "CompleteLifecycleAction" => complete(account, asked, now),
        other => {
            Err(Refused::new(400, "InvalidAction", format!("Could not find operation {other} for version 2011-01-01")))
        }
    }
}

/// `MaxRecords`, refused above the API's limit.
fn records(asked: &Parameters, most: i64, default: i64) -> Result<usize, Refused> {
    let records = asked.number("MaxRecords").unwrap_or(default);
    let message = format!(
        "1 validation error detected: Value '{records}' at 'maxRecords' failed to satisfy constraint: Member must have value less than or equal to {most}"
    );
    usize::try_from(records).ok().filter(|_| (1..=most).contains(&records)).ok_or_else(|| Refused::validation(message))
}

fn groups(account: &Account, asked: &Parameters, now: Moment) -> Outcome {
    let (groups, at) = account.history.seen(&account.groups, now);
    let names = asked.list("AutoScalingGroupNames.member");
    if names.len() > 100 {
        return Err(Refused::validation("1 validation error detected: at most 100 names can be given"));
    }
    let filters = asked.filters("Filters.member", "Values.member");
    if let Some((name, _)) =
        filters.iter().find(|(name, _)| !matches!(name.as_str(), "tag-key" | "tag-value") && !name.starts_with("tag:"))
    {
        return Err(Refused::validation(format!(
            "Filter type {name} is not correct. Allowed Filter types are: [tag-key, tag-value, tag:<key>]"
        )));
    }
    let tagged = |group: &Asg| filters.iter().all(|(name, values)| has(group, name, values));
    let wanted = |(name, group): &(&String, &Asg)| (names.is_empty() || names.contains(name)) && tagged(group);
    let all: Vec<_> = groups.iter().filter(wanted).collect();
    let (some, next) = page(all, asked.get("NextToken"), records(asked, 100, 50)?)?;
    let whole = asked.get("IncludeInstances") != Some("false");
    let described: Vec<Value> = some.into_iter().map(|(name, group)| described(name, group, whole, at)).collect();
    Ok(json!({"AutoScalingGroups": described, "NextToken": next}))
}

/// Whether a group's tags answer one filter.
fn has(group: &Asg, name: &str, values: &[String]) -> bool {
    let mut tags = group.tags.iter();
    match name.strip_prefix("tag:") {
        Some(key) => group.tags.get(key).is_some_and(|value| values.contains(value)),
        None if name == "tag-key" => tags.any(|(key, _)| values.contains(key)),
        None => tags.any(|(_, value)| values.contains(value)),
    }
}

fn described(name: &str, group: &Asg, with_instances: bool, now: Moment) -> Value {
    let tag = |(key, value): (&String, &String)| json!({"ResourceId": name, "ResourceType": "auto-scaling-group", "Key": key, "Value": value, "PropagateAtLaunch": true});
    let suspended = |process: &String| json!({"ProcessName": process, "SuspensionReason": "User suspended"});
    let subnets: Vec<String> = group.zones.iter().map(|zone| format!("subnet-{zone}")).collect();
    let alive = group.machines.values().filter(|_| with_instances).filter_map(|it| instance(it, group, now));
    let pool = group.warm_pool.as_ref();
    let mut described = json!({
        "AutoScalingGroupName": name,
        "AutoScalingGroupARN": format!("arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:0:autoScalingGroupName/{name}"),
        "MinSize": group.min, "MaxSize": group.max, "DesiredCapacity": group.desired, "DefaultCooldown": 300,
        "HealthCheckType": "EC2", "HealthCheckGracePeriod": 15, "CreatedTime": "2026-01-01T00:00:00Z",
        "AvailabilityZones": group.zones, "VPCZoneIdentifier": subnets.join(","), "LoadBalancerNames": [], "TargetGroupARNs": [],
        "NewInstancesProtectedFromScaleIn": false, "TerminationPolicies": ["Default"],
        "Tags": group.tags.iter().map(tag).collect::<Vec<_>>(),
        "SuspendedProcesses": group.suspended.iter().map(suspended).collect::<Vec<_>>(),
        "Instances": alive.collect::<Vec<_>>(),
        "WarmPoolConfiguration": pool.map(|pool| json!({"MinSize": pool.min, "PoolState": pool.state})),
        "WarmPoolSize": pool.map(|_| group.warm.len()),
    });
    for (key, value) in &group.description {
        described[key] = value.clone();
    }
    described
}

/// One instance of the group's; None before its launch and once it is gone.
fn instance(machine: &Machine, group: &Asg, now: Moment) -> Option<Value> {
    Some(json!({
        "InstanceId": machine.id, "InstanceType": machine.instance_type, "AvailabilityZone": machine.zone,
        "AvailabilityZoneId": zone_id(&machine.zone), "LifecycleState": machine.state(now)?,
        "HealthStatus": if machine.ends_at.is_some_and(|at| at <= now) { "Unhealthy" } else { "Healthy" },
        "LaunchTemplate": group.description.get("LaunchTemplate"), "ProtectedFromScaleIn": machine.protected,
        "LaunchConfigurationName": group.description.get("LaunchConfigurationName"),
    }))
}

fn instances(account: &Account, asked: &Parameters, now: Moment) -> Outcome {
    let (groups, at) = account.history.seen(&account.groups, now);
    let ids = asked.list("InstanceIds.member");
    let of_group = |(name, group): (&String, &Asg)| -> Vec<Value> {
        let machines =
            group.machines.values().chain(group.warm.values()).filter(|it| ids.is_empty() || ids.contains(&it.id));
        let named = machines.filter_map(|it| instance(it, group, at));
        let named = named.map(|mut it| {
            it["AutoScalingGroupName"] = json!(name);
            it
        });
        named.collect()
    };
    let all = groups.iter().flat_map(of_group).collect();
    let (some, next) = page(all, asked.get("NextToken"), records(asked, 50, 50)?)?;
    Ok(json!({"AutoScalingInstances": some, "NextToken": next}))
}

fn activities(account: &Account, asked: &Parameters, now: Moment) -> Outcome {
    let (groups, at) = account.history.seen(&account.groups, now);
    let wanted = asked.get("AutoScalingGroupName");
    if let Some(name) = wanted {
        account.found(name)?;
    }
    let filters = asked.filters("Filters.member", "Values.member");
    let value = |name: &str| filters.iter().find(|(it, _)| it == name).map(|(_, values)| values.as_slice());
    let bound = |name: &str| value(name)?.first().and_then(|text| moment::read(text));
    let (since, until) = (bound("StartTimeLowerBound").unwrap_or(0), bound("StartTimeUpperBound").unwrap_or(at));
    let named = groups.iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
    let mut all: Vec<_> = named
        .flat_map(|(name, group)| group.activities.iter().map(move |it| (it.started_at, it.described(name, at))))
        .filter(|(started, _)| (since..=until).contains(started))
        .filter(|(_, it)| {
            value("Status")
                .is_none_or(|statuses| it["StatusCode"].as_str().is_some_and(|is| statuses.iter().any(|s| s == is)))
        })
        .collect();
    // The newest first; of the same moment, the later one.
    all.reverse();
    all.sort_by_key(|(started, _)| std::cmp::Reverse(*started));
    let all = all.into_iter().map(|(_, it)| it).collect();
    let (some, next) = page(all, asked.get("NextToken"), records(asked, 100, 100)?)?;
    Ok(json!({"Activities": some, "NextToken": next}))
}

fn launch_configurations(account: &Account, asked: &Parameters) -> Outcome {
    let names = asked.list("LaunchConfigurationNames.member");
    let found = account.launch_configurations.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
    let named = found.map(|(name, described)| {
        let mut described = described.clone();
        described["LaunchConfigurationName"] = json!(name);
        described["CreatedTime"] = json!("2026-01-01T00:00:00Z");
        described
    });
    let (some, next) = page(named.collect(), asked.get("NextToken"), records(asked, 100, 50)?)?;
    Ok(json!({"LaunchConfigurations": some, "NextToken": next}))
}

fn warm_pool(account: &Account, asked: &Parameters, now: Moment) -> Outcome {
    let group = account.found(asked.get("AutoScalingGroupName").unwrap_or_default())?;
    let Some(pool) = &group.warm_pool else { return Ok(json!({"Instances": []})) };
    let all: Vec<Value> = group.warm.values().filter_map(|it| instance(it, group, now)).collect();
    let (some, next) = page(all, asked.get("NextToken"), records(asked, 50, 50)?)?;
    let configuration = json!({"MinSize": pool.min, "PoolState": pool.state});
    Ok(json!({"WarmPoolConfiguration": configuration, "Instances": some, "NextToken": next}))
}

fn hooks(account: &Account, asked: &Parameters) -> Outcome {
    let name = asked.get("AutoScalingGroupName").unwrap_or_default();
    let hooks = account.found(name)?.hooks.iter().map(|hook| {
        let transition = if hook.launching { "LAUNCHING" } else { "TERMINATING" };
        json!({
            "LifecycleHookName": hook.name, "AutoScalingGroupName": name, "HeartbeatTimeout": hook.holds.as_secs(),
            "LifecycleTransition": format!("autoscaling:EC2_INSTANCE_{transition}"), "DefaultResult": "CONTINUE",
        })
    });
    Ok(json!({"LifecycleHooks": hooks.collect::<Vec<_>>()}))
}

fn tags(account: &Account, asked: &Parameters) -> Outcome {
    let filters = asked.filters("Filters.member", "Values.member");
    let named =
        |name: &String| filters.iter().all(|(filter, values)| filter != "auto-scaling-group" || values.contains(name));
    let of_group = |(name, group): (&String, &Asg)| -> Vec<Value> {
        let tag = |(key, value): (&String, &String)| json!({"ResourceId": name, "ResourceType": "auto-scaling-group", "Key": key, "Value": value, "PropagateAtLaunch": true});
        group.tags.iter().map(tag).collect()
    };
    let all = account.groups.iter().filter(|(name, _)| named(name)).flat_map(of_group).collect();
    let (some, next) = page(all, asked.get("NextToken"), records(asked, 100, 50)?)?;
    Ok(json!({"Tags": some, "NextToken": next}))
}

fn suspend(account: &mut Account, asked: &Parameters, suspend: bool) -> Outcome {
    let name = asked.get("AutoScalingGroupName").unwrap_or_default();
    account.found(name)?;
    let Some(group) = account.groups.get_mut(name) else { return Ok(Value::Null) };
    let mut processes = asked.list("ScalingProcesses.member");
    if processes.is_empty() {
        processes = ["Launch", "Terminate", "AZRebalance", "HealthCheck", "ReplaceUnhealthy"].map(str::to_owned).into();
    }
    for process in processes {
        _ = if suspend { group.suspended.insert(process) } else { group.suspended.remove(&process) };
    }
    Ok(Value::Null)
}

fn protect(account: &mut Account, asked: &Parameters) -> Outcome {
    let name = asked.get("AutoScalingGroupName").unwrap_or_default();
    account.found(name)?;
    let ids = asked.list("InstanceIds.member");
    if ids.len() > 50 {
        return Err(Refused::validation("1 validation error detected: at most 50 instances can be given"));
    }
    for machine in account.groups.get_mut(name).into_iter().flat_map(|group| group.machines.values_mut()) {
        if ids.contains(&machine.id) {
            machine.protected = asked.is_true("ProtectedFromScaleIn");
        }
    }
    Ok(json!({}))
}

fn complete(account: &mut Account, asked: &Parameters, now: Moment) -> Outcome {
    let name = asked.get("AutoScalingGroupName").unwrap_or_default();
    let id = asked.get("InstanceId").unwrap_or_default();
    account.found(name)?;
    let group = account.groups.get_mut(name);
    let shutdown = group.as_ref().map(|group| group.pace.shutdown).unwrap_or_default();
    let machine = group.and_then(|group| group.machines.get_mut(id));
    let waits = |machine: &&mut Machine| machine.state(now).is_some_and(|state| state.ends_with(":Wait"));
    let Some(machine) = machine.filter(waits) else {
        return Err(Refused::validation(format!("No active Lifecycle Action found with instance ID {id}")));
    };
    if machine.ends_at.is_some() {
        machine.end_hook_until = Some(now);
        machine.gone_at = Some(now + super::machine::millis(shutdown));
    } else {
        machine.launch_hook_until = Some(now);
    }
    Ok(json!({}))
}
