//! Word that a machine goes: from its own node, or from the cloud's events. It is shown as leaving from then on, so that
//! what ran on it is replaced at once. One that the cloud takes back is ended by its name just before, so that the group
//! does not replace it once more of its own accord.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    fleet::{
        Fleet, GroupView, InstanceView,
        group::{GroupId, InstanceId, InstanceState},
        ledger::Event,
    },
    timestamp::Timestamp,
};

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// The cloud takes the machine back.
    Interruption,
    /// The machine is going down, whoever caused it.
    Ending,
    /// The cloud may take it back; it often does not.
    Rebalance,
    /// What was announced does not stand any more.
    Withdrawn,
}

impl NoticeKind {
    /// As in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Interruption => "interruption",
            Self::Ending => "ending",
            Self::Rebalance => "rebalance",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The node's `spec.providerID`, or what of it the cloud calls the machine (`i-0abc`).
    pub machine: String,
    /// What it says.
    pub kind: NoticeKind,
    /// When the machine goes; None where the notice does not say.
    pub ends_at: Option<Timestamp>,
}

/// A machine's announced end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// When.
    pub at: Timestamp,
    /// The cloud takes it back, and would replace it; or it stays after all, and CA has asked for its end.
    pub taken_back: bool,
    /// CA has asked for its end meanwhile.
    #[serde(default)]
    pub deleted: bool,
}

impl Leaving {
    /// Whether it is to be ended by us now.
    fn is_due(self, now: Timestamp) -> bool {
        self.taken_back && (self.deleted || self.at <= now + BEFORE)
    }

    /// What is left of it when the machine is there long after: one that CA wants ended is to be ended by us, unless that
    /// was tried.
    fn void(self) -> Option<Self> {
        (self.deleted && !self.taken_back).then_some(Self { taken_back: true, ..self })
    }
}

/// From an interruption notice to the end, where it does not say; EC2's own.
const WARNING: Duration = Duration::from_secs(120);
/// So long before the end a machine is ended by us.
const BEFORE: Duration = Duration::from_secs(10);
/// A machine that is still there so long after its announced end was not taken.
pub(crate) const VOID: Duration = Duration::from_secs(300);

impl Fleet {
    /// Takes a notice in. None for a machine that is not ours, or is leaving already; and for one that may stay.
    pub fn noticed(&mut self, notice: &Notice, now: Timestamp) -> Option<(GroupId, InstanceId)> {
        let (at, taken_back) = match notice.kind {
            NoticeKind::Rebalance => return None,
            NoticeKind::Withdrawn => return self.stays(&notice.machine),
            NoticeKind::Ending => (notice.ends_at.unwrap_or(now), false),
            NoticeKind::Interruption => (notice.ends_at.unwrap_or(now + WARNING), true),
        };
        let (id, group) = self.named(&notice.machine)?;
        self.group(group.as_str())?.instance(id.as_str()).filter(|it| it.is_live())?;
        self.announce(&group, &id, Some(Leaving { at, taken_back, deleted: false }));
        Some((group, id))
    }

    /// A machine that was to leave stays after all; None when nothing was announced, or it is to be ended all the same.
    fn stays(&mut self, machine: &str) -> Option<(GroupId, InstanceId)> {
        let (id, group) = self.named(machine)?;
        let instance = self.group(group.as_str())?.instance(id.as_str())?;
        let leaving = instance.leaving.filter(|_| !instance.doomed && instance.state != InstanceState::Deleting)?;
        let ended = leaving.deleted.then_some(Leaving { taken_back: true, ..leaving });
        self.announce(&group, &id, ended);
        ended.is_none().then_some((group, id))
    }

    /// What is announced of a machine from now on.
    fn announce(&mut self, group: &GroupId, machine: &InstanceId, leaving: Option<Leaving>) {
        self.change(group.as_str(), |view| {
            if let Some(instance) = view.instance_mut(machine.as_str()) {
                instance.leaving = leaving;
            }
        });
    }

    fn named(&self, machine: &str) -> Option<(InstanceId, GroupId)> {
        let whole = self.members.get_key_value(machine);
        let is_it = |id: &InstanceId| id.as_str().rsplit('/').next() == Some(machine);
        let found = whole.or_else(|| self.members.iter().find(|(id, _)| is_it(id)));
        found.map(|(id, group)| (id.clone(), group.clone()))
    }

    /// Machines whose time is up: they are to be ended now, and what was bought with them is free again.
    pub fn take_leave(&mut self, now: Timestamp) -> (Vec<(GroupId, Vec<InstanceId>)>, Vec<Event>) {
        let is_due = |it: &InstanceView| it.leaving.is_some_and(|it| it.is_due(now));
        let due = self.pick(|it| !it.doomed && it.state != InstanceState::Deleting && is_due(it));
        let mut events = Vec::new();
        for (group, machines) in &due {
            self.change(group.as_str(), |view| {
                for id in machines {
                    let Some(instance) = view.instance_mut(id.as_str()) else { continue };
                    instance.doomed = true;
                    let intent = instance.intent.clone();
                    events.extend(intent.map(|intent| Event::Cancelled { intent, machines: 1 }));
                }
            });
        }
        (due, events)
    }

    /// Machines that were to go long ago and are there: they count again, unless CA has asked for their end. True when
    /// there are any.
    pub(super) fn forget_void_notices(&mut self, now: Timestamp) -> bool {
        let void = self.pick(|it| it.leaving.is_some_and(|leaving| leaving.at + VOID <= now));
        for (group, machines) in &void {
            self.change(group.as_str(), |view| {
                for id in machines {
                    if let Some(instance) = view.instance_mut(id.as_str()) {
                        instance.leaving = instance.leaving.and_then(Leaving::void);
                    }
                }
            });
        }
        !void.is_empty()
    }
}

/// CA asks for the end of machines whose end was announced. One that the cloud takes back is ended now; one that goes by
/// itself only if it does not, since its group counts it no more and would end another for it.
pub(super) fn delete(view: &mut GroupView, machines: &[InstanceId]) {
    for id in machines {
        if let Some(leaving) = view.instance_mut(id.as_str()).and_then(|it| it.leaving.as_mut()) {
            leaving.deleted = true;
        }
    }
}

/// When the machines of a group leave that were told to, for a later process.
pub(super) fn leaving(view: &GroupView) -> impl Iterator<Item = (InstanceId, Leaving)> + '_ {
    let of = |it: &InstanceView| it.leaving.map(|leaving| (it.id.clone(), leaving));
    view.instances.iter().filter_map(of)
}

/// Puts back what an earlier process knew of a group's machines.
pub(super) fn restore(view: &mut GroupView, leaving: &mut BTreeMap<InstanceId, Leaving>) {
    if leaving.is_empty() {
        return;
    }
    for instance in &mut view.instances {
        if let Some(leaving) = leaving.remove(&instance.id) {
            instance.leaving = Some(leaving);
        }
    }
}

#[cfg(test)]
mod tests;
