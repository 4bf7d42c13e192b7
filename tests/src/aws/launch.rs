//! `LaunchInstances`: answered at once, exact in part, and the same again for the same token.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    Account, Asg,
    activities::Activity,
    answer::{Outcome, Refused},
    machine::{Machine, Offer, millis},
    moment::Moment,
    request::Parameters,
};

/// How long a token is remembered.
const TOKENS: Duration = Duration::from_hours(8);
/// Most instances of one call.
const CALL: u32 = 100;

/// What a token was answered.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    at: Moment,
    asked: Parameters,
    answer: Value,
}

/// A launch that EC2 refused: for what, with which code and sentence.
pub(super) type Refusals = Vec<(Offer, (String, String))>;

impl Account {
    pub(super) fn launch_instances(&mut self, asked: &Parameters, now: Moment) -> Outcome {
        let name = asked.get("AutoScalingGroupName").unwrap_or_default().to_owned();
        let token = asked.get("ClientToken").unwrap_or_default().to_owned();
        let count = self.launch_allowed(asked, now)?;
        self.answered.retain(|_, answered| now < answered.at + millis(TOKENS));
        if let Some(before) = self.answered.get(&(name.clone(), token.clone())) {
            if before.asked != *asked {
                let message = "The parameters do not match those of an earlier request with the same client token.";
                return Err(Refused::new(400, "IdempotentParameterMismatch", message));
            }
            return Ok(before.answer.clone());
        }
        self.room(&name, count)?;
        let zone = self.zone_asked(&name, asked)?;
        let (machines, refusals) = self.start_several(&name, &zone, count, now);
        let came = u32::try_from(machines.len()).unwrap_or(u32::MAX);
        if let Some(group) = self.groups.get_mut(&name) {
            let retries = asked.get("RetryStrategy") == Some("retry-with-group-configuration");
            let desired = group.desired + if retries { count } else { came };
            if retries { group.want(desired, now) } else { group.desired = desired }
        }
        let answer = json!({
            "AutoScalingGroupName": name, "ClientToken": token, "Instances": collections(&machines),
            "Errors": if came < count { errors(&refusals) } else { Vec::new() },
        });
        let answered = Answered { at: now, asked: asked.clone(), answer: answer.clone() };
        self.answered.insert((name, token), answered);
        Ok(answer)
    }

    /// What holds for every call, repeated or not.
    fn launch_allowed(&self, asked: &Parameters, now: Moment) -> Result<u32, Refused> {
        let name = asked.get("AutoScalingGroupName").unwrap_or_default();
        let group = self.found(name)?;
        let token = asked.get("ClientToken").unwrap_or_default();
        if token.is_empty() || token.chars().count() > 64 {
            return Err(Refused::validation(
                "1 validation error detected: Value at 'clientToken' failed to satisfy constraint: Member must have length less than or equal to 64",
            ));
        }
        let asks = |reason: &str| Err(Refused::validation(format!("LaunchInstances: {reason}")));
        let count = asked.number("RequestedCapacity").and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        if count == 0 || count > CALL {
            return asks(&format!("RequestedCapacity must be between 1 and {CALL}."));
        }
        if group.description.contains_key("LaunchConfigurationName") {
            return asks("the group must use a launch template.");
        }
        if group.warm_pool.is_some() {
            return asks("the group must not have a warm pool.");
        }
        if !Self::one_market(group) {
            return asks("the group's mixed instances policy must be all On-Demand or all Spot.");
        }
        if self.offers(group, "", now).is_empty() {
            return asks("You must use a valid fully-formed launch template.");
        }
        Ok(count)
    }

    fn room(&self, name: &str, count: u32) -> Result<(), Refused> {
        let group = self.found(name)?;
        let wanted = group.desired.saturating_add(count);
        if wanted > group.max {
            let max = group.max;
            let message =
                format!("New desired capacity value {wanted} is above max value {max} for the AutoScalingGroup.");
            return Err(Refused::validation(message));
        }
        Ok(())
    }

    /// The one zone that is named, or the only one there is.
    fn zone_asked(&self, name: &str, asked: &Parameters) -> Result<String, Refused> {
        let group = self.found(name)?;
        let mut named = asked.list("AvailabilityZones.member");
        named.extend(
            asked.list("SubnetIds.member").iter().filter_map(|it| it.strip_prefix("subnet-")).map(str::to_owned),
        );
        let of_id = |id: &String| group.zones.iter().find(|zone| zone_id(zone) == *id).cloned().unwrap_or(id.clone());
        named.extend(asked.list("AvailabilityZoneIds.member").iter().map(of_id));
        match named.as_slice() {
            [] if group.zones.len() == 1 => Ok(group.zones.first().cloned().unwrap_or_default()),
            [] => Err(Refused::validation(
                "One of AvailabilityZones or SubnetIds must be specified for a group with several.",
            )),
            [zone, ..] if group.zones.contains(zone) => Ok(zone.clone()),
            [zone, ..] => Err(Refused::validation(format!(
                "Availability Zone {zone} is not part of the AutoScalingGroup {name}."
            ))),
        }
    }

    fn start_several(&mut self, name: &str, zone: &str, count: u32, now: Moment) -> (Vec<Machine>, Refusals) {
        let mut machines = Vec::new();
        for _ in 0..count {
            match self.start(name, zone, now) {
                Ok(machine) => machines.push(machine),
                Err(refusals) => return (machines, refusals),
            }
        }
        (machines, Vec::new())
    }

    /// Launches one machine in this zone: the first of the group's types that is to be had.
    pub(super) fn start(&mut self, name: &str, zone: &str, now: Moment) -> Result<Machine, Refusals> {
        let Some(group) = self.groups.get(name) else { return Err(Vec::new()) };
        let mut refusals = Vec::new();
        for offer in self.offers(group, zone, now) {
            match self.supply.take(name, &offer) {
                Ok(()) => return Ok(self.born(name, &offer, now)),
                Err(refusal) => refusals.push((offer, refusal)),
            }
        }
        Err(refusals)
    }

    fn born(&mut self, name: &str, offer: &Offer, now: Moment) -> Machine {
        let mut machine = Machine::new(self.instance_id(), offer, now);
        let number = self.number();
        if let Some(group) = self.groups.get_mut(name) {
            machine.started_at = now + millis(group.pace.pending);
            machine.launch_hook_until = group.held(true).map(|held| machine.started_at + millis(held));
            machine.protected = group.description.get("NewInstancesProtectedFromScaleIn") == Some(&json!(true));
            Self::note(group, Activity::launching(number, &machine));
            group.machines.insert(machine.id.clone(), machine.clone());
        }
        machine
    }

    /// The group of this name, or the API's complaint.
    pub(super) fn found(&self, name: &str) -> Result<&Asg, Refused> {
        let missing =
            || Refused::validation(format!("AutoScalingGroup name not found - AutoScalingGroup {name} not found"));
        self.groups.get(name).ok_or_else(missing)
    }
}

/// `use1-az1` for `us-east-1a`, and so on.
pub(super) fn zone_id(zone: &str) -> String {
    let letter = zone.bytes().last().unwrap_or(b'a');
    format!("use1-az{}", letter.saturating_sub(b'a') + 1)
}

/// Machines by type, as the answer has them.
fn collections(machines: &[Machine]) -> Vec<Value> {
    let mut by_type: BTreeMap<&str, Vec<&Machine>> = BTreeMap::new();
    for machine in machines {
        by_type.entry(&machine.instance_type).or_default().push(machine);
    }
    let collection = |(name, machines): (&str, Vec<&Machine>)| {
        let first = machines.first()?;
        let ids: Vec<&str> = machines.iter().map(|machine| machine.id.as_str()).collect();
        Some(json!({
            "InstanceType": name, "MarketType": first.market.name(), "SubnetId": format!("subnet-{}", first.zone),
            "AvailabilityZone": first.zone, "AvailabilityZoneId": zone_id(&first.zone), "InstanceIds": ids,
        }))
    };
    by_type.into_iter().filter_map(collection).collect()
}

/// One entry for each type that was refused.
fn errors(refusals: &Refusals) -> Vec<Value> {
    let error = |(offer, (code, message)): &(Offer, (String, String))| {
        json!({
            "InstanceType": offer.instance_type, "MarketType": offer.market.name(),
            "SubnetId": format!("subnet-{}", offer.zone), "AvailabilityZone": offer.zone,
            "AvailabilityZoneId": zone_id(&offer.zone), "ErrorCode": code, "ErrorMessage": message,
        })
    };
    refusals.iter().map(error).collect()
}
