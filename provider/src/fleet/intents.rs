//! What was asked for and has not come: one [`Intent`] per IncreaseSize, one [`Unit`] per machine in it.
//! A shortfall lives here and not in a cloud's desired count, so cancelling it can never end a machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    cloud::{Launch, Launched},
    fleet::group::{GroupId, InstanceId, Refusal, RefusalClass},
    timestamp::Timestamp,
};

/// Scheme of the ids under which machines that do not exist are listed to CA.
const PLACEHOLDER: &str = "windlass://";

/// Names one intent, for as long as anyone may ask about it; also the stem of its client tokens. Letters, digits and
/// hyphens only, since some clouds make machine names of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntentId(String);

impl IntentId {
    /// The `count`-th intent of a process that started at `start`: never given twice, by this process or the next.
    #[must_use]
    pub fn new(count: u64, start: Timestamp) -> Self {
        Self(format!("w-{count}-{:x}", start.0))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The intent that a launch's client token belongs to.
    #[must_use]
    pub fn of_token(token: &str) -> Self {
        Self(token.split('.').next().unwrap_or_default().to_owned())
    }
}

impl std::fmt::Display for IntentId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

/// How far one machine of an intent has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UnitState {
    /// Asked for; no answer yet.
    Waiting,
    /// It exists under this id.
    Machine(InstanceId),
    /// It will not come. Shown to CA as an error until CA deletes the placeholder or a while has passed.
    Refused(Refusal, Timestamp),
    /// Nobody wants it any more, or it came and went.
    Done,
}

/// One machine of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Which launch asks for it, counted from 1; 0 while none does.
    pub launch: u32,
    /// How far it has come.
    pub state: UnitState,
    /// The cloud goes on trying to bring it by itself, whatever we say of it: it was told how many machines there are
    /// to be, and nothing takes that back but the end of a machine.
    #[serde(default)]
    pub standing: bool,
}

/// One IncreaseSize and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its name.
    pub id: IntentId,
    /// Where the machines are to come up.
    pub group: GroupId,
    /// When CA asked.
    pub at: Timestamp,
    /// One entry for each machine; an entry keeps its place, so placeholder ids are stable.
    pub units: Vec<Unit>,
    /// The zones of each launch, in the order in which they are asked: a repeated launch asks in the same order.
    #[serde(default)]
    pub zones: BTreeMap<u32, Vec<String>>,
    /// When the cloud last took an order for it that it carries out by itself.
    #[serde(default)]
    pub ordered_at: Option<Timestamp>,
}

/// A machine that does not exist, as CA is to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// Stable for this attempt, never used by another.
    pub id: InstanceId,
    /// None while it may still come.
    pub refusal: Option<Refusal>,
}

impl Intent {
    /// A fresh intent for `asked` machines.
    #[must_use]
    pub fn new(id: IntentId, group: GroupId, asked: u32, at: Timestamp) -> Self {
        let unit = Unit { launch: 0, state: UnitState::Waiting, standing: false };
        Self { id, group, at, units: vec![unit; asked as usize], zones: BTreeMap::new(), ordered_at: None }
    }

    /// How many machines were asked for.
    #[must_use]
    pub fn asked(&self) -> u32 {
        self.count(|_| true)
    }

    /// How many may still come.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.count(|unit| unit.state == UnitState::Waiting)
    }

    /// How many of those no launch asks for yet.
    #[must_use]
    pub fn idle(&self) -> u32 {
        self.count(|unit| unit.launch == 0 && unit.state == UnitState::Waiting)
    }

    /// How many were refused and are still shown.
    #[must_use]
    pub fn refused(&self) -> u32 {
        self.count(|unit| matches!(unit.state, UnitState::Refused(..)))
    }

    /// How many exist.
    #[must_use]
    pub fn fulfilled(&self) -> u32 {
        self.count(|unit| matches!(unit.state, UnitState::Machine(_)))
    }

    pub(super) fn count(&self, is: impl Fn(&Unit) -> bool) -> u32 {
        u32::try_from(self.units.iter().filter(|unit| is(unit)).count()).unwrap_or(u32::MAX)
    }

    /// What is not there, as CA is to see it: on its way, or refused and why.
    pub fn placeholders(&self) -> impl Iterator<Item = Placeholder> + '_ {
        self.units.iter().enumerate().filter_map(|(index, unit)| {
            let refusal = match &unit.state {
                UnitState::Waiting => None,
                UnitState::Refused(refusal, _) => Some(refusal.clone()),
                UnitState::Machine(_) | UnitState::Done => return None,
            };
            Some(Placeholder { id: self.placeholder(index), refusal })
        })
    }

    fn placeholder(&self, index: usize) -> InstanceId {
        format!("{PLACEHOLDER}{}/{}/{index}", self.group, self.id).into()
    }

    /// The machines that came of it.
    pub fn machines(&self) -> impl Iterator<Item = &InstanceId> {
        self.units.iter().filter_map(|unit| match &unit.state {
            UnitState::Machine(id) => Some(id),
            _ => None,
        })
    }

    /// Takes up to `limit` machines that no launch asks for yet, and says how to ask for them: in these zones, one
    /// after the other.
    pub fn next_launch(&mut self, limit: u32, zones: Vec<String>) -> Option<Launch> {
        let number = self.units.iter().map(|unit| unit.launch).max().unwrap_or(0) + 1;
        let idle = |unit: &&mut Unit| unit.launch == 0 && unit.state == UnitState::Waiting;
        let taken = self.units.iter_mut().filter(idle).take(limit as usize).map(|unit| unit.launch = number).count();
        (taken > 0).then(|| {
            self.zones.insert(number, zones);
            self.launch(number)
        })
    }

    /// The same launch once more; None when it is none of ours.
    #[must_use]
    pub fn repeat(&self, token: &str) -> Option<Launch> {
        let number = number_of_token(token);
        let launch = || Launch { again: true, ..self.launch(number) };
        self.units.iter().any(|unit| unit.launch == number).then(launch)
    }

    /// Launches that were begun and have no answer: to be repeated, with the same token, after a restart.
    #[must_use]
    pub fn unanswered(&self) -> Vec<Launch> {
        let open = |unit: &&Unit| unit.launch > 0 && unit.state == UnitState::Waiting;
        let numbers: BTreeSet<u32> = self.units.iter().filter(open).map(|unit| unit.launch).collect();
        numbers.into_iter().map(|number| Launch { again: true, ..self.launch(number) }).collect()
    }

    /// A launch as it was first asked for: what was cancelled since still counts, or the token would stand for
    /// another request.
    fn launch(&self, number: u32) -> Launch {
        let token = if number == 1 { self.id.to_string() } else { format!("{}.{number}", self.id) };
        let zones = self.zones.get(&number).cloned().unwrap_or_default();
        let count = self.count(|unit| unit.launch == number);
        Launch { zones, ..Launch::new(self.group.clone(), count, token) }
    }

    /// Ties a machine to this intent: to the place that waits for it (of that launch, where the token says), else to
    /// one that was given up. False when it was tied before.
    pub(super) fn attach(&mut self, machine: &InstanceId, token: Option<&str>) -> bool {
        if self.machines().any(|known| known == machine) {
            return false;
        }
        let launch = token.map(number_of_token);
        let rank = |unit: &Unit| {
            let mine = unit.launch > 0 && launch.is_none_or(|number| number == unit.launch);
            match unit.state {
                UnitState::Waiting if mine => Some(0),
                UnitState::Refused(..) if mine => Some(1),
                UnitState::Done if mine => Some(2),
                _ => None,
            }
        };
        let best = self.units.iter_mut().filter_map(|unit| rank(unit).map(|rank| (rank, unit))).min_by_key(|it| it.0);
        let state = UnitState::Machine(machine.clone());
        match best {
            Some((_, unit)) => unit.state = state,
            // More came than was asked for: it is owned all the same, so that it can be reaped.
            None => self.units.push(Unit { launch: launch.unwrap_or(1), state, standing: false }),
        }
        true
    }

    /// Applies the answer to one launch; how many machines were refused by it. A refusal also ends what no launch has
    /// asked for yet: a group that said no is not asked by a crowd.
    /// `guessed` says which machines were tied to it for want of a token of their own.
    pub(super) fn answered(
        &mut self,
        token: &str,
        launched: &Launched,
        guessed: impl Fn(&InstanceId) -> bool,
        now: Timestamp,
    ) -> u32 {
        let number = number_of_token(token);
        if launched.ordered == 0 {
            self.release(number, |id| guessed(id) && !launched.instances.iter().any(|instance| instance.id == *id));
        }
        for instance in &launched.instances {
            self.attach(&instance.id, Some(token));
        }
        let mut refused = 0;
        for (count, refusal) in &launched.refused {
            refused += self.refuse(|unit| unit.launch == number, *count, refusal, now);
        }
        if launched.ordered > 0 {
            self.order(number, now);
            return refused;
        }
        if self.units.iter().any(|unit| unit.launch == number && unit.state == UnitState::Waiting) {
            refused += self.refuse(|unit| unit.launch == number, u32::MAX, &short_answer(), now);
        }
        let first = launched.refused.first().map(|(_, refusal)| refusal.clone());
        match first {
            Some(refusal) => refused + self.refuse(|unit| unit.launch == 0, u32::MAX, &refusal, now),
            None => refused,
        }
    }

    /// A machine that was tied to a launch by guess and turned out to be another's.
    fn release(&mut self, number: u32, wrong: impl Fn(&InstanceId) -> bool) {
        for unit in self.units.iter_mut().filter(|unit| unit.launch == number) {
            if matches!(&unit.state, UnitState::Machine(id) if wrong(id)) {
                unit.state = UnitState::Waiting;
            }
        }
    }

    /// True while a launch is out whose answer is not here.
    pub(super) fn in_flight(&self) -> bool {
        self.units.iter().any(|unit| unit.launch > 0 && unit.state == UnitState::Waiting)
    }

    pub(super) fn refuse(&mut self, of: impl Fn(&Unit) -> bool, most: u32, refusal: &Refusal, now: Timestamp) -> u32 {
        let waiting = self.units.iter_mut().filter(|unit| unit.state == UnitState::Waiting && of(unit));
        let hit = waiting.take(most as usize).map(|unit| unit.state = UnitState::Refused(refusal.clone(), now));
        u32::try_from(hit.count()).unwrap_or(u32::MAX)
    }

    /// Gives up to `most` machines up that are not there, last first: those that wait, or those that were refused.
    pub(super) fn cancel(&mut self, most: u32, waiting: bool) -> u32 {
        let open = |unit: &&mut Unit| match unit.state {
            UnitState::Waiting => waiting,
            UnitState::Refused(..) => !waiting,
            UnitState::Machine(_) | UnitState::Done => false,
        };
        let given_up = self.units.iter_mut().rev().filter(open).take(most as usize);
        u32::try_from(given_up.map(|unit| unit.state = UnitState::Done).count()).unwrap_or(u32::MAX)
    }

    /// Gives up one place. `Some(true)` when it was still waiting, `Some(false)` when it was refused.
    pub(super) fn cancel_unit(&mut self, index: usize) -> Option<bool> {
        let unit = self.units.get_mut(index)?;
        let waiting = match unit.state {
            UnitState::Waiting => true,
            UnitState::Refused(..) => false,
            UnitState::Machine(_) | UnitState::Done => return None,
        };
        unit.state = UnitState::Done;
        Some(waiting)
    }

    /// A machine is gone: its place is done. True when it was one of ours.
    pub(super) fn forget(&mut self, machine: &InstanceId) -> bool {
        let unit = self.units.iter_mut().find(|unit| matches!(&unit.state, UnitState::Machine(id) if id == machine));
        unit.map(|unit| unit.state = UnitState::Done).is_some()
    }

    /// Stops showing refusals that have been shown for `long`.
    pub(super) fn expire_refused(&mut self, long: Duration, now: Timestamp) {
        for unit in &mut self.units {
            if matches!(unit.state, UnitState::Refused(_, at) if at + long <= now) {
                unit.state = UnitState::Done;
            }
        }
    }
}

pub(super) fn number_of_token(token: &str) -> u32 {
    token.split_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or(1)
}

fn short_answer() -> Refusal {
    Refusal {
        class: RefusalClass::Configuration,
        code: "incomplete-answer".to_owned(),
        message: "the cloud's answer to the launch named fewer machines than were asked for".to_owned(),
    }
}

/// The parts of a placeholder's id: group, intent, place. None for an id that is not of this form.
#[must_use]
pub fn parse_placeholder(id: &str) -> Option<(&str, &str, usize)> {
    let mut parts = id.strip_prefix(PLACEHOLDER)?.rsplitn(3, '/');
    let index = parts.next()?.parse().ok()?;
    let intent = parts.next()?;
    let group = parts.next()?;
    Some((group, intent, index))
}

#[cfg(test)]
mod tests;
