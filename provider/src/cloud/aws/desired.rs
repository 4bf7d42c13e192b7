//! How an Auto Scaling group can be made to grow: what it is told, by which call, and what stands in the way. Values
//! only.

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_autoscaling::types::{AutoScalingGroup, LaunchTemplateOverrides};

use super::states;
use crate::{
    cloud::Wanted,
    config::limits,
    fleet::group::{InstanceId, Refusal, RefusalClass},
    timestamp::Timestamp,
};

/// Readings are taken to be no older than this. AWS gives no number; groups are read back within a second as a rule.
pub(super) const LAG: Duration = Duration::from_secs(5);

/// One group, as one answer of `DescribeAutoScalingGroups` showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) zones: Vec<String>,
    pub(super) desired: u32,
    pub(super) max: u32,
    /// Every machine, whatever its state.
    pub(super) listed: BTreeSet<InstanceId>,
    /// Those of them that the desired capacity counts.
    pub(super) counted: BTreeSet<InstanceId>,
    pub(super) in_standby: BTreeSet<InstanceId>,
    /// Machines that scale-in does not touch.
    pub(super) protected: u32,
    /// Why `LaunchInstances` does not work with it; None where it does.
    pub(super) not_instances: Option<&'static str>,
    /// It counts in something else than machines.
    pub(super) weighted: bool,
    /// Processes that someone suspended.
    pub(super) suspended: BTreeSet<String>,
}

impl Growth {
    pub(super) fn of(asg: &AutoScalingGroup) -> Self {
        let mut zones = asg.availability_zones().to_vec();
        zones.sort_unstable();
        let size = |size: Option<i32>| size.and_then(|size| u32::try_from(size).ok()).unwrap_or(0);
        let seen = |is: fn(&str) -> bool| {
            asg.instances().iter().filter(|it| is(states::lifecycle(it))).filter_map(states::id).collect()
        };
        Self {
            zones,
            desired: size(asg.desired_capacity),
            max: size(asg.max_size),
            listed: seen(|_| true),
            counted: seen(states::counts),
            in_standby: seen(|state| state.ends_with("Standby")),
            protected: count(asg.instances().iter().filter(|it| it.protected_from_scale_in() == Some(true))),
            not_instances: not_instances(asg),
            weighted: weighted(asg),
            suspended: asg.suspended_processes().iter().filter_map(|it| it.process_name.clone()).collect(),
        }
    }

    /// Machines that the group wants beyond those it has.
    pub(super) fn open(&self) -> u32 {
        self.desired.saturating_sub(count(&self.counted))
    }

    /// Machines that it has beyond those it wants, as while it puts new ones in the place of old.
    pub(super) fn surplus(&self) -> u32 {
        count(&self.counted).saturating_sub(self.desired)
    }

    /// What a person should know of buying and returning here.
    pub(super) fn warnings(&self) -> Vec<String> {
        let obstacle = self.obstacle().map(|refusal| refusal.message);
        let instances = self.not_instances.map(|why| format!("{why}: its desired capacity is raised instead"));
        let standby = (!self.in_standby.is_empty()).then(|| {
            format!(
                "{} of its machines are in standby; they count, and take no part in its desired capacity",
                self.in_standby.len()
            )
        });
        let protected = (self.protected > 0)
            .then(|| format!("{} of its machines are protected from scale-in; that does not keep cluster-autoscaler from ending them", self.protected));
        [obstacle, instances, standby, protected].into_iter().flatten().collect()
    }

    /// Why nothing can be bought here, whatever the call.
    pub(super) fn obstacle(&self) -> Option<Refusal> {
        let (code, message) = if self.suspended.contains("Launch") {
            (
                "LaunchSuspended",
                "the group's process Launch is suspended: resume it, or take the group out of discovery",
            )
        } else if self.weighted {
            (
                "InstanceWeights",
                "the group counts in weights, vCPUs or memory and not in machines: take WeightedCapacity and DesiredCapacityType out of it",
            )
        } else {
            return None;
        };
        Some(Refusal { class: RefusalClass::Configuration, code: code.to_owned(), message: message.to_owned() })
    }

    /// What the desired capacity has to become so that everything wanted comes, and how many of the wanted the maximum
    /// leaves out. None when the group tries for as many already: it is never lowered.
    ///
    /// What is there is the larger of two views, the group's and the ledger's, since either may lag; a machine that the
    /// ledger has not seen yet came of what is outstanding.
    pub(super) fn raise(&self, wanted: &Wanted) -> (Option<u32>, u32) {
        let came = count(self.counted.difference(&wanted.known));
        let there = count(&self.counted).saturating_add(count(wanted.live.difference(&self.listed)));
        let want = there.saturating_add(wanted.outstanding.saturating_sub(came));
        let reach = want.min(self.max).max(self.desired);
        ((reach > self.desired).then_some(reach), want.saturating_sub(reach))
    }
}

/// What we ourselves made of a group's desired capacity a moment ago, which a reading may not show yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raised {
    to: u32,
    at: Timestamp,
    /// AWS has not answered: it may be raised or not.
    unheard: bool,
}

impl Raised {
    /// AWS is asked to raise it.
    pub(super) fn asked(to: u32, now: Timestamp) -> Self {
        Self { to, at: now, unheard: true }
    }

    /// It was raised.
    pub(super) fn heard(to: u32, now: Timestamp) -> Self {
        Self { to, at: now, unheard: false }
    }

    /// Machines were ended, and it was lowered by as many.
    pub(super) fn lowered(&mut self, machines: u32) {
        self.to = self.to.saturating_sub(machines);
    }

    /// The group as it is now if no reading is older than [`LAG`], and if AWS heard what it has not answered.
    pub(super) fn corrected(&self, growth: Growth, now: Timestamp) -> Growth {
        let told = if self.may_hide(now) { self.to } else { 0 };
        Growth { desired: growth.desired.max(told), ..growth }
    }

    /// What to tell AWS so that everything wanted comes to a group that was [corrected](Self::corrected): what it may not
    /// have heard is said once more, even where nothing is to be added.
    pub(super) fn next(&self, growth: &Growth, wanted: &Wanted, now: Timestamp) -> Option<u32> {
        let again = (self.unheard && self.may_hide(now)).then_some(growth.desired);
        growth.raise(wanted).0.or(again)
    }

    /// Whether a reading may lack it. What was never answered is asked for no longer than a launch is.
    fn may_hide(&self, now: Timestamp) -> bool {
        now < self.at + if self.unheard { limits::LAUNCH } else { LAG }
    }
}

fn count<T>(of: impl IntoIterator<Item = T>) -> u32 {
    u32::try_from(of.into_iter().count()).unwrap_or(u32::MAX)
}

/// The maximum leaves machines out that CA was told could come: someone else's count too.
pub(super) fn above_max(max: u32) -> Refusal {
    Refusal {
        class: RefusalClass::Quota,
        code: "MaxSize".to_owned(),
        message: format!("the group's maximum of {max} leaves no room beside the machines it has"),
    }
}

fn not_instances(asg: &AutoScalingGroup) -> Option<&'static str> {
    if asg.launch_configuration_name.is_some() {
        Some("it uses a launch configuration, and LaunchInstances needs a launch template")
    } else if asg.warm_pool_configuration.is_some() {
        Some("it has a warm pool, and LaunchInstances does not work with one")
    } else if mixes_markets(asg) {
        Some("it mixes spot and on-demand, and LaunchInstances needs all of one")
    } else {
        None
    }
}

/// Both markets can come of it: some on-demand as a base, or a share of each.
fn mixes_markets(asg: &AutoScalingGroup) -> bool {
    let distribution = asg.mixed_instances_policy().and_then(|policy| policy.instances_distribution());
    distribution.is_some_and(|it| {
        let share = it.on_demand_percentage_above_base_capacity().unwrap_or(100);
        share < 100 && (share > 0 || it.on_demand_base_capacity().unwrap_or(0) > 0)
    })
}

fn weighted(asg: &AutoScalingGroup) -> bool {
    let policy = asg.mixed_instances_policy().and_then(|policy| policy.launch_template());
    let weight = |it: &LaunchTemplateOverrides| it.weighted_capacity().is_some_and(|weight| weight != "1");
    policy.is_some_and(|template| template.overrides().iter().any(weight))
        || asg.desired_capacity_type().is_some_and(|kind| kind != "units")
}

#[cfg(test)]
mod tests;
