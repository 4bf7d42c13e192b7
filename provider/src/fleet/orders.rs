//! Orders that a cloud carries out by itself: it was told how many machines there are to be and goes on trying, long
//! after CA was told that they will not come. What arrives then is put to use or given back, and never forgotten.

use std::time::Duration;

use crate::{
    cloud::{Launch, Standing},
    fleet::{
        Fleet, GroupView, InstanceView,
        group::{InstanceId, InstanceState, Refusal, RefusalClass},
        intents::{Intent, IntentId, Unit, UnitState, number_of_token},
        ledger::Event,
        listing::Reading,
    },
    timestamp::Timestamp,
};

/// What a listing says about orders is believed when they are older than this: clouds' lists lag behind their answers.
const LAG: Duration = Duration::from_secs(60);

impl Intent {
    /// How many the cloud tries to bring by itself that are still wanted.
    #[must_use]
    pub fn ordered(&self) -> u32 {
        self.count(|unit| unit.standing && unit.state == UnitState::Waiting)
    }

    /// How many it tries to bring though nobody counts on them any more.
    #[must_use]
    pub fn owed(&self) -> u32 {
        self.count(|unit| unit.standing && matches!(unit.state, UnitState::Refused(..) | UnitState::Done))
    }

    /// How many are asked for and have not come.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.count(|unit| unit.launch > 0 && unit.state == UnitState::Waiting)
    }

    /// A machine that nobody waits for any more: it takes a place that the cloud went on trying to fill, one that is
    /// still shown as refused before one that was given up. `Some(true)` in the second case.
    pub(super) fn attach_late(&mut self, machine: &InstanceId) -> Option<bool> {
        let rank = |unit: &Unit| match unit.state {
            UnitState::Refused(..) if unit.standing => Some(false),
            UnitState::Done if unit.standing => Some(true),
            _ => None,
        };
        let best = self.units.iter_mut().filter_map(|unit| rank(unit).map(|rank| (rank, unit))).min_by_key(|it| it.0);
        best.map(|(given_up, unit)| {
            unit.state = UnitState::Machine(machine.clone());
            given_up
        })
    }

    /// The cloud said that it tries for `most` fewer machines of those nobody counts on.
    pub(super) fn forgive(&mut self, most: u32) -> u32 {
        let owed = |unit: &&mut Unit| unit.standing && matches!(unit.state, UnitState::Refused(..) | UnitState::Done);
        let forgiven = self.units.iter_mut().filter(owed).take(most as usize).map(|unit| unit.standing = false);
        u32::try_from(forgiven.count()).unwrap_or(u32::MAX)
    }

    /// The cloud does not try for these any more; how many that are.
    pub(super) fn take_back(&mut self, most: u32, refusal: &Refusal, now: Timestamp) -> u32 {
        self.refuse(|unit| unit.standing, most, refusal, now)
    }

    /// What the cloud tries to bring by itself will not come soon, and what was to follow it is not asked for.
    pub(super) fn refuse_ordered(&mut self, refusal: &Refusal, now: Timestamp) -> u32 {
        if self.ordered() == 0 {
            return 0;
        }
        self.refuse(|unit| unit.standing || unit.launch == 0, u32::MAX, refusal, now)
    }

    /// The cloud took a launch as an order of its own. What was given up meanwhile is part of that order too.
    pub(super) fn order(&mut self, number: u32, now: Timestamp) {
        let part =
            |unit: &&mut Unit| unit.launch == number && matches!(unit.state, UnitState::Waiting | UnitState::Done);
        self.units.iter_mut().filter(part).for_each(|unit| unit.standing = true);
        self.ordered_at = Some(now);
    }

    /// A launch whose fate nobody could learn is given up; its machines may come all the same.
    pub(super) fn unheard(&mut self, token: &str, refusal: &Refusal, now: Timestamp) -> u32 {
        let number = number_of_token(token);
        self.order(number, now);
        self.refuse(|unit| unit.launch == number || unit.launch == 0, u32::MAX, refusal, now)
    }
}

impl Fleet {
    /// A launch that has no answer, as it is to be asked once more: the same, with what there is now to reckon with.
    #[must_use]
    pub fn repeat(&self, launch: &Launch) -> Launch {
        let again = self.group(launch.group.as_str()).and_then(|view| {
            let id = IntentId::of_token(&launch.token);
            let launch = view.intents.iter().find(|intent| intent.id == id)?.repeat(&launch.token)?;
            Some(Launch { wanted: view.wanted(), ..launch })
        });
        again.unwrap_or_else(|| Launch { again: true, ..launch.clone() })
    }

    /// A launch whose fate could not be learned: told as refused, and its machines are known for ours if they come.
    pub fn unheard(&mut self, launch: &Launch, refusal: &Refusal, now: Timestamp) -> Vec<Event> {
        let id = IntentId::of_token(&launch.token);
        let refused = self.change(launch.group.as_str(), |view| {
            view.intent_mut(&id).map_or(0, |intent| intent.unheard(&launch.token, refusal, now))
        });
        let refused = refused.filter(|machines| *machines > 0);
        let event = refused.map(|machines| Event::Refused { group: launch.group.clone(), intent: id, machines });
        event.into_iter().collect()
    }
}

/// A new machine that no launch waits for. It came of an order that was told as refused: then it takes the place that CA
/// still sees; or of one that was given up: then it is ended before it becomes a Node, unless it may be one already.
pub(super) fn late(view: &mut GroupView, instance: &mut InstanceView, watched: bool) -> Option<Event> {
    let owing = |intent: &&mut Intent| intent.owed() > 0;
    let refused_first = |intent: &&mut Intent| intent.refused() == 0;
    let intent = view.intents.iter_mut().filter(owing).min_by_key(refused_first)?;
    let given_up = intent.attach_late(&instance.id)?;
    instance.intent = Some(intent.id.clone());
    if !(given_up && watched && instance.state == InstanceState::Creating) {
        return None;
    }
    (instance.doomed, instance.returned) = (true, true);
    Some(Event::Late { group: view.group.id.clone(), machine: instance.id.clone() })
}

/// Brings the ledger in line with what the cloud says it still tries to bring.
pub(super) fn settle(view: &mut GroupView, standing: Option<&Standing>, reading: Reading<'_>, events: &mut Vec<Event>) {
    let open = standing.map_or(0, |standing| standing.open);
    let ordered = view.ordered();
    let group = view.group.id.clone();
    let refused = |intent: &Intent, machines: u32| {
        (machines > 0).then(|| Event::Refused { group: group.clone(), intent: intent.id.clone(), machines })
    };
    let mut lost = ordered.saturating_sub(open);
    for intent in view.intents.iter_mut().filter(|intent| is_older(intent, reading.begun, LAG)) {
        let machines = intent.take_back(lost, &taken_back(), reading.now);
        lost -= machines;
        events.extend(refused(intent, machines));
    }
    if let Some(refusal) = standing.and_then(|standing| standing.refusal.as_ref()) {
        for intent in view.intents.iter_mut().filter(|intent| is_older(intent, reading.begun, Duration::ZERO)) {
            let machines = intent.refuse_ordered(refusal, reading.now);
            events.extend(refused(intent, machines));
        }
    }
    // What the cloud wants beyond what we wait for, is what we once asked for and gave up; no more than that.
    let ordered = view.ordered();
    let mut forgiven = view.owed().saturating_sub(open.saturating_sub(ordered));
    for intent in view.intents.iter_mut().filter(|intent| is_older(intent, reading.begun, LAG)) {
        forgiven -= intent.forgive(forgiven);
    }
}

fn is_older(intent: &Intent, begun: Timestamp, age: Duration) -> bool {
    intent.ordered_at.is_some_and(|at| at + age <= begun)
}

fn taken_back() -> Refusal {
    Refusal {
        class: RefusalClass::Configuration,
        code: "OrderTakenBack".to_owned(),
        message: "the group's desired count is lower than what was ordered; someone else lowered it".to_owned(),
    }
}

#[cfg(test)]
mod tests;
