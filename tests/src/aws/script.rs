//! What a test says to the account and asks of it, by group and zone: the short words, so that a scenario reads as a
//! story.

use std::time::Duration;

use super::{
    Asg, AwsCloud,
    machine::{Machine, Market, millis},
    supply::Scarcity,
};

/// One Auto Scaling group, to be told and asked. A name that does not exist is made up as an empty group.
#[derive(Clone, Copy, Debug)]
pub struct GroupScript<'a> {
    pub(super) cloud: &'a AwsCloud,
    pub(super) name: &'a str,
}

/// One zone of a group.
#[derive(Clone, Copy, Debug)]
pub struct ZoneScript<'a> {
    group: GroupScript<'a>,
    zone: &'a str,
}

impl<'a> GroupScript<'a> {
    /// One of its zones.
    #[must_use]
    pub fn zone(self, zone: &'a str) -> ZoneScript<'a> {
        ZoneScript { group: self, zone }
    }

    /// Every launch of the group is refused with this code.
    pub fn refuse(self, code: &str) {
        self.cloud.scarce(Scarcity::new(code).group(self.name));
    }

    /// Its desired capacity.
    #[must_use]
    pub fn desired(self) -> u32 {
        self.with(|group, _| group.desired)
    }

    /// Its instances that the API lists now, the warm pool's left out.
    #[must_use]
    pub fn machines(self) -> Vec<Machine> {
        self.with(|group, now| group.machines.values().filter(|it| it.state(now).is_some()).cloned().collect())
    }

    /// The ids of its instances in this lifecycle state.
    #[must_use]
    pub fn in_state(self, state: &str) -> Vec<String> {
        self.with(|group, now| {
            group.machines.values().filter(|it| it.state(now) == Some(state)).map(|it| it.id.clone()).collect()
        })
    }

    /// Changes or asks whatever else there is, at the present moment.
    pub fn with<T>(self, act: impl FnOnce(&mut Asg, u64) -> T) -> T {
        self.cloud.with(|account, now| {
            let group = account.groups.entry(self.name.to_owned()).or_insert_with(|| Asg::new(&[]));
            let result = act(group, now);
            account.history.note(&account.groups, now);
            result
        })
    }

    /// The group is deleted, with its instances.
    pub fn delete(self) {
        self.cloud.with(|account, now| {
            account.groups.remove(self.name);
            account.history.note(&account.groups, now);
        });
    }

    /// Somebody else sets the desired capacity, past every bound.
    pub fn set_desired(self, desired: u32) {
        self.with(|group, now| group.want(desired, now));
    }

    /// Puts instances on standby, their places given up.
    pub fn standby(self, ids: &[String]) {
        self.with(|group, _| {
            for machine in group.machines.values_mut().filter(|it| ids.contains(&it.id) && !it.standby) {
                machine.standby = true;
                group.desired = group.desired.saturating_sub(1);
            }
        });
    }

    /// From now on the API calls this instance's state so; None lets it go on.
    pub fn show(self, id: &str, state: Option<&str>) {
        self.with(|group, _| {
            if let Some(machine) = group.machines.get_mut(id) {
                machine.scripted = state.map(str::to_owned);
            }
        });
    }

    /// AWS takes these spot instances back: a warning to every queue now, their hosts' end after the notice. Answers the
    /// ids of those that it concerns.
    #[must_use]
    pub fn interrupt(self, ids: &[String], notice: Duration) -> Vec<String> {
        self.cloud.with(|account, now| {
            let struck = account.interrupt(self.name, ids, millis(notice), now);
            account.history.note(&account.groups, now);
            struck
        })
    }

    /// AWS moves a machine from the zone with most to the zone with fewest, if it has a reason to and may.
    #[must_use]
    pub fn rebalance(self) -> bool {
        self.cloud.with(|account, now| {
            let moved = account.rebalance(self.name, now);
            account.history.note(&account.groups, now);
            moved
        })
    }
}

impl ZoneScript<'_> {
    /// Every launch here is refused with this code.
    pub fn refuse(self, code: &str) {
        self.gives(0, code);
    }

    /// So many machines are left here; what comes after is refused with this code.
    pub fn gives(self, machines: u32, code: &str) {
        self.group.cloud.scarce(Scarcity::new(code).group(self.group.name).zone(self.zone).after(machines));
    }
}

impl AwsCloud {
    /// Something is not to be had from now on.
    pub fn scarce(&self, scarcity: Scarcity) {
        self.with(|account, _| account.supply.set(scarcity));
    }

    /// Everything is to be had again.
    pub fn plenty(&self) {
        self.with(|account, _| account.supply.clear());
    }

    /// No spot machine anywhere, as in a drought of the whole region.
    pub fn spot_drought(&self) {
        self.scarce(Scarcity::new("UnfulfillableCapacity").market(Market::Spot));
    }

    /// From now on reads of groups, instances and activities are this much behind.
    pub fn lag(&self, lag: Duration) {
        self.with(|account, now| account.history.lag(lag, &account.groups, now));
    }

    /// Makes a queue into which EventBridge puts its warnings, and answers its URL.
    #[must_use]
    pub fn queue(&self, name: &str) -> String {
        let endpoint = self.endpoint();
        self.with(|account, _| account.queue(name, &endpoint))
    }

    /// Puts a message into every queue.
    pub fn publish(&self, body: &str) {
        self.with(|account, now| account.publish(body, now));
    }
}
