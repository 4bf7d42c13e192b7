//! How the keeper carries things out: what CA asks, what the cloud answers, and what follows for the purchase memory
//! and the memory of refusals.

use std::collections::BTreeSet;

use super::{
    Keeper,
    calls::{Outcome, Try},
    limits,
};
use crate::{
    cloud::{Kept, Launch, Launched, Listed, Listing, Missing, metered},
    fleet::{
        group::{GroupId, InstanceId, InstanceState, Refusal, RefusalClass},
        ledger::{Denied, Event, Named},
        listing::Reading,
        notices::{Notice, NoticeKind},
        offering::Probation,
    },
    timestamp::Timestamp,
};

impl Keeper {
    /// Buys what is not already on its way for the same pods.
    pub(super) fn increase(&mut self, group: &str, delta: i32, now: Timestamp) -> Result<(), Denied> {
        let asked = self.fleet.may_increase(group, delta)?;
        let intent = self.next_intent();
        let count = self.bought.purchase(&group.into(), intent.as_str(), asked, now).min(asked);
        self.fleet.increase(group, count, intent.clone(), now);
        self.metrics.machines("asked", count);
        self.metrics.machines("not-launched", asked - count);
        let why = if count < asked { "the rest has machines on its way" } else { "" };
        tracing::info!(group, asked, launching = count, %intent, why, "size increased");
        (self.changed.fleet, self.changed.bought) = (true, true);
        self.advance(group);
        Ok(())
    }

    pub(super) fn decrease(&mut self, group: &str, delta: i32, now: Timestamp) -> Result<(), Denied> {
        let events = self.fleet.decrease(group, delta)?;
        tracing::info!(group, delta, "target decreased, nothing ends by it");
        self.follow(events, now);
        Ok(())
    }

    pub(super) fn delete(&mut self, group: &str, nodes: &[Named], now: Timestamp) -> Result<(), Denied> {
        let deletion = self.fleet.delete(group, nodes)?;
        if !deletion.terminate.is_empty() {
            let ids: Vec<&str> = deletion.terminate.iter().map(InstanceId::as_str).collect();
            tracing::info!(group, machines = ids.join(" "), "ending machines");
        }
        self.calls.terminate(group.into(), deletion.terminate);
        self.follow(deletion.events, now);
        self.advance(group);
        Ok(())
    }

    pub(super) fn seen(&mut self, instance: &str, now: Timestamp) {
        let event = self.fleet.seen(instance, now);
        self.spare(instance);
        let group = self.fleet.group_of(instance).map(|view| view.group.id.clone());
        self.follow(event.into_iter().collect(), now);
        if let Some(group) = group {
            self.advance(group.as_str());
        }
    }

    /// A machine that was to go because it was no Node, and is one before the cloud has agreed, stays: pods may run on it.
    fn spare(&mut self, instance: &str) {
        let Some(group) = self.fleet.returned(instance).filter(|_| !self.ended.contains_key(instance)) else { return };
        tracing::info!(%group, machine = instance, "became a node before the cloud ended it; it stays");
        self.fleet.spared(group.as_str(), &[instance.into()]);
        self.calls.stop_ending(instance);
        self.metrics.machines("stays", 1);
    }

    /// Asks the cloud for what is wanted and not asked for yet. A group that let us down before is probed by one
    /// machine, and the rest waits until that one has come, or has become a Node if that was the trouble.
    fn advance(&mut self, group: &str) {
        let Some(view) = self.fleet.group(group) else { return };
        let probation = self.offerings.probation(&view.group);
        let probed = match probation {
            None => false,
            Some(Probation::Launches) => view.in_flight(),
            Some(Probation::Registers) => view.in_flight() || view.unregistered(),
        };
        if probed {
            return;
        }
        let probing = probation.is_some();
        let intents: Vec<_> = view.intents.iter().map(|intent| intent.id.clone()).collect();
        let zones = self.offerings.in_order(&view.group, |zone| view.held_in(zone));
        for intent in intents {
            let launch = self.fleet.next_launch(group, &intent, if probing { 1 } else { u32::MAX }, zones.clone());
            if let Some(launch) = launch {
                tracing::info!(group, token = launch.token, count = launch.count, probing, "launching");
                self.changed.fleet = true;
                self.calls.launch(launch);
                if probing {
                    return;
                }
            }
        }
    }

    /// Ends machines that no one else will: launched by us, never a Node, while CA was there to see it.
    pub(super) fn reap(&mut self, now: Timestamp) {
        let Some(calling_since) = self.calling_since else { return };
        if now.since(calling_since) < self.settings.reap_after {
            return;
        }
        let limit =
            Timestamp(now.0.saturating_sub(u64::try_from(self.settings.reap_after.as_millis()).unwrap_or(u64::MAX)));
        for (group, machines) in self.fleet.overdue(limit) {
            let nodes: Vec<Named> = machines.iter().map(|id| Named { id: id.to_string(), fake: true }).collect();
            tracing::warn!(%group, count = nodes.len(), "ending machines that never registered");
            self.metrics.machines("reaped", u32::try_from(nodes.len()).unwrap_or(u32::MAX));
            if let Err(denied) = self.delete(group.as_str(), &nodes, now) {
                tracing::error!(%group, "{denied}");
            }
        }
    }

    /// A machine's end was announced.
    pub(super) fn noticed(&mut self, notice: &Notice, now: Timestamp) {
        if notice.kind == NoticeKind::Rebalance {
            tracing::info!(machine = notice.machine, "the cloud may take a machine back soon");
            self.metrics.machines("rebalance-recommended", 1);
        }
        let Some((group, machine)) = self.fleet.noticed(notice, now) else { return };
        if notice.kind == NoticeKind::Withdrawn {
            tracing::info!(%group, %machine, "the notice is taken back; the machine counts again");
            self.metrics.machines("stays", 1);
        } else {
            tracing::warn!(%group, %machine, kind = ?notice.kind, "a machine leaves; it does not count any more");
            self.metrics.machines("interrupted", 1);
        }
        self.changed.fleet = true;
        self.next_listing = now;
    }

    /// Ends machines that the cloud is about to take, so that the group does not replace them beside CA.
    pub(super) fn take_leave(&mut self, now: Timestamp) {
        let (due, events) = self.fleet.take_leave(now);
        if due.is_empty() {
            return;
        }
        for (group, machines) in due {
            tracing::info!(%group, count = machines.len(), "ending machines whose end was announced");
            self.calls.terminate(group, machines);
        }
        self.follow(events, now);
    }

    /// Takes in what a cloud call came to.
    pub(super) async fn hear(&mut self, outcome: Outcome) {
        let now = super::clock();
        let listed = matches!(outcome, Outcome::Listed(..));
        match outcome {
            Outcome::Listed(begun, Ok(listing)) => self.listed(listing, begun, now),
            Outcome::Listed(_, Err(error)) => {
                self.troubles.failed(&error.to_string(), now);
                let age = self.synced_at.map(|at| now.since(at));
                tracing::warn!(?age, "the cloud could not be listed, the last listing stands: {error}");
            }
            Outcome::Launched(launch, answer) => self.launched(&launch, answer, now),
            Outcome::Unanswered(launch, tried, why) => self.unanswered(&launch, tried, why, now),
            Outcome::Terminated(group, machines, answer) => self.terminated(&group, &machines, answer, now),
            Outcome::Stopped(group, machines) => {
                let doomed: BTreeSet<InstanceId> = self.fleet.doomed().into_iter().flat_map(|(_, ids)| ids).collect();
                self.calls.terminate(group, machines.into_iter().filter(|machine| doomed.contains(machine)).collect());
            }
        }
        self.changed.fleet |= self.fleet.show_zones(&self.offerings);
        self.settle().await;
        self.heard(listed, now);
    }

    fn listed(&mut self, mut listing: Listing, begun: Timestamp, now: Timestamp) {
        listing.look_for(self.settings.overrides.keys());
        let Listing { groups: listing, missing } = listing;
        for Missing { group, why } in self.troubles.listed(missing) {
            tracing::warn!(%group, "a group is missing: {why}");
        }
        if listing.is_empty() && self.fleet.groups().len() > 0 && self.empty_listings < limits::EMPTY_LISTINGS {
            self.empty_listings += 1;
            tracing::warn!("the cloud says that every group is gone; not believed yet");
            return;
        }
        self.empty_listings = 0;
        let dialect = self.dialect.clone();
        let overrides = std::mem::take(&mut self.settings.overrides);
        let reading = Reading { begun, now, dialect: &dialect, overrides: &overrides };
        let told = told(&listing);
        let events = self.fleet.listed(listing, reading);
        self.settings.overrides = overrides;
        self.remember(&told, &events, now);
        self.end_again(begun, now);
        self.synced_at = Some(begun);
        self.changed.fleet = true;
        self.follow(events, now);
        if let Some(guard) = self.unsynced.take() {
            drop(guard);
            self.resume();
        }
        let waiting = self.fleet.groups().filter(|view| view.idle() > 0);
        let groups: Vec<GroupId> = waiting.map(|view| view.group.id.clone()).collect();
        groups.iter().for_each(|group| self.advance(group.as_str()));
    }

    /// Repeats what an earlier process had under way.
    fn resume(&mut self) {
        for launch in self.fleet.unanswered() {
            tracing::info!(group = %launch.group, token = launch.token, "repeating a launch of the last process");
            self.calls.launch(launch);
        }
        for (group, machines) in self.fleet.doomed() {
            // It may have become a node while nobody looked.
            let may_be_node = |id: &InstanceId| {
                let view = self.fleet.group(group.as_str()).and_then(|view| view.instance(id.as_str()));
                view.is_some_and(|it| it.returned && it.state != InstanceState::Creating)
            };
            let (stay, machines): (Vec<_>, Vec<_>) = machines.into_iter().partition(may_be_node);
            self.fleet.spared(group.as_str(), &stay);
            tracing::info!(%group, count = machines.len(), stay = stay.len(), "repeating a deletion of the last process");
            self.calls.terminate(group, machines);
        }
    }

    fn launched(&mut self, launch: &Launch, answer: Result<Launched, Refusal>, now: Timestamp) {
        let launched =
            answer.unwrap_or_else(|refusal| Launched { refused: vec![(launch.count, refusal)], ..Launched::default() });
        if let Some(view) = self.fleet.group(launch.group.as_str()).cloned() {
            let zones: BTreeSet<&str> = launched.instances.iter().map(|it| it.zone.as_str()).collect();
            zones.iter().for_each(|zone| self.offerings.note_launched(&view.group, zone));
            for (zone, refusal) in &launched.zones {
                self.offerings.note_refusal(&view.group, Some(zone), refusal, now);
            }
            for (count, refusal) in launched.refused.iter().filter(|(count, _)| *count > 0) {
                tracing::warn!(group = %launch.group, token = launch.token, count, code = refusal.code, "refused: {}", refusal.message);
                self.metrics.machines(metered::class(refusal.class), *count);
                if launched.zones.is_empty() {
                    self.offerings.note_refusal(&view.group, None, refusal, now);
                }
            }
            self.changed.offerings = true;
        }
        if !launched.instances.is_empty() || launched.ordered > 0 {
            let ids: Vec<&str> = launched.instances.iter().map(|it| it.id.as_str()).collect();
            tracing::info!(group = %launch.group, token = launch.token, machines = ids.join(" "), ordered = launched.ordered, "launched");
        }
        self.metrics.machines("launched", u32::try_from(launched.instances.len()).unwrap_or(u32::MAX));
        if launched.ordered > 0 {
            self.ordered(now);
        }
        let events = self.fleet.launched(launch, &launched, now);
        self.changed.fleet = true;
        self.follow(events, now);
        self.advance(launch.group.as_str());
        self.next_listing = now;
    }

    /// A launch that may have taken effect is asked again, with what there is by now to reckon with.
    fn unanswered(&mut self, launch: &Launch, tried: Try, why: String, now: Timestamp) {
        if self.calls.launch_again(self.fleet.repeat(launch), tried) {
            tracing::warn!(group = %launch.group, token = launch.token, "launch unanswered, asking again: {why}");
            return;
        }
        tracing::error!(group = %launch.group, token = launch.token, "launch given up, its fate is unknown: {why}");
        let refusal = Refusal { class: RefusalClass::Configuration, code: "no-answer".to_owned(), message: why };
        if let Some(view) = self.fleet.group(launch.group.as_str()) {
            self.offerings.note_refusal(&view.group, None, &refusal, now);
            self.changed.offerings = true;
        }
        self.metrics.machines(metered::class(refusal.class), launch.count);
        let events = self.fleet.unheard(launch, &refusal, now);
        self.follow(events, now);
        self.advance(launch.group.as_str());
    }

    /// What a listing told of orders that the cloud carries out by itself.
    fn remember(&mut self, told: &[Told], events: &[Event], now: Timestamp) {
        for Told { group, refusal, zones } in told {
            let Some(view) = self.fleet.group(group.as_str()) else { continue };
            for (zone, refusal) in zones {
                tracing::warn!(%group, zone, code = refusal.code, "refused: {}", refusal.message);
                self.offerings.note_refusal(&view.group, Some(zone), refusal, now);
            }
            let machines = events.iter().map(|event| match event {
                Event::Refused { group: of, machines, .. } if of == group => *machines,
                _ => 0,
            });
            let machines: u32 = machines.sum();
            if let Some(refusal) = refusal.as_ref().filter(|_| machines > 0) {
                tracing::warn!(%group, machines, code = refusal.code, "refused: {}", refusal.message);
                self.metrics.machines(metered::class(refusal.class), machines);
                self.offerings.note_refusal(&view.group, None, refusal, now);
            }
            self.changed.offerings = true;
        }
    }

    /// A machine that was to be ended and is still listed as alive a while later is named once more.
    fn end_again(&mut self, begun: Timestamp, now: Timestamp) {
        let doomed = self.fleet.doomed();
        let still: BTreeSet<&InstanceId> = doomed.iter().flat_map(|(_, machines)| machines).collect();
        self.ended.retain(|machine, _| still.contains(machine));
        let due = |machine: &InstanceId| self.ended.get(machine).is_some_and(|at| *at + limits::END_AGAIN <= begun);
        let due: Vec<(GroupId, Vec<InstanceId>)> = doomed
            .iter()
            .map(|(group, machines)| (group.clone(), machines.iter().filter(|it| due(it)).cloned().collect()))
            .collect();
        for (group, machines) in due {
            self.ended.extend(machines.iter().map(|machine| (machine.clone(), now)));
            self.calls.terminate(group, machines);
        }
    }

    fn terminated(
        &mut self,
        group: &GroupId,
        machines: &[InstanceId],
        answer: Result<Vec<Kept>, Refusal>,
        now: Timestamp,
    ) {
        let kept = answer.unwrap_or_else(|why| machines.iter().map(|it| (it.clone(), why.clone())).collect());
        for (machine, refusal) in &kept {
            tracing::error!(%group, %machine, code = refusal.code, "a machine could not be ended and counts again: {}", refusal.message);
        }
        let stays: BTreeSet<InstanceId> = kept.into_iter().map(|(machine, _)| machine).collect();
        let ended = machines.iter().filter(|machine| !stays.contains(*machine));
        self.ended.extend(ended.map(|machine| (machine.clone(), now)));
        self.metrics.machines("terminated", u32::try_from(machines.len() - stays.len()).unwrap_or(u32::MAX));
        self.fleet.spared(group.as_str(), &stays.into_iter().collect::<Vec<_>>());
        self.changed.fleet = true;
        self.next_listing = super::clock();
    }

    fn follow(&mut self, events: Vec<Event>, now: Timestamp) {
        self.changed.fleet = true;
        for event in events {
            match event {
                Event::Refused { intent, machines, .. } => {
                    self.bought.refused(intent.as_str(), machines);
                    self.changed.bought = true;
                }
                Event::Cancelled { intent, machines } => {
                    self.bought.cancelled(intent.as_str(), machines);
                    self.changed.bought = true;
                }
                Event::Registered { group, intent } => self.registered(&group, intent.as_ref(), now),
                Event::Late { group, machine } => {
                    tracing::info!(%group, %machine, "a machine came that nobody waits for any more; giving it back");
                    self.metrics.machines("returned", 1);
                    self.calls.terminate(group, vec![machine]);
                }
                Event::NeverRegistered { group } => {
                    if let Some(view) = self.fleet.group(group.as_str()) {
                        tracing::warn!(%group, "a machine was given up that never registered as a node");
                        self.offerings.note_never_registered(&view.group, now);
                        self.changed.offerings = true;
                    }
                }
            }
        }
    }

    fn registered(&mut self, group: &GroupId, intent: Option<&crate::fleet::intents::IntentId>, now: Timestamp) {
        let Some(intent) = intent else { return };
        self.bought.registered(intent.as_str(), now);
        self.metrics.machines("registered", 1);
        if let Some(view) = self.fleet.group(group.as_str()) {
            self.offerings.note_success(&view.group);
        }
        (self.changed.bought, self.changed.offerings) = (true, true);
    }
}

/// What one group's listing told of refusals.
struct Told {
    group: GroupId,
    refusal: Option<Refusal>,
    zones: Vec<(String, Refusal)>,
}

fn told(listing: &[Listed]) -> Vec<Told> {
    let of = |it: &Listed| {
        let standing = it.standing.as_ref().filter(|it| it.refusal.is_some() || !it.zones.is_empty())?;
        Some(Told { group: it.group.id.clone(), refusal: standing.refusal.clone(), zones: standing.zones.clone() })
    };
    listing.iter().filter_map(of).collect()
}
