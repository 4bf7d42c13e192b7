//! What a listing of the cloud changes: machines come, move on and go; asked-for machines turn into real ones. What a
//! listing began too early to know of is kept.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use prost::Message as _;

use crate::{
    cloud::Listed,
    fleet::{
        Counts, Fleet, Gone, GroupView, InstanceView,
        group::{Group, GroupId, GroupSettings, Instance, InstanceId},
        intents::IntentId,
        ledger::Event,
        notices, orders,
        template::{self, Dialect},
    },
    timestamp::Timestamp,
};

/// A machine of ours is believed for that long although a listing lacks it: clouds' lists lag behind their answers, and one
/// list behind another.
const UNLISTED_KEPT: Duration = Duration::from_secs(30);

/// A machine that comes late is ended only when the listing before was no longer ago than this: then it cannot have
/// become a Node yet.
const LATE_RETURNED: Duration = Duration::from_secs(45);

/// CA keys such groups by an object that its external client makes anew for every node.
const ZERO_OR_MAX: &str = "zeroOrMaxNodeScaling works for growth alone: CA never scales such a group down once it has \
                           two nodes, when its provider is an external one";

/// How a listing is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// When the listing was asked for; it cannot know of anything later.
    pub begun: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// How nodes are labelled.
    pub dialect: &'a Dialect,
    /// The configuration's word on single groups, over the cloud's.
    pub overrides: &'a BTreeMap<String, GroupSettings>,
}

impl Fleet {
    /// Takes a whole listing in. Groups that are not in it are gone, with everything that was asked of them.
    pub fn listed(&mut self, listing: Vec<Listed>, reading: Reading<'_>) -> Vec<Event> {
        let mut old = std::mem::take(&mut self.groups);
        let mut learned = Arc::unwrap_or_clone(std::mem::take(&mut self.learned));
        let mut events = Vec::new();
        let mut gone = Vec::new();
        let before = self.listed_at.replace(reading.begun);
        let watched = before.is_some_and(|before| reading.now.since(before) <= LATE_RETURNED);
        let past = self.gone.clone();
        for Listed { mut group, instances, standing } in listing {
            if let Some(settings) = reading.overrides.get(group.id.as_str()) {
                settings.put_on(&mut group);
            }
            if group.overrides.zero_or_max_node_scaling == Some(true) {
                group.warnings.push(ZERO_OR_MAX.to_owned());
            }
            let id = group.id.clone();
            // What another machine than the one described now taught is of no use.
            let described = group.shape.cpu_milli > 0;
            if learned.get_mut(&id).is_some_and(|real| described && !real.apply(&mut group, reading.dialect)) {
                learned.remove(&id);
            }
            let known = old.remove(id.as_str());
            let mut view = self.renewed(known.as_deref(), group, reading.dialect);
            let restored = self.unplaced.known.remove(&id);
            let memory = Memory { known: known.as_deref(), restored: restored.as_ref(), past: &past, watched };
            let left = take_in(&mut view, &memory, instances, reading, &mut events);
            for instance in left {
                events.extend(farewell(&mut view, &instance));
                gone.push((instance.id, id.clone(), instance.doomed));
            }
            for (machine, _) in self.unplaced.doomed.extract_if(.., |_, group| *group == id) {
                match view.instance_mut(machine.as_str()) {
                    Some(instance) => {
                        instance.doomed = true;
                        instance.returned = self.unplaced.returned.remove(&machine);
                    }
                    None => gone.push((machine, id.clone(), true)),
                }
            }
            notices::restore(&mut view, &mut self.unplaced.leaving);
            orders::settle(&mut view, standing.as_ref(), reading, &mut events);
            view.settle();
            // What is as it was stays the same allocation: a quiet refresh costs no memory.
            let same = known.filter(|known| same(known, &view));
            self.groups.insert(id, same.unwrap_or_else(|| Arc::new(view)));
        }
        for view in old.values() {
            events.extend(view.intents.iter().flat_map(|intent| {
                let machines = intent.waiting();
                (machines > 0).then(|| Event::Cancelled { intent: intent.id.clone(), machines })
            }));
        }
        learned.retain(|id, _| self.groups.contains_key(id));
        self.learned = learned.into();
        self.reindex(gone, reading.now);
        events
    }

    /// The view as it was with the group as it is now; or a new one, with what a state file knew of it.
    fn renewed(&mut self, known: Option<&GroupView>, group: Group, dialect: &Dialect) -> GroupView {
        match known {
            Some(known) if known.group == group => GroupView { instances: Vec::new(), group, ..known.clone() },
            _ => {
                let mut intents = known.map(|known| known.intents.clone()).unwrap_or_default();
                intents.extend(self.unplaced.intents.extract_if(.., |intent| intent.group == group.id));
                let template = template::node(&group, dialect);
                let template_bytes = template.encode_to_vec().into();
                let template = Arc::new(template);
                GroupView {
                    group,
                    instances: Vec::new(),
                    intents,
                    target: 0,
                    counts: Counts::default(),
                    template,
                    template_bytes,
                }
            }
        }
    }

    fn reindex(&mut self, gone: Vec<(InstanceId, GroupId, bool)>, now: Timestamp) {
        let count: usize = self.groups.values().map(|view| view.instances.len()).sum();
        let known = |view: &GroupView| view.instances.iter().all(|it| self.members.get(&it.id) == Some(&view.group.id));
        if count != self.members.len() || !self.groups.values().all(|view| known(view)) {
            let members = |view: &Arc<GroupView>| {
                let group = view.group.id.clone();
                view.instances.iter().map(move |it| (it.id.clone(), group.clone())).collect::<Vec<_>>()
            };
            self.members = Arc::new(self.groups.values().flat_map(members).collect::<HashMap<_, _>>());
        }
        if !gone.is_empty() {
            let gone = gone.into_iter().map(|(id, group, doomed)| (id, Gone { group, at: now, doomed }));
            Arc::make_mut(&mut self.gone).extend(gone);
        }
    }
}

/// What was known of a group before a listing.
struct Memory<'a> {
    known: Option<&'a GroupView>,
    /// From the last process: the machines of a group that waited for some.
    restored: Option<&'a BTreeSet<InstanceId>>,
    /// Machines that went. A list that lags may show one of them once more: that is not a new machine.
    past: &'a BTreeMap<InstanceId, Gone>,
    /// This process listed the group a moment ago, so that a new machine is no older than that.
    watched: bool,
}

impl Memory<'_> {
    fn is_new(&self, id: &InstanceId) -> bool {
        let looked = self.known.is_some() || self.restored.is_some();
        looked && !self.past.contains_key(id) && self.restored.is_none_or(|known| !known.contains(id))
    }
}

/// Fills `view` with the listed machines and those the listing could not know of. Returns those that are gone.
fn take_in(
    view: &mut GroupView,
    memory: &Memory<'_>,
    listed: Vec<Instance>,
    reading: Reading<'_>,
    events: &mut Vec<Event>,
) -> Vec<InstanceView> {
    let mut instances: BTreeMap<InstanceId, InstanceView> = BTreeMap::new();
    for Instance { id, state, zone, token } in listed {
        let before = memory.known.and_then(|known| known.instance(id.as_str())).cloned();
        let is_new = before.is_none() && memory.is_new(&id);
        let mut instance = before.unwrap_or_else(|| newcomer(id, memory, reading.now));
        instance.state = state;
        instance.zone = zone;
        instance.token = token.or(instance.token);
        instance.listed = true;
        if instance.intent.is_none() {
            instance.intent = tie(view, &instance, is_new);
        }
        if instance.intent.is_none() && is_new {
            events.extend(orders::late(view, &mut instance, memory.watched));
        }
        instances.insert(instance.id.clone(), instance);
    }
    let mut left = Vec::new();
    for instance in memory.known.iter().flat_map(|known| &known.instances) {
        if instances.contains_key(&instance.id) {
            continue;
        }
        let ours = !instance.listed || (instance.intent.is_some() && instance.is_live());
        if ours && reading.begun <= instance.first_seen + UNLISTED_KEPT {
            instances.insert(instance.id.clone(), instance.clone());
        } else {
            left.push(instance.clone());
        }
    }
    view.instances = instances.into_values().collect();
    left
}

fn newcomer(id: InstanceId, memory: &Memory<'_>, now: Timestamp) -> InstanceView {
    InstanceView {
        doomed: memory.past.get(&id).is_some_and(|gone| gone.doomed),
        id,
        state: crate::fleet::group::InstanceState::Creating,
        zone: String::new(),
        token: None,
        intent: None,
        first_seen: now,
        registered_at: None,
        returned: false,
        leaving: None,
        listed: true,
    }
}

/// Finds the intent a machine came of: by its token; without one, a machine that was not there before came of the oldest
/// intent that still waits for an answer.
fn tie(view: &mut GroupView, instance: &InstanceView, is_new: bool) -> Option<IntentId> {
    let named = instance.token.as_deref().map(IntentId::of_token);
    let is_mine = |intent: &&mut crate::fleet::intents::Intent| match &named {
        Some(named) => intent.id == *named,
        None => is_new && intent.in_flight(),
    };
    let intent = view.intents.iter_mut().find(is_mine)?;
    intent.attach(&instance.id, instance.token.as_deref());
    Some(intent.id.clone())
}

/// A machine that is no longer there frees its place, and what was bought with it unless that was freed before.
fn farewell(view: &mut GroupView, instance: &InstanceView) -> Option<Event> {
    let intent = view.intent_mut(instance.intent.as_ref()?)?;
    intent.forget(&instance.id);
    (!instance.doomed).then(|| Event::Cancelled { intent: intent.id.clone(), machines: 1 })
}

fn same(old: &GroupView, new: &GroupView) -> bool {
    old.group == new.group && old.instances == new.instances && old.intents == new.intents
}
