//! Launching: how many machines come, in which zones, and what is said about the rest. Part of [`Machines`].

use std::{collections::BTreeMap, time::Duration};

use crate::{
    cloud::{Launch, Launched},
    fleet::group::{Group, InstanceState, Refusal},
    timestamp::Timestamp,
};

use super::{
    conditions::Conditions,
    draw::draw,
    machines::{Answered, Birth, Machines},
    refusals,
    scenario::{Scenario, SimGroup},
};

/// How long a token is remembered after its launch; EC2 keeps its own for about a day, a story is shorter.
const TOKEN_KEPT: Duration = Duration::from_secs(3600);
/// Most machines at a time, so that no request can make the cloud outgrow its host.
const MOST_MACHINES: u32 = 200_000;

impl Machines {
    /// Launches as many as there is room for and says why the rest will not come. A token that was answered before is
    /// answered the same again, and launches nothing.
    ///
    /// # Errors
    /// Nothing was launched: an unknown group, a count of zero, or more than the group's maximum.
    pub fn launch(&mut self, scenario: &Scenario, launch: &Launch, now: Timestamp) -> Result<Launched, Refusal> {
        self.answered.retain(|_, answered| now.since(answered.at) < TOKEN_KEPT);
        if let Some(answered) = self.answered.get(&launch.token) {
            return self.repeat(answered, launch, now);
        }
        let Some(group) = scenario.groups.get(&launch.group) else {
            return Err(refusals::no_such_group(&launch.group, scenario));
        };
        let rooms = Rooms::of(self, scenario, group, now);
        check_count(launch, &group.group, rooms.in_group)?;
        let (zones, refused) = rooms.fill(group, launch.count, |zone| draw(scenario.seed, self.next, zone));
        let registers = !rooms.conditions.never_register;
        let birth = |zone| Birth { zone, registers, token: &launch.token, now };
        let machines: Vec<_> = zones.iter().map(|zone| self.add(scenario, group, &birth(zone))).collect();
        let instances = machines.iter().map(|machine| machine.instance(now)).collect();
        let answered = Answered { at: now, group: launch.group.clone(), machines, refused: refused.clone() };
        self.answered.insert(launch.token.clone(), answered);
        Ok(Launched { instances, refused, ..Launched::default() })
    }

    /// What the token's first launch did, each machine as it is now (one that is gone shows as deleting).
    fn repeat(&self, answered: &Answered, launch: &Launch, now: Timestamp) -> Result<Launched, Refusal> {
        if answered.group != launch.group {
            let message = format!("token {} was used for group {}; use another", launch.token, answered.group);
            return Err(refusals::configuration(message));
        }
        let instances = answered.machines.iter().map(|first| match self.machines.get(&first.id) {
            Some(machine) => machine.instance(now),
            None => crate::fleet::group::Instance { state: InstanceState::Deleting, ..first.instance(now) },
        });
        Ok(Launched { instances: instances.collect(), refused: answered.refused.clone(), ..Launched::default() })
    }
}

fn check_count(launch: &Launch, group: &Group, living: u32) -> Result<(), Refusal> {
    let wanted = living.saturating_add(launch.count);
    match (launch.count, wanted > group.max) {
        (0, _) => Err(refusals::configuration(format!("a launch in {} asks for no machine", group.id))),
        (_, true) => Err(refusals::configuration(format!(
            "{} more would make {wanted} machines in {}, and its maximum is {}",
            launch.count, group.id, group.max
        ))),
        _ => Ok(()),
    }
}

/// What is taken and what is left when a launch is asked for.
struct Rooms {
    conditions: Conditions,
    account_quota: Option<u32>,
    /// Machines that live, in the group by zone, in the group, and in all groups.
    in_zone: BTreeMap<String, u32>,
    in_group: u32,
    in_all: u32,
}

impl Rooms {
    fn of(cloud: &Machines, scenario: &Scenario, group: &SimGroup, now: Timestamp) -> Self {
        let since_start = now.since(cloud.started());
        let mut rooms = Self {
            conditions: Conditions::of_group(scenario, &group.group.id, since_start),
            account_quota: Conditions::of_account(scenario, since_start).quota,
            in_zone: group.group.zones.iter().map(|zone| (zone.clone(), 0)).collect(),
            in_group: 0,
            in_all: 0,
        };
        for machine in cloud.all(now).filter(|machine| machine.lives(now)) {
            rooms.in_all += 1;
            if machine.group == group.group.id {
                rooms.in_group += 1;
                *rooms.in_zone.entry(machine.zone.clone()).or_default() += 1;
            }
        }
        rooms
    }

    /// Zones of the machines that come, and why the others do not. The emptiest zone goes first.
    fn fill(&self, group: &SimGroup, count: u32, tie: impl Fn(&str) -> u64) -> (Vec<String>, Vec<(u32, Refusal)>) {
        let id = &group.group.id;
        let left = |most: Option<u32>, taken: u32| most.unwrap_or(MOST_MACHINES).saturating_sub(taken);
        let of_group = left(self.conditions.quota, self.in_group);
        let of_account = left(self.account_quota, self.in_all).min(left(None, self.in_all));
        let allowed = count.min(of_group).min(of_account);
        let mut zones = Vec::new();
        let mut in_zone = self.in_zone.clone();
        let full = |zone: &str, taken: u32| self.conditions.capacity.get(zone).is_some_and(|most| taken >= *most);
        while !self.conditions.stock_out && zones.len() < usize::try_from(allowed).unwrap_or(usize::MAX) {
            let open = group.group.zones.iter().filter(|zone| !full(zone, in_zone.get(*zone).copied().unwrap_or(0)));
            let Some(zone) = open.min_by_key(|zone| (in_zone.get(*zone).copied().unwrap_or(0), tie(zone))) else {
                break;
            };
            *in_zone.entry(zone.clone()).or_default() += 1;
            zones.push(zone.clone());
        }
        let came = u32::try_from(zones.len()).unwrap_or(u32::MAX);
        let mut refused = Vec::new();
        if came < allowed {
            let zones = group.group.zones.join(", ");
            refused.push((allowed - came, refusals::no_capacity(id, &format!("sold out in {zones}"))));
        }
        if allowed < count && of_group <= of_account {
            refused
                .push((count - allowed, refusals::quota(&format!("group {id}"), self.conditions.quota.unwrap_or(0))));
        } else if allowed < count {
            let most = self.account_quota.unwrap_or(MOST_MACHINES);
            refused.push((count - allowed, refusals::quota("the account", most)));
        }
        (zones, refused)
    }
}
