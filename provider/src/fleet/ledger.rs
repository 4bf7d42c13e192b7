//! What may change between two listings: sizes asked for and taken back, machines named for deletion, answers to
//! launches. Each transition either happens whole or is [`Denied`] without effect.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub use super::denied::Denied;
use crate::{
    cloud::{Launch, Launched},
    config::limits,
    fleet::{
        Fleet, GroupView, InstanceView,
        group::{GroupId, Instance, InstanceId, InstanceState, Refusal},
        intents::{Intent, IntentId, parse_placeholder},
        notices::{self, VOID},
    },
    timestamp::Timestamp,
};

/// What else follows from a change: for the purchase memory, the memory of refusals, and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Machines will not come.
    Refused {
        /// The group they were for.
        group: GroupId,
        /// What they were part of.
        intent: IntentId,
        /// How many.
        machines: u32,
    },
    /// Machines are wanted no more, or are gone.
    Cancelled {
        /// What they were part of.
        intent: IntentId,
        /// How many.
        machines: u32,
    },
    /// A machine became a Node.
    Registered {
        /// Its group.
        group: GroupId,
        /// What it was part of.
        intent: Option<IntentId>,
    },
    /// A machine came for which nobody waits any more: it has to be ended.
    Late {
        /// Its group.
        group: GroupId,
        /// The machine.
        machine: InstanceId,
    },
    /// A machine we launched was given up without ever having been a Node.
    NeverRegistered {
        /// Its group.
        group: GroupId,
    },
}

/// A node as DeleteNodes names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `spec.providerID`.
    pub id: String,
    /// CA made this node up for a machine that never registered or was refused; such a one may break the minimum.
    pub fake: bool,
}

/// What DeleteNodes comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Machines to end now.
    pub terminate: Vec<InstanceId>,
    /// What follows.
    pub events: Vec<Event>,
}

/// How long a refused place is shown to CA, if CA does not delete it before (it does so in its next loop).
const REFUSED_SHOWN: Duration = Duration::from_secs(120);
/// How long a machine that is gone can be deleted once more without an error.
const GONE_KEPT: Duration = Duration::from_secs(3600);
/// Most machines remembered as gone.
const GONE_LIMIT: usize = 20_000;
/// How long an intent is kept after its last machine became a Node.
const SETTLED: Duration = Duration::from_secs(300);

impl Fleet {
    /// Whether a group may grow by `delta`; the delta as a count.
    ///
    /// # Errors
    /// An unknown group, a delta that is not positive, or one that leads above the maximum or to more machines on their
    /// way than [`limits::ON_THE_WAY`].
    pub fn may_increase(&self, group: &str, delta: i32) -> Result<u32, Denied> {
        let view = self.group(group).ok_or_else(|| Denied::UnknownGroup(group.to_owned()))?;
        let count = u32::try_from(delta).ok().filter(|count| *count > 0);
        let count = count.ok_or(Denied::BadDelta { delta, must: "positive" })?;
        if view.target.saturating_add(count) > view.group.max {
            let group = view.group.id.clone();
            return Err(Denied::AboveMax { group, target: view.target, delta: count, max: view.group.max });
        }
        let (open, most) = (view.waiting() + view.refused(), limits::ON_THE_WAY);
        if open.saturating_add(count) > most {
            return Err(Denied::TooMany { group: view.group.id.clone(), open, delta: count, most });
        }
        Ok(count)
    }

    /// Records that `count` machines are to come. Call [`Fleet::may_increase`] first; nothing happens for a group that
    /// is not there or for a count of zero.
    pub fn increase(&mut self, group: &str, count: u32, id: IntentId, now: Timestamp) {
        if count > 0 {
            self.change(group, |view| view.intents.push(Intent::new(id, view.group.id.clone(), count, now)));
        }
    }

    /// Gives up machines that are not there yet, the youngest wish first.
    ///
    /// # Errors
    /// An unknown group, a delta that is not negative, or one that existing machines would have to pay for.
    pub fn decrease(&mut self, group: &str, delta: i32) -> Result<Vec<Event>, Denied> {
        let view = self.group(group).ok_or_else(|| Denied::UnknownGroup(group.to_owned()))?;
        if delta >= 0 {
            return Err(Denied::BadDelta { delta, must: "negative" });
        }
        let (delta, open) = (delta.unsigned_abs(), view.waiting() + view.refused());
        if delta > open {
            return Err(Denied::BelowExisting { group: view.group.id.clone(), delta, open });
        }
        Ok(self.change(group, |view| cancel(view, delta)).unwrap_or_default())
    }

    /// Gives up exactly the named machines and placeholders; each lowers the target by one, once. What is ending or
    /// gone already counts as done; what is announced to go does not count as it is, and goes in any case.
    ///
    /// # Errors
    /// An unknown group, one foreign or nameless node among them, or a real node whose loss would break the minimum.
    pub fn delete(&mut self, group: &str, nodes: &[Named]) -> Result<Deletion, Denied> {
        let view = self.group(group).ok_or_else(|| Denied::UnknownGroup(group.to_owned()))?;
        let mut machines = BTreeMap::new();
        let (mut places, mut leaving) = (BTreeSet::new(), Vec::new());
        for node in nodes {
            if let Some(instance) = view.instance(&node.id) {
                if instance.is_live() {
                    *machines.entry(instance.id.clone()).or_insert(true) &= node.fake;
                } else if instance.leaving.is_some() {
                    leaving.push(instance.id.clone());
                }
            } else if let Some((_, intent, index)) = parse_placeholder(&node.id).filter(|place| place.0 == group) {
                places.insert((intent.to_owned(), index));
            } else if self.gone.get(node.id.as_str()).is_none_or(|gone| gone.group.as_str() != group) {
                return Err(Denied::Foreign { node: node.id.clone(), group: group.to_owned() });
            }
        }
        let count = u32::try_from(machines.len()).unwrap_or(u32::MAX);
        let real = machines.values().any(|fake| !fake);
        if real && view.target < view.group.min.saturating_add(count) {
            let group = view.group.id.clone();
            return Err(Denied::BelowMin { group, target: view.target, count, min: view.group.min });
        }
        let deletion = self.change(group, |view| {
            notices::delete(view, &leaving);
            carry_out(view, machines, &places)
        });
        Ok(deletion.unwrap_or_default())
    }

    /// Machines that could not be ended after all are part of the target again.
    pub fn spared(&mut self, group: &str, machines: &[InstanceId]) {
        self.change(group, |view| {
            for id in machines {
                if let Some(instance) = view.instance_mut(id.as_str()) {
                    (instance.doomed, instance.returned) = (false, false);
                }
            }
        });
    }

    /// The next launch of an intent, if anything of it has not been asked for yet.
    /// `zones` are the group's, in the order in which they are to be asked.
    pub fn next_launch(&mut self, group: &str, intent: &IntentId, limit: u32, zones: Vec<String>) -> Option<Launch> {
        self.change(group, |view| {
            let launch = view.intent_mut(intent)?.next_launch(limit, zones)?;
            Some(Launch { wanted: view.wanted(), ..launch })
        })?
    }

    /// Applies the answer to a launch.
    pub fn launched(&mut self, launch: &Launch, launched: &Launched, now: Timestamp) -> Vec<Event> {
        let id = IntentId::of_token(&launch.token);
        let refused = self.change(launch.group.as_str(), |view| {
            for instance in &launched.instances {
                add(view, instance, &id, now);
            }
            let mut reused = launched.reused;
            for owing in view.intents.iter_mut().filter(|intent| intent.id != id) {
                reused -= owing.forgive(reused);
            }
            let GroupView { instances, intents, .. } = view;
            let guessed = |id: &InstanceId| instances.iter().any(|it| it.id == *id && it.token.is_none());
            let intent = intents.iter_mut().find(|intent| intent.id == id)?;
            let refused = intent.answered(&launch.token, launched, guessed, now);
            for stranger in instances.iter_mut().filter(|it| it.intent.as_ref() == Some(&id)) {
                if !intent.machines().any(|mine| *mine == stranger.id) {
                    stranger.intent = None;
                }
            }
            Some(refused)
        });
        if !launched.instances.is_empty() && refused.is_some() {
            let members = Arc::make_mut(&mut self.members);
            members.extend(launched.instances.iter().map(|it| (it.id.clone(), launch.group.clone())));
        }
        match refused.flatten() {
            Some(machines) if machines > 0 => {
                vec![Event::Refused { group: launch.group.clone(), intent: id, machines }]
            }
            _ => Vec::new(),
        }
    }

    /// A launch that failed as a whole.
    pub fn refused(&mut self, launch: &Launch, refusal: Refusal, now: Timestamp) -> Vec<Event> {
        self.launched(launch, &Launched { refused: vec![(launch.count, refusal)], ..Launched::default() }, now)
    }

    /// CA showed us this machine as a real Node. None when that is not news.
    pub fn seen(&mut self, instance: &str, now: Timestamp) -> Option<Event> {
        let group = self.members.get(instance)?.clone();
        let known = self.group(group.as_str())?.instance(instance)?;
        if known.registered_at.is_some() {
            return None;
        }
        let intent = known.intent.clone();
        self.change(group.as_str(), |view| {
            if let Some(instance) = view.instance_mut(instance) {
                instance.registered_at = Some(now);
            }
        });
        Some(Event::Registered { group, intent })
    }

    /// A machine that is to be ended because it is no Node, and may have become one; its group.
    #[must_use]
    pub fn returned(&self, instance: &str) -> Option<GroupId> {
        let group = self.members.get(instance)?;
        let known = self.group(group.as_str())?.instance(instance)?;
        (known.doomed && known.returned && !is_ending(known)).then(|| group.clone())
    }

    /// Launches begun by an earlier process whose answers nobody heard.
    #[must_use]
    pub fn unanswered(&self) -> Vec<Launch> {
        let of = |view: &GroupView| {
            let wanted = view.wanted();
            let launches = view.intents.iter().flat_map(Intent::unanswered);
            launches.map(|launch| Launch { wanted: wanted.clone(), ..launch }).collect::<Vec<_>>()
        };
        self.groups().filter(|view| view.in_flight()).flat_map(|view| of(view)).collect()
    }

    /// Machines to be ended that are still there, by group.
    #[must_use]
    pub fn doomed(&self) -> Vec<(GroupId, Vec<InstanceId>)> {
        self.pick(|instance| instance.doomed && !is_ending(instance))
    }

    /// Machines of ours that are there since before `limit` and were never a Node, by group.
    #[must_use]
    pub fn overdue(&self, limit: Timestamp) -> Vec<(GroupId, Vec<InstanceId>)> {
        self.pick(|it| it.is_live() && it.intent.is_some() && it.registered_at.is_none() && it.first_seen <= limit)
    }

    pub(super) fn pick(&self, is: impl Fn(&InstanceView) -> bool) -> Vec<(GroupId, Vec<InstanceId>)> {
        let ids = |view: &GroupView| view.instances.iter().filter(|it| is(it)).map(|it| it.id.clone()).collect();
        let picked = self.groups().map(|view| (view.group.id.clone(), ids(view)));
        picked.filter(|(_, ids): &(_, Vec<_>)| !ids.is_empty()).collect()
    }

    /// Lets go of what has been shown or kept long enough. True when that changed anything.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        // Looked at first: most of the time nothing is old enough, and then nothing is copied.
        let old = self.groups.values().filter_map(|view| Some((view.group.id.clone(), without_old(view, now)?)));
        let old: Vec<(GroupId, Vec<Intent>)> = old.collect();
        let changed = self.forget_void_notices(now) || !old.is_empty();
        for (group, intents) in old {
            self.change(group.as_str(), |view| view.intents = intents);
        }
        // Before a listing, an old order is as good as a new one: AWS may be trying for it still.
        if self.listed_at.is_some() {
            self.unplaced.intents.retain(|intent| intent.at + GONE_KEPT > now);
            self.unplaced.leaving.retain(|_, leaving| leaving.at + VOID > now);
        }
        if self.gone.len() > GONE_LIMIT || self.gone.values().any(|gone| gone.at + GONE_KEPT <= now) {
            let gone = Arc::make_mut(&mut self.gone);
            gone.retain(|_, gone| gone.at + GONE_KEPT > now);
            while gone.len() > GONE_LIMIT {
                gone.pop_first();
            }
        }
        changed
    }
}

/// Gives up `most` machines that are not there: what still waits before what was refused, young intents before old.
fn cancel(view: &mut GroupView, most: u32) -> Vec<Event> {
    let mut left = most;
    let mut events = Vec::new();
    for waiting in [true, false] {
        for intent in view.intents.iter_mut().rev() {
            let cancelled = intent.cancel(left, waiting);
            left -= cancelled;
            if waiting && cancelled > 0 {
                events.push(Event::Cancelled { intent: intent.id.clone(), machines: cancelled });
            }
        }
    }
    events
}

fn carry_out(
    view: &mut GroupView,
    machines: BTreeMap<InstanceId, bool>,
    places: &BTreeSet<(String, usize)>,
) -> Deletion {
    let mut deletion = Deletion::default();
    for (id, fake) in machines {
        let Some(instance) = view.instance_mut(id.as_str()) else { continue };
        instance.doomed = true;
        let never_registered = fake && instance.registered_at.is_none();
        instance.returned = never_registered;
        if let Some(intent) = instance.intent.clone() {
            deletion.events.push(Event::Cancelled { intent, machines: 1 });
            if never_registered {
                deletion.events.push(Event::NeverRegistered { group: view.group.id.clone() });
            }
        }
        deletion.terminate.push(id);
    }
    for (intent, index) in places {
        let Some(intent) = view.intents.iter_mut().find(|known| known.id.as_str() == intent) else { continue };
        if intent.cancel_unit(*index) == Some(true) {
            deletion.events.push(Event::Cancelled { intent: intent.id.clone(), machines: 1 });
        }
    }
    deletion
}

/// A machine that a launch named, possibly before any listing shows it.
fn add(view: &mut GroupView, instance: &Instance, intent: &IntentId, now: Timestamp) {
    match view.instances.binary_search_by(|known| known.id.cmp(&instance.id)) {
        Ok(at) => view.instances[at].intent = Some(intent.clone()),
        Err(at) => view.instances.insert(
            at,
            InstanceView {
                id: instance.id.clone(),
                state: instance.state,
                zone: instance.zone.clone(),
                token: instance.token.clone(),
                intent: Some(intent.clone()),
                first_seen: now,
                registered_at: None,
                doomed: false,
                returned: false,
                leaving: None,
                listed: false,
            },
        ),
    }
}

/// The intents of a group without what was shown or kept long enough; None when nothing was.
fn without_old(view: &GroupView, now: Timestamp) -> Option<Vec<Intent>> {
    if view.intents.is_empty() {
        return None;
    }
    let settled = |id: &InstanceId| {
        let registered = view.instance(id.as_str()).and_then(|instance| instance.registered_at);
        registered.is_some_and(|at| at + SETTLED <= now)
    };
    let mut intents = view.intents.clone();
    for intent in &mut intents {
        intent.expire_refused(REFUSED_SHOWN, now);
    }
    let open = |intent: &Intent| intent.waiting() + intent.refused() + intent.owed() > 0;
    intents.retain(|intent| open(intent) || !intent.machines().all(settled));
    (intents != view.intents).then_some(intents)
}

fn is_ending(instance: &InstanceView) -> bool {
    instance.state == InstanceState::Deleting
}
