//! The fleet through its transitions: tables for each rule.

use std::collections::BTreeMap;

use super::{
    Fleet,
    group::{Group, Instance, InstanceId, InstanceState, Market, Overrides, Refusal, RefusalClass, Shape},
    intents::IntentId,
    ledger::{Denied, Event, Named},
    listing::Reading,
    template::Dialect,
};
use crate::{
    cloud::{Launch, Launched, Listed},
    config::limits,
    timestamp::Timestamp,
};

pub(crate) fn group(id: &str, min: u32, max: u32) -> Group {
    Group {
        id: id.into(),
        min,
        max,
        market: Market::Spot,
        region: "eu-west-1".to_owned(),
        zones: vec!["eu-west-1a".to_owned()],
        shape: Shape {
            instance_type: "g5.xlarge".to_owned(),
            arch: "amd64".to_owned(),
            cpu_milli: 4000,
            memory: 16 << 30,
            ephemeral_storage: 80 << 30,
            pods: 58,
            reserved_cpu_milli: 80,
            reserved_memory: 1 << 30,
            reserved_ephemeral_storage: 0,
            extended: BTreeMap::new(),
            gpus: Some(crate::fleet::group::Gpus {
                model: "nvidia-a10g".to_owned(),
                count: 1,
                memory_mib: 24_576,
                resource: "nvidia.com/gpu".to_owned(),
            }),
        },
        labels: BTreeMap::new(),
        taints: Vec::new(),
        price_micros: Some(400_000),
        price_origin: None,
        overrides: Overrides::default(),
        warnings: Vec::new(),
    }
}

pub(crate) fn refusal() -> Refusal {
    let message = "no machine of this kind is free".to_owned();
    Refusal { class: RefusalClass::NoCapacity, code: "no-capacity".to_owned(), message }
}

pub(super) fn running(id: &str, token: Option<&str>) -> Instance {
    let token = token.map(str::to_owned);
    Instance { id: id.into(), state: InstanceState::Running, zone: "eu-west-1a".to_owned(), token }
}

/// A fleet of one group `g` with these machines.
pub(crate) fn fleet(min: u32, max: u32, ids: &[&str]) -> Fleet {
    let mut fleet = Fleet::default();
    list(&mut fleet, group("g", min, max), ids.iter().map(|id| running(id, None)).collect(), 0);
    fleet
}

pub(super) fn list(fleet: &mut Fleet, group: Group, instances: Vec<Instance>, at: u64) -> Vec<Event> {
    let (now, dialect) = (Timestamp(at), Dialect::sim());
    let reading = Reading { begun: now, now, dialect: &dialect, overrides: &BTreeMap::new() };
    fleet.listed(vec![Listed::new(group, instances)], reading)
}

fn intent(count: u64) -> IntentId {
    IntentId::new(count, Timestamp(0))
}

fn named(id: &str) -> Named {
    Named { id: id.to_owned(), fake: false }
}

pub(super) fn fake(id: &str) -> Named {
    Named { id: id.to_owned(), fake: true }
}

pub(super) fn target(fleet: &Fleet) -> u32 {
    fleet.group("g").unwrap().target
}

fn placeholders(fleet: &Fleet) -> Vec<(String, Option<String>)> {
    let view = fleet.group("g").unwrap();
    view.placeholders().map(|it| (it.id.to_string(), it.refusal.map(|refusal| refusal.code))).collect()
}

#[test]
fn an_increase_shows_at_once_and_a_machine_takes_its_place() {
    let mut fleet = fleet(0, 5, &["a"]);
    assert_eq!(fleet.may_increase("g", 2), Ok(2));
    fleet.increase("g", 2, intent(1), Timestamp(1));
    assert_eq!(target(&fleet), 3);
    let launch = fleet.next_launch("g", &intent(1), 9, Vec::new()).unwrap();
    assert_eq!((launch.count, launch.token.as_str()), (2, "w-1-0"));
    assert_eq!(fleet.next_launch("g", &intent(1), 9, Vec::new()), None);
    let answer = Launched { instances: vec![running("b", None)], refused: vec![(1, refusal())], ..Launched::default() };
    let events = fleet.launched(&launch, &answer, Timestamp(2));
    assert_eq!(events, [Event::Refused { group: "g".into(), intent: intent(1), machines: 1 }]);
    assert_eq!(target(&fleet), 3, "the refused place counts until CA has seen it");
    assert_eq!(placeholders(&fleet), [("windlass://g/w-1-0/1".to_owned(), Some("no-capacity".to_owned()))]);
    assert_eq!(fleet.group_of("b").unwrap().group.id.as_str(), "g");
    assert_eq!(fleet.group_of("windlass://g/w-1-0/1").unwrap().group.id.as_str(), "g");
    let deletion = fleet.delete("g", &[fake("windlass://g/w-1-0/1")]).unwrap();
    assert_eq!((deletion.terminate.len(), deletion.events.len(), target(&fleet)), (0, 0, 2));
    assert!(placeholders(&fleet).is_empty());
}

#[test]
fn sizes_that_make_no_sense_change_nothing() {
    let mut fleet = fleet(1, 3, &["a", "b"]);
    assert!(matches!(fleet.may_increase("x", 1), Err(Denied::UnknownGroup(_))));
    for delta in [0, -1, i32::MIN] {
        assert!(matches!(fleet.may_increase("g", delta), Err(Denied::BadDelta { .. })), "{delta}");
    }
    for delta in [2, i32::MAX] {
        assert!(matches!(fleet.may_increase("g", delta), Err(Denied::AboveMax { .. })), "{delta}");
    }
    for delta in [0, 1, i32::MAX] {
        assert!(matches!(fleet.decrease("g", delta), Err(Denied::BadDelta { .. })), "{delta}");
    }
    fleet.increase("g", 1, intent(1), Timestamp(1));
    for delta in [-2, i32::MIN] {
        assert!(matches!(fleet.decrease("g", delta), Err(Denied::BelowExisting { open: 1, .. })), "{delta}");
    }
    assert_eq!(target(&fleet), 3);
    assert_eq!(fleet.decrease("g", -1), Ok(vec![Event::Cancelled { intent: intent(1), machines: 1 }]));
    assert_eq!((target(&fleet), fleet.group("g").unwrap().instances.len()), (2, 2));
}

/// However far a group may grow, what is on its way fits into memory and into an answer.
#[test]
fn what_is_on_its_way_has_a_limit_whatever_the_maximum() {
    let (most, max) = (i32::try_from(limits::ON_THE_WAY).unwrap(), 1_000_000);
    let mut fleet = fleet(0, max, &["a"]);
    for delta in [most + 1, 999_999] {
        assert!(matches!(fleet.may_increase("g", delta), Err(Denied::TooMany { open: 0, .. })), "{delta}");
    }
    let count = fleet.may_increase("g", most).unwrap();
    fleet.increase("g", count, intent(1), Timestamp(1));
    assert!(matches!(fleet.may_increase("g", 1), Err(Denied::TooMany { open: limits::ON_THE_WAY, .. })));
    fleet.next_launch("g", &intent(1), u32::MAX, Vec::new()).unwrap();
    let came = (0..10).map(|place| running(&format!("b{place}"), Some("w-1-0"))).collect();
    list(&mut fleet, group("g", 0, max), came, 2);
    assert_eq!((fleet.may_increase("g", 10), target(&fleet)), (Ok(10), limits::ON_THE_WAY));
}

#[test]
fn deletion_is_exact_idempotent_and_whole() {
    let mut fleet = fleet(1, 5, &["a", "b", "c"]);
    for nodes in [vec![named("a"), named("foreign")], vec![named("a"), named("windlass://other/w-1-0/0")]] {
        assert!(matches!(fleet.delete("g", &nodes), Err(Denied::Foreign { .. })));
    }
    assert!(matches!(fleet.delete("g", &[named("a"), named("b"), named("c")]), Err(Denied::BelowMin { .. })));
    assert_eq!(target(&fleet), 3);
    let deletion = fleet.delete("g", &[named("a"), named("a")]).unwrap();
    assert_eq!(deletion.terminate, ["a".into()]);
    assert_eq!(target(&fleet), 2);
    assert!(fleet.delete("g", &[named("a")]).unwrap().terminate.is_empty(), "ending already");
    list(&mut fleet, group("g", 1, 5), vec![running("b", None), running("c", None)], 1);
    assert!(fleet.delete("g", &[named("a")]).unwrap().terminate.is_empty(), "gone already");
    assert_eq!(target(&fleet), 2);
    assert_eq!(fleet.delete("g", &[fake("b"), fake("c")]).unwrap().terminate.len(), 2, "fakes may break the minimum");
    assert_eq!(target(&fleet), 0);
    fleet.spared("g", &["b".into()]);
    assert_eq!(target(&fleet), 1);
}

#[test]
fn a_listing_that_runs_ahead_of_the_answer_counts_nothing_twice() {
    for token in [Some("w-1-0"), None] {
        let mut fleet = fleet(0, 5, &[]);
        fleet.increase("g", 2, intent(1), Timestamp(1));
        let launch = fleet.next_launch("g", &intent(1), 9, Vec::new()).unwrap();
        list(&mut fleet, group("g", 0, 5), vec![running("b", token)], 2);
        assert_eq!(target(&fleet), 2, "{token:?}");
        let answer = Launched {
            instances: vec![running("b", token), running("c", token)],
            refused: vec![],
            ..Launched::default()
        };
        fleet.launched(&launch, &answer, Timestamp(3));
        assert_eq!((target(&fleet), placeholders(&fleet).len()), (2, 0));
        list(&mut fleet, group("g", 0, 5), vec![running("b", token)], 4);
        assert_eq!(target(&fleet), 2, "a list may lag behind the answer");
        list(&mut fleet, group("g", 0, 5), vec![running("b", token), running("c", token)], 5);
        let events = list(&mut fleet, group("g", 0, 5), vec![running("b", token)], 6);
        assert_eq!((target(&fleet), events), (2, vec![]), "and behind the list before it");
        let events = list(&mut fleet, group("g", 0, 5), vec![running("b", token)], 60_000);
        assert_eq!((target(&fleet), events), (1, vec![Event::Cancelled { intent: intent(1), machines: 1 }]));
    }
}

#[test]
fn a_machine_that_was_there_before_the_launch_did_not_come_of_it() {
    let mut fleet = fleet(0, 5, &["old"]);
    fleet.increase("g", 1, intent(1), Timestamp(1));
    fleet.next_launch("g", &intent(1), 9, Vec::new()).unwrap();
    list(&mut fleet, group("g", 0, 5), vec![running("old", None)], 2);
    assert_eq!((target(&fleet), placeholders(&fleet).len()), (2, 1));
}

#[test]
fn a_machine_tied_by_guess_is_let_go_when_the_answer_names_another() {
    let mut fleet = fleet(0, 5, &[]);
    fleet.increase("g", 1, intent(1), Timestamp(1));
    let launch = fleet.next_launch("g", &intent(1), 9, Vec::new()).unwrap();
    list(&mut fleet, group("g", 0, 5), vec![running("stranger", None)], 2);
    assert_eq!(target(&fleet), 1);
    fleet.launched(
        &launch,
        &Launched { instances: vec![running("mine", None)], refused: vec![], ..Launched::default() },
        Timestamp(3),
    );
    assert_eq!(target(&fleet), 2);
    assert_eq!(fleet.overdue(Timestamp(9)), [("g".into(), vec!["mine".into()])], "a stranger is not ours to end");
}

#[test]
fn a_refused_probe_ends_what_was_to_follow_it() {
    let mut fleet = fleet(0, 9, &[]);
    fleet.increase("g", 4, intent(1), Timestamp(1));
    let probe = fleet.next_launch("g", &intent(1), 1, Vec::new()).unwrap();
    assert_eq!(probe.count, 1);
    let events = fleet.refused(&probe, refusal(), Timestamp(2));
    assert_eq!(events, [Event::Refused { group: "g".into(), intent: intent(1), machines: 4 }]);
    assert_eq!(fleet.next_launch("g", &intent(1), 9, Vec::new()), None);
    fleet.expire(Timestamp(60_000));
    assert_eq!(target(&fleet), 4);
    fleet.expire(Timestamp(122_000));
    assert_eq!((target(&fleet), fleet.group("g").unwrap().intents.len()), (0, 0));
}

#[test]
fn a_restart_goes_on_where_the_last_process_ended() {
    let mut before = fleet(0, 9, &["a", "b"]);
    before.increase("g", 3, intent(1), Timestamp(1));
    let launch = before.next_launch("g", &intent(1), 2, Vec::new()).unwrap();
    before.delete("g", &[named("a")]).unwrap();
    let saved = serde_json::to_string(&before.saved()).unwrap();
    let mut after = Fleet::restore(serde_json::from_str(&saved).unwrap());
    list(&mut after, group("g", 0, 9), vec![running("a", None), running("b", None), running("n", Some("w-1-0"))], 5);
    assert_eq!(target(&after), 4);
    let again = &after.unanswered()[0];
    assert_eq!((again.group.as_str(), again.count, &again.token), ("g", 2, &launch.token));
    assert_eq!(again.wanted.outstanding, 1, "one of them has come meanwhile");
    assert_eq!(after.next_launch("g", &intent(1), 9, Vec::new()).unwrap().token, "w-1-0.2");
    assert_eq!(after.doomed(), [("g".into(), vec!["a".into()])]);
    let mut later = Fleet::restore(serde_json::from_str(&saved).unwrap());
    list(&mut later, group("g", 0, 9), vec![running("b", None)], 5);
    assert_eq!(later.delete("g", &[named("a")]).unwrap().terminate, [], "gone while nobody looked");
    assert!(later.saved().doomed.is_empty());
}

#[test]
fn a_machine_is_seen_once_and_overdue_until_then() {
    let mut fleet = fleet(0, 9, &["old"]);
    fleet.increase("g", 1, intent(1), Timestamp(1));
    let launch = fleet.next_launch("g", &intent(1), 9, Vec::new()).unwrap();
    fleet.launched(
        &launch,
        &Launched { instances: vec![running("n", None)], refused: vec![], ..Launched::default() },
        Timestamp(2),
    );
    assert_eq!(fleet.overdue(Timestamp(1)), []);
    assert_eq!(fleet.overdue(Timestamp(2)), [("g".into(), vec!["n".into()])], "what others made is never reaped");
    let news = Event::Registered { group: "g".into(), intent: Some(intent(1)) };
    assert_eq!(fleet.seen("n", Timestamp(3)), Some(news));
    assert_eq!((fleet.seen("n", Timestamp(4)), fleet.seen("nobody", Timestamp(4))), (None, None));
    assert_eq!(fleet.overdue(Timestamp(9)), []);
}

mod story;
