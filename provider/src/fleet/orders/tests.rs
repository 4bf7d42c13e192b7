//! Orders that a cloud carries out by itself, from the wish to the machine that comes too late.

use std::collections::BTreeMap;

use super::*;
use crate::{
    cloud::{Launched, Listed},
    fleet::{
        group::Instance,
        ledger::Named,
        template::Dialect,
        tests::{fake, group, refusal, running, target},
    },
};

/// A group `g` of machine `a`, with an order for `count` more, taken at 1,000.
fn ordered(count: u32) -> Fleet {
    let mut fleet = Fleet::default();
    list(&mut fleet, &["a"], 0, None, 0);
    fleet.increase("g", count, IntentId::new(1, Timestamp(0)), Timestamp(1));
    let launch = fleet.next_launch("g", &IntentId::new(1, Timestamp(0)), u32::MAX, Vec::new()).unwrap();
    assert_eq!((launch.wanted.outstanding, launch.wanted.live.len()), (count, 1));
    let answer = Launched { ordered: count, ..Launched::default() };
    assert_eq!(fleet.launched(&launch, &answer, Timestamp(1_000)), []);
    fleet
}

/// A listing of these machines, the new ones pending, with `open` more that the cloud tries for.
fn list(fleet: &mut Fleet, ids: &[&str], open: u32, why: Option<Refusal>, at: u64) -> Vec<Event> {
    let state = |id: &str| if id == "a" { InstanceState::Running } else { InstanceState::Creating };
    let instances = ids.iter().map(|id| Instance { state: state(id), ..running(id, None) }).collect();
    let standing = Some(Standing { open, refusal: why, zones: Vec::new() });
    let (now, dialect) = (Timestamp(at), Dialect::aws());
    let reading = Reading { begun: now, now, dialect: &dialect, overrides: &BTreeMap::new() };
    fleet.listed(vec![Listed { group: group("g", 0, 9), instances, standing }], reading)
}

fn shown(fleet: &Fleet) -> Vec<Named> {
    fleet.group("g").unwrap().placeholders().map(|it| fake(it.id.as_str())).collect()
}

fn late(machine: &str) -> Vec<Event> {
    vec![Event::Late { group: "g".into(), machine: machine.into() }]
}

#[test]
fn machines_of_an_order_take_its_places_and_what_is_refused_is_the_rest() {
    let mut fleet = ordered(3);
    assert_eq!(list(&mut fleet, &["a", "b"], 2, None, 2_000), []);
    assert_eq!((target(&fleet), fleet.group("g").unwrap().waiting()), (4, 2));
    let events = list(&mut fleet, &["a", "b"], 2, Some(refusal()), 3_000);
    let intent = IntentId::new(1, Timestamp(0));
    assert_eq!(events, [Event::Refused { group: "g".into(), intent, machines: 2 }]);
    assert_eq!((target(&fleet), fleet.group("g").unwrap().owed()), (4, 2));
    assert_eq!(list(&mut fleet, &["a", "b"], 2, Some(refusal()), 4_000), [], "told once");
}

#[test]
fn a_refusal_from_before_the_order_is_none_of_its() {
    let mut fleet = ordered(1);
    assert_eq!(list(&mut fleet, &["a"], 1, Some(refusal()), 999), []);
    assert_eq!(fleet.group("g").unwrap().waiting(), 1);
}

#[test]
fn a_late_machine_takes_a_refused_place_and_else_goes_back_once() {
    let mut fleet = ordered(2);
    list(&mut fleet, &["a"], 2, Some(refusal()), 2_000);
    let places = shown(&fleet);
    fleet.delete("g", &places[..1]).unwrap();
    assert_eq!(list(&mut fleet, &["a", "b"], 1, None, 3_000), [], "one place is still shown");
    assert_eq!((target(&fleet), shown(&fleet).len()), (2, 0));
    assert_eq!(list(&mut fleet, &["a", "b", "c"], 0, None, 4_000), late("c"));
    assert_eq!((target(&fleet), fleet.group("g").unwrap().owed()), (2, 0));
    assert_eq!(list(&mut fleet, &["a", "b", "c", "d"], 0, None, 5_000), [], "this one somebody else wanted");
    assert_eq!(target(&fleet), 3);
}

/// The cloud may be long in ending it: what became a Node meanwhile has pods.
#[test]
fn a_machine_given_back_that_becomes_a_node_first_counts_again() {
    let mut fleet = ordered(1);
    list(&mut fleet, &["a"], 1, None, 2_000);
    fleet.decrease("g", -1).unwrap();
    assert_eq!(list(&mut fleet, &["a", "b"], 0, None, 3_000), late("b"));
    assert_eq!(target(&fleet), 1);
    let mut next = Fleet::restore(fleet.saved());
    for fleet in [&mut fleet, &mut next] {
        list(fleet, &["a", "b"], 0, None, 4_000);
        assert_eq!((fleet.returned("a"), fleet.returned("b")), (None, Some("g".into())));
        fleet.spared("g", &["b".into()]);
        list(fleet, &["a", "b"], 0, None, 5_000);
        assert_eq!((target(fleet), fleet.doomed().len(), fleet.returned("b")), (2, 0, None));
    }
}

#[test]
fn a_machine_that_may_be_a_node_by_now_is_kept() {
    for at in [47_001, 200_000] {
        let mut fleet = ordered(1);
        list(&mut fleet, &["a"], 1, None, 2_000);
        assert_eq!(fleet.decrease("g", -1).unwrap().len(), 1);
        assert_eq!(list(&mut fleet, &["a", "b"], 0, None, at), [], "nobody looked for a while");
        assert_eq!(target(&fleet), 2);
    }
}

#[test]
fn what_was_given_up_while_it_was_asked_for_is_known_when_it_comes() {
    let mut fleet = Fleet::default();
    list(&mut fleet, &["a"], 0, None, 0);
    fleet.increase("g", 1, IntentId::new(1, Timestamp(0)), Timestamp(1));
    let launch = fleet.next_launch("g", &IntentId::new(1, Timestamp(0)), 9, Vec::new()).unwrap();
    fleet.decrease("g", -1).unwrap();
    assert_eq!(fleet.repeat(&launch).wanted.outstanding, 0, "asked again, it asks for nothing");
    fleet.launched(&launch, &Launched { ordered: 1, ..Launched::default() }, Timestamp(1_000));
    assert_eq!(list(&mut fleet, &["a", "b"], 0, None, 2_000), late("b"));
}

#[test]
fn a_launch_whose_fate_nobody_learned_is_refused_and_its_machine_known_all_the_same() {
    for (seen, events, left) in [(true, late("b"), 1), (false, vec![], 2)] {
        let mut fleet = Fleet::default();
        list(&mut fleet, &["a"], 0, None, 0);
        fleet.increase("g", 1, IntentId::new(1, Timestamp(0)), Timestamp(1));
        let launch = fleet.next_launch("g", &IntentId::new(1, Timestamp(0)), 9, Vec::new()).unwrap();
        assert_eq!(fleet.unheard(&launch, &refusal(), Timestamp(1_000)).len(), 1);
        if seen {
            fleet.delete("g", &shown(&fleet)).unwrap();
        }
        assert_eq!(list(&mut fleet, &["a", "b"], 0, None, 2_000), events);
        assert_eq!(target(&fleet), left);
    }
}

/// The one that is asked for once more after a restart stands beside the one that was given up, and takes nothing of it.
#[test]
fn after_a_restart_an_order_is_known_to_have_been_given() {
    let mut fleet = ordered(1);
    fleet.decrease("g", -1).unwrap();
    let second = IntentId::new(2, Timestamp(0));
    fleet.increase("g", 1, second.clone(), Timestamp(2_000));
    let launch = fleet.next_launch("g", &second, 9, Vec::new()).unwrap();
    fleet.launched(&launch, &Launched { ordered: 1, ..Launched::default() }, Timestamp(3_000));
    let mut next = Fleet::restore(fleet.saved());
    list(&mut next, &["a"], 2, None, 4_000);
    let [launch] = &next.unanswered()[..] else { panic!("one is waited for") };
    assert!(launch.again && !Launch::new("g".into(), 1, String::new()).again);
    next.launched(launch, &Launched { ordered: 1, ..Launched::default() }, Timestamp(5_000));
    assert_eq!(next.group("g").unwrap().owed(), 1);
    assert_eq!(list(&mut next, &["a", "b", "c"], 0, None, 6_000), late("c"));
}

/// Spot may be short for hours, and the provider be restarted meanwhile.
#[test]
fn an_order_that_stands_for_hours_outlives_the_process() {
    let mut fleet = ordered(1);
    list(&mut fleet, &["a"], 1, Some(refusal()), 2_000);
    fleet.delete("g", &shown(&fleet)).unwrap();
    let mut next = Fleet::restore(fleet.saved());
    let hours = 3 * 3_600_000;
    next.expire(Timestamp(hours));
    list(&mut next, &["a"], 1, Some(refusal()), hours);
    next.expire(Timestamp(hours));
    assert_eq!(next.group("g").unwrap().owed(), 1);
    assert_eq!(list(&mut next, &["a", "b"], 0, None, hours + 2_000), late("b"));
}

#[test]
fn an_order_that_someone_took_back_is_refused_in_time() {
    let mut fleet = ordered(2);
    assert_eq!(list(&mut fleet, &["a"], 0, None, 60_000), [], "lists lag");
    list(&mut fleet, &["a"], 0, None, 61_001);
    let refused: Vec<_> =
        fleet.group("g").unwrap().placeholders().filter_map(|it| it.refusal).map(|it| it.code).collect();
    assert_eq!(refused, ["OrderTakenBack", "OrderTakenBack"]);
    assert_eq!(fleet.group("g").unwrap().owed(), 0, "and nothing of it can come");
}

#[test]
fn an_order_taken_over_is_not_counted_twice() {
    let mut fleet = ordered(1);
    fleet.decrease("g", -1).unwrap();
    assert_eq!(fleet.group("g").unwrap().owed(), 1);
    let second = IntentId::new(2, Timestamp(0));
    fleet.increase("g", 1, second.clone(), Timestamp(2_000));
    let launch = fleet.next_launch("g", &second, 9, Vec::new()).unwrap();
    fleet.launched(&launch, &Launched { ordered: 1, reused: 1, ..Launched::default() }, Timestamp(3_000));
    assert_eq!((fleet.group("g").unwrap().owed(), target(&fleet)), (0, 2));
    assert_eq!(list(&mut fleet, &["a", "b"], 0, None, 4_000), []);
    assert_eq!((target(&fleet), shown(&fleet).len()), (2, 0));
}

#[test]
fn a_machine_that_a_lagging_list_shows_once_more_is_not_a_new_one() {
    let mut fleet = ordered(1);
    list(&mut fleet, &["a", "b"], 0, None, 2_000);
    fleet.increase("g", 1, IntentId::new(2, Timestamp(0)), Timestamp(2_500));
    fleet.next_launch("g", &IntentId::new(2, Timestamp(0)), 9, Vec::new()).unwrap();
    fleet.delete("g", &[fake("b")]).unwrap();
    list(&mut fleet, &["a"], 0, None, 3_000);
    list(&mut fleet, &["a", "b"], 0, None, 4_000);
    let view = fleet.group("g").unwrap();
    assert!(view.instance("b").unwrap().doomed, "it is still on its way out");
    assert_eq!((view.target, view.waiting()), (2, 1), "and took nobody's place");
}
