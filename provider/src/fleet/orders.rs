//! Orders that a cloud carries out by itself: it was told how many machines there are to be and goes on trying, long
//! after CA was told that they will not come. What arrives then is put to use or given back, and never forgotten.

use std::time::Duration;

use crate::{
    cloud::Standing,
    fleet::{
        GroupView, InstanceView,
        group::{InstanceState, Refusal, RefusalClass},
        intents::Intent,
        ledger::Event,
        listing::Reading,
    },
    timestamp::Timestamp,
};

/// What a listing says about orders is believed when they are older than this: clouds' lists lag behind their answers.
const LAG: Duration = Duration::from_secs(60);

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
    instance.doomed = true;
    Some(Event::Late { group: view.group.id.clone(), machine: instance.id.clone() })
}

/// Brings the ledger in line with what the cloud says it still tries to bring.
pub(super) fn settle(view: &mut GroupView, standing: Option<&Standing>, reading: Reading<'_>, events: &mut Vec<Event>) {
    let open = standing.map_or(0, |standing| standing.open);
    let ordered: u32 = view.intents.iter().map(Intent::ordered).sum();
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
    let ordered: u32 = view.intents.iter().map(Intent::ordered).sum();
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
