//! What there is and what is on its way: groups, instances, the ledger of intents. Values only: the keeper changes its
//! own copy through the transitions in [`ledger`] and [`listing`], and publishes clones that readers share.

pub mod denied;
pub mod group;
pub mod intents;
pub mod learned;
pub mod ledger;
pub mod listing;
pub mod notices;
pub mod offering;
pub mod orders;
pub mod prices;
pub mod saved;
pub mod template;
pub mod zones;

use std::{collections::BTreeMap, collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};
use windlass_proto::core::Node;

use crate::{
    cloud::Wanted,
    fleet::{
        group::{Group, GroupId, InstanceId, InstanceState},
        intents::{Intent, IntentId, Placeholder},
        learned::Learned,
        notices::Leaving,
    },
    timestamp::Timestamp,
};

/// One machine, and what we know of it beyond the cloud's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceView {
    /// Equals the node's `spec.providerID`.
    pub id: InstanceId,
    /// How far the cloud says it has come.
    pub state: InstanceState,
    /// The zone it is in.
    pub zone: String,
    /// The client token of the launch that made it, where the cloud keeps one.
    pub token: Option<String>,
    /// The intent it came of; None for a machine that something else made.
    pub intent: Option<IntentId>,
    /// When this process first heard of it.
    pub first_seen: Timestamp,
    /// When CA first showed it to us as a real Node; None before.
    pub registered_at: Option<Timestamp>,
    /// CA asked us to end it: no longer part of the target.
    pub doomed: bool,
    /// It is ended because nobody waits for it any more: should it become a Node first, it stays.
    pub returned: bool,
    /// Its end was announced: no longer part of the target.
    pub leaving: Option<Leaving>,
    /// A listing has shown it (a launch may name a machine before any listing does).
    pub listed: bool,
}

impl InstanceView {
    /// Whether it counts towards the target: there, and not on its way out.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.doomed && self.leaving.is_none() && self.state != InstanceState::Deleting
    }
}

/// How many machines of a group there are, and how many there are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Machines that count towards the target.
    pub live: u32,
    /// Machines on their way out that are still there.
    pub deleting: u32,
    /// Machines asked for that may still come.
    pub waiting: u32,
    /// Machines refused and still shown.
    pub refused: u32,
}

/// A group with everything in it and everything on its way to it.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// The group, with the configuration's overrides applied.
    pub group: Group,
    /// Its machines, by id.
    pub instances: Vec<InstanceView>,
    /// What was asked for, oldest first; kept until every machine of it is a Node or gone.
    pub intents: Vec<Intent>,
    /// What CA is told: live machines, plus what is on its way, plus refused places that are still shown.
    pub target: u32,
    /// What the target is made of.
    pub counts: Counts,
    /// The Node that a new machine of this group would be.
    pub template: Arc<Node>,
    /// The same as bytes, ready for the wire.
    pub template_bytes: Arc<[u8]>,
}

impl GroupView {
    /// Machines that count towards the target.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.counts.live
    }

    /// Machines on their way out that are still there.
    #[must_use]
    pub fn deleting(&self) -> u32 {
        self.counts.deleting
    }

    /// Machines asked for that may still come.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.counts.waiting
    }

    /// Machines refused and still shown.
    #[must_use]
    pub fn refused(&self) -> u32 {
        self.counts.refused
    }

    /// Machines wanted that no launch asks for yet.
    #[must_use]
    pub fn idle(&self) -> u32 {
        self.intents.iter().map(Intent::idle).sum()
    }

    /// Machines that the cloud tries to bring by itself though nobody counts on them any more.
    #[must_use]
    pub fn owed(&self) -> u32 {
        self.intents.iter().map(Intent::owed).sum()
    }

    /// Machines still wanted that the cloud tries to bring by itself.
    #[must_use]
    pub fn ordered(&self) -> u32 {
        self.intents.iter().map(Intent::ordered).sum()
    }

    /// What the group is to come to, for a cloud that has to be told the whole.
    fn wanted(&self) -> Wanted {
        let ids = |is: fn(&InstanceView) -> bool| {
            Arc::new(self.instances.iter().filter(|it| is(it)).map(|it| it.id.clone()).collect())
        };
        Wanted {
            known: ids(|_| true),
            live: ids(InstanceView::is_live),
            outstanding: self.intents.iter().map(Intent::outstanding).sum(),
        }
    }

    /// Whether a launch is out whose answer is not here.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.intents.iter().any(Intent::in_flight)
    }

    /// Whether a launch is out that the cloud has neither answered nor taken as an order.
    #[must_use]
    pub fn is_launching(&self) -> bool {
        self.intents.iter().any(|intent| intent.outstanding() > intent.ordered())
    }

    /// Whether a machine of ours has come and is not a Node yet.
    #[must_use]
    pub fn unregistered(&self) -> bool {
        self.instances.iter().any(|it| it.is_live() && it.intent.is_some() && it.registered_at.is_none())
    }

    /// How many machines of a zone count towards the target.
    #[must_use]
    pub fn held_in(&self, zone: &str) -> u32 {
        count(self.instances.iter().filter(|instance| instance.is_live() && instance.zone == zone))
    }

    /// Whether machines come or go, or may come though nobody waits for them any more.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        let booting = || self.instances.iter().any(|it| it.state == InstanceState::Creating);
        self.waiting() + self.deleting() + self.owed() > 0 || booting()
    }

    /// The machine of that id.
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<&InstanceView> {
        let at = self.instances.binary_search_by(|instance| instance.id.as_str().cmp(id)).ok()?;
        self.instances.get(at)
    }

    /// What is not there, as CA is to see it.
    pub fn placeholders(&self) -> impl Iterator<Item = Placeholder> + '_ {
        self.intents.iter().flat_map(Intent::placeholders)
    }

    fn intent_mut(&mut self, id: &IntentId) -> Option<&mut Intent> {
        self.intents.iter_mut().find(|intent| intent.id == *id)
    }

    fn instance_mut(&mut self, id: &str) -> Option<&mut InstanceView> {
        let at = self.instances.binary_search_by(|instance| instance.id.as_str().cmp(id)).ok()?;
        self.instances.get_mut(at)
    }

    /// The one place where the target is computed.
    fn settle(&mut self) {
        let live = count(self.instances.iter().filter(|instance| instance.is_live()));
        self.counts = Counts {
            live,
            deleting: count(self.instances.iter()) - live,
            waiting: self.intents.iter().map(Intent::waiting).sum(),
            refused: self.intents.iter().map(Intent::refused).sum(),
        };
        self.target = self.counts.live + self.counts.waiting + self.counts.refused;
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// A machine that was there once: asking to delete it again is no error, and is not counted twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Gone {
    group: GroupId,
    at: Timestamp,
    /// It was on its way out: should a list that lags show it once more, it still is.
    #[serde(default)]
    doomed: bool,
}

/// Everything there is. Cloning it copies a few pointers per group.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    groups: BTreeMap<GroupId, Arc<GroupView>>,
    members: Arc<HashMap<InstanceId, GroupId>>,
    gone: Arc<BTreeMap<InstanceId, Gone>>,
    /// When the last listing was asked for.
    listed_at: Option<Timestamp>,
    /// What real nodes of the groups turned out to be.
    learned: Arc<BTreeMap<GroupId, Learned>>,
    /// What a state file said of groups that no listing has shown yet.
    unplaced: saved::Saved,
}

impl Fleet {
    /// Every group, in order of id.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Arc<GroupView>> {
        self.groups.values()
    }

    /// The group of that id.
    #[must_use]
    pub fn group(&self, id: &str) -> Option<&Arc<GroupView>> {
        self.groups.get(id)
    }

    /// The group that a machine or a placeholder of that id belongs to.
    #[must_use]
    pub fn group_of(&self, instance: &str) -> Option<&Arc<GroupView>> {
        let group = match self.members.get(instance) {
            Some(group) => group.as_str(),
            None => intents::parse_placeholder(instance)?.0,
        };
        self.group(group)
    }

    /// Whether there is such a machine in one of the groups.
    #[must_use]
    pub fn has_instance(&self, instance: &str) -> bool {
        self.group_of(instance).is_some_and(|view| view.instance(instance).is_some())
    }

    /// What real nodes of that group turned out to be.
    #[must_use]
    pub fn learned(&self, group: &str) -> Option<&Learned> {
        self.learned.get(group)
    }

    /// Takes in what a real node of that group turned out to be; the next listing shows it.
    pub fn learn(&mut self, group: GroupId, learned: Learned) {
        Arc::make_mut(&mut self.learned).insert(group, learned);
    }

    /// Changes one group and brings its target up to date.
    fn change<T>(&mut self, group: &str, change: impl FnOnce(&mut GroupView) -> T) -> Option<T> {
        let view = Arc::make_mut(self.groups.get_mut(group)?);
        let answer = change(view);
        view.settle();
        Some(answer)
    }
}

#[cfg(test)]
pub(crate) mod tests;
