//! What a group does about its desired capacity, late and by its own choice: launches zone by zone, ends what is too
//! much, replaces what is gone, balances its zones. And the calls that change it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Account, Asg,
    activities::Activity,
    answer::{Outcome, Refused},
    machine::{Machine, Market, Offer, millis},
    moment::Moment,
    request::Parameters,
};

/// Attempts that one look makes up for at most.
const ATTEMPTS: u32 = 64;

impl Account {
    pub(super) fn set_desired_capacity(&mut self, asked: &Parameters, now: Moment) -> Outcome {
        let name = asked.get("AutoScalingGroupName").unwrap_or_default();
        let wanted = asked.number("DesiredCapacity").unwrap_or(-1);
        let group = self.found(name)?;
        let (min, max) = (group.min, group.max);
        if wanted > i64::from(max) {
            let message =
                format!("New SetDesiredCapacity value {wanted} is above max value {max} for the AutoScalingGroup.");
            return Err(Refused::validation(message));
        }
        let below = || {
            Refused::validation(format!(
                "New SetDesiredCapacity value {wanted} is below min value {min} for the AutoScalingGroup."
            ))
        };
        let wanted = u32::try_from(wanted).ok().filter(|wanted| *wanted >= min).ok_or_else(below)?;
        if let Some(group) = self.groups.get_mut(name) {
            group.want(wanted, now);
        }
        Ok(Value::Null)
    }

    pub(super) fn terminate_instance(&mut self, asked: &Parameters, now: Moment) -> Outcome {
        let id = asked.get("InstanceId").unwrap_or_default();
        let decrement = asked.is_true("ShouldDecrementDesiredCapacity");
        let number = self.number();
        if self.groups.values().any(|group| group.warm.contains_key(id)) {
            return Err(Refused::validation(format!(
                "Instance {id} is in a warm pool. This operation is not supported."
            )));
        }
        let unknown =
            || Refused::validation(format!("Instance Id not found - No managed instance found for instance ID: {id}"));
        let holds = |group: &Asg| group.machines.get(id).is_some_and(|machine| machine.state(now).is_some());
        let (name, group) = self.groups.iter_mut().find(|(_, group)| holds(group)).ok_or_else(unknown)?;
        let machine = group.machines.get(id).ok_or_else(unknown)?;
        if machine.state(now).is_some_and(|state| state.starts_with("Terminating")) {
            let message = format!("Instance {id} is already being terminated.");
            return Err(Refused::new(400, "ScalingActivityInProgress", message));
        }
        if decrement && !machine.standby {
            if group.desired <= group.min {
                let message = format!(
                    "Currently, desiredSize equals minSize ({}). Terminating instance without replacement will violate \
                     group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.",
                    group.min
                );
                return Err(Refused::validation(message));
            }
            group.desired -= 1;
        }
        Self::end(group, id, number, now);
        let activity = group.activities.back().map(|activity| activity.described(name, now));
        Ok(json!({"Activity": activity}))
    }

    /// Ends one machine of the group.
    fn end(group: &mut Asg, id: &str, number: u64, now: Moment) {
        let (hook, shutdown) = (group.held(false), group.pace.shutdown);
        let Some(machine) = group.machines.get_mut(id) else { return };
        machine.end(now, hook, shutdown);
        let activity = Activity::ending(number, machine, now);
        Self::note(group, activity);
    }

    /// Lets a group do what is due; true when something changed.
    pub(super) fn advance_group(&mut self, name: &str, now: Moment) -> bool {
        let Some(group) = self.groups.get_mut(name) else { return false };
        let before = (group.desired, group.machines.len(), group.warm.len(), group.activities.len());
        group.machines.retain(|_, machine| machine.gone_at.is_none_or(|gone| now < gone));
        let looked_at = if group.looked_at == 0 { now } else { group.looked_at };
        group.looked_at = now;
        self.notice_lost_hosts(name, now);
        for _ in 0..ATTEMPTS {
            let Some(group) = self.groups.get(name) else { return true };
            if group.acts_at > now || group.counted(now) == group.desired {
                break;
            }
            if group.counted(now) > group.desired {
                self.shrink(name, now);
                break;
            }
            // When nobody looked for a while it happened in the meantime, and after the last machine went.
            let ended = group.machines.values().filter_map(|machine| machine.ends_at).filter(|at| *at <= now).max();
            self.grow(name, group.acts_at.max(looked_at).max(ended.unwrap_or(0)));
        }
        self.fill_warm_pool(name, now);
        let after = |group: &Asg| (group.desired, group.machines.len(), group.warm.len(), group.activities.len());
        self.groups.get(name).is_none_or(|group| after(group) != before)
    }

    /// A host that went away by itself: its instance is ended once the health check sees it.
    fn notice_lost_hosts(&mut self, name: &str, now: Moment) {
        let number = self.number();
        let Some(group) = self.groups.get_mut(name) else { return };
        let late = millis(group.pace.health_check);
        let lost =
            |machine: &&Machine| machine.ends_at.is_none() && machine.host_ends_at.is_some_and(|at| at + late <= now);
        let lost: Vec<String> = group.machines.values().filter(lost).map(|machine| machine.id.clone()).collect();
        for id in lost {
            Self::end(group, &id, number, now);
        }
    }

    /// One attempt to launch what is missing: the zone with the fewest machines first, then the others; what no zone
    /// gives is noted as failed, and tried again later.
    fn grow(&mut self, name: &str, now: Moment) {
        let Some(group) = self.groups.get_mut(name) else { return };
        group.acts_at = now + millis(group.pace.retry);
        if group.suspended.contains("Launch") {
            return;
        }
        let missing = group.desired.saturating_sub(group.counted(now));
        for _ in 0..missing {
            if self.woken(name, now) {
                continue;
            }
            let zones = self.groups.get(name).map(|group| group.balanced(now)).unwrap_or_default();
            let mut failures = Vec::new();
            let came = zones.iter().any(|zone| match self.start(name, zone, now) {
                Ok(_) => true,
                Err(refusals) => {
                    failures.extend(refusals.into_iter().next_back());
                    false
                }
            });
            self.note_failures(name, &failures, now);
            if !came {
                return;
            }
        }
    }

    fn note_failures(&mut self, name: &str, failures: &[(Offer, (String, String))], now: Moment) {
        for (offer, refusal) in failures {
            let number = self.number();
            if let Some(group) = self.groups.get_mut(name) {
                Self::note(group, Activity::failed(number, offer, refusal, now));
            }
        }
    }

    /// Takes a machine out of the warm pool, when there is one.
    fn woken(&mut self, name: &str, now: Moment) -> bool {
        let number = self.number();
        let Some(group) = self.groups.get_mut(name) else { return false };
        let Some((id, mut machine)) = group.warm.pop_first() else { return false };
        machine.scripted = None;
        (machine.launched_at, machine.started_at) = (now, now + millis(group.pace.pending));
        Self::note(group, Activity::launching(number, &machine));
        group.machines.insert(id, machine);
        true
    }

    fn fill_warm_pool(&mut self, name: &str, now: Moment) {
        loop {
            let Some(group) = self.groups.get(name) else { return };
            let Some(pool) = &group.warm_pool else { return };
            let (full, state) = (group.warm.len() >= usize::try_from(pool.min).unwrap_or(usize::MAX), pool.state);
            let zone = group.balanced(now).into_iter().next().unwrap_or_default();
            let Some(offer) = self.offers(group, &zone, now).into_iter().next().filter(|_| !full) else { return };
            let mut machine = Machine::new(self.instance_id(), &offer, now);
            machine.scripted = Some(format!("Warmed:{state}"));
            if let Some(group) = self.groups.get_mut(name) {
                group.warm.insert(machine.id.clone(), machine);
            }
        }
    }

    /// Ends what is too much, by AWS's choice and not the caller's: the zone with most machines, the oldest there, and
    /// none that is protected.
    fn shrink(&mut self, name: &str, now: Moment) {
        let number = self.number();
        let Some(group) = self.groups.get_mut(name) else { return };
        group.acts_at = now + millis(group.pace.retry);
        if group.suspended.contains("Terminate") {
            return;
        }
        while group.counted(now) > group.desired {
            let Some(id) = victim(group, now) else { return };
            Self::end(group, &id, number, now);
        }
    }

    /// AWS balances the group's zones of its own accord, one machine: launches where there are fewest, ends one where
    /// there are most. False when it has no reason to, or `AZRebalance` is suspended.
    pub(super) fn rebalance(&mut self, name: &str, now: Moment) -> bool {
        let Some(group) = self.groups.get(name) else { return false };
        let count = |zone: &String| group.machines.values().filter(|it| it.zone == *zone && it.counts(now)).count();
        let zones = group.balanced(now);
        let (Some(fewest), Some(most)) = (zones.first(), zones.last()) else { return false };
        if group.suspended.contains("AZRebalance") || count(most) < count(fewest) + 2 {
            return false;
        }
        let most = most.clone();
        let fewest = fewest.clone();
        if self.start(name, &fewest, now).is_err() {
            return false;
        }
        let number = self.number();
        let Some(group) = self.groups.get_mut(name) else { return false };
        let oldest = group.machines.values().filter(|it| it.zone == most && it.counts(now) && !it.protected);
        let Some(id) = oldest.min_by_key(|it| it.launched_at).map(|it| it.id.clone()) else { return false };
        Self::end(group, &id, number, now);
        true
    }

    /// AWS takes spot machines of the group back: a warning now, the host's end after the notice. Answers their ids.
    pub(super) fn interrupt(&mut self, name: &str, ids: &[String], notice: u64, now: Moment) -> Vec<String> {
        let Some(group) = self.groups.get_mut(name) else { return Vec::new() };
        let mut struck = Vec::new();
        for machine in group.machines.values_mut().filter(|it| it.market == Market::Spot && ids.contains(&it.id)) {
            machine.host_ends_at = Some(now + notice);
            struck.push(machine.id.clone());
        }
        for id in &struck {
            self.warn_of_interruption(id, now);
        }
        struck
    }
}

fn victim(group: &Asg, now: Moment) -> Option<String> {
    let mut by_zone: BTreeMap<&str, Vec<&Machine>> = BTreeMap::new();
    for machine in group.machines.values().filter(|it| it.counts(now) && !it.protected) {
        by_zone.entry(&machine.zone).or_default().push(machine);
    }
    let most = by_zone.into_values().max_by_key(Vec::len)?;
    most.into_iter().min_by_key(|machine| (machine.launched_at, machine.id.clone())).map(|machine| machine.id.clone())
}
