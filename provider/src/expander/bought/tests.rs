//! The purchase memory by example, and by what must hold for every history.

use proptest::prelude::*;

use super::*;
use crate::expander::Needs;

const NOW: Timestamp = Timestamp(1_000_000);

fn after(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

/// Pods of one GPU and two CPUs each, named by their uids.
fn pods(uids: &str) -> Arc<[Arc<PodAsk>]> {
    let extended = BTreeMap::from([("nvidia.com/gpu".into(), 1)]);
    let needs = Arc::new(Needs { cpu_milli: 2000, extended, ..Needs::default() });
    let pod = |uid: &str| PodAsk { uid: uid.into(), name: uid.into(), needs: needs.clone() };
    uids.split_whitespace().map(|uid| Arc::new(pod(uid))).collect()
}

/// Machines of one GPU and eight CPUs.
fn offer(group: &str, node_count: u32, uids: &str) -> Offer {
    let extended = BTreeMap::from([("nvidia.com/gpu".into(), 1)]);
    let room = packing::Room { cpu_milli: 8000, memory: 1 << 34, pods: 110, extended };
    Offer { group: group.into(), node_count, pods: pods(uids), room: Some(room) }
}

/// A pod of so many CPUs.
fn sized(place: usize, cpus: u64) -> PodAsk {
    let needs = Needs { cpu_milli: cpus * 1000, ..Needs::default() };
    PodAsk { uid: format!("p{place}").into(), name: "".into(), needs: Arc::new(needs) }
}

fn covered(bought: &Bought, uids: &str, now: Timestamp) -> String {
    let covered = uids.split_whitespace().filter(|uid| bought.cover(uid, now).is_some());
    covered.collect::<Vec<_>>().join(" ")
}

/// Asks and increases, as CA does; answers what was launched.
fn buy(bought: &mut Bought, intent: &str, offer: Offer, now: Timestamp) -> u32 {
    let (group, delta) = (offer.group.clone(), offer.node_count);
    bought.offered(vec![offer], now);
    bought.purchase(&group, intent, delta, now)
}

#[test]
fn the_same_question_again_is_wholly_covered() {
    let mut bought = Bought::default();
    assert_eq!(buy(&mut bought, "w-1", offer("spot", 2, "a b"), NOW), 2);
    assert_eq!(covered(&bought, "a b", after(10)), "a b");
    let cover = bought.cover("a", after(10)).unwrap();
    assert_eq!((cover.group.as_str(), &*cover.intent, cover.until), ("spot", "w-1", after(900)));
    assert_eq!(
        buy(&mut bought, "w-2", offer("on-demand", 2, "a b"), after(10)),
        0,
        "after a veto, nothing is launched"
    );
}

#[test]
fn only_the_difference_is_launched() {
    let mut bought = Bought::default();
    buy(&mut bought, "w-1", offer("spot", 1, "a"), NOW);
    assert_eq!(buy(&mut bought, "w-2", offer("spot", 2, "a b"), after(1)), 1);
    assert_eq!(&*bought.cover("a", after(1)).unwrap().intent, "w-1");
    assert_eq!(&*bought.cover("b", after(1)).unwrap().intent, "w-2");
}

#[test]
fn a_constraint_that_only_the_autoscaler_knows_is_respected() {
    let mut bought = Bought::default();
    let spread = |count, uids: &str| {
        let mut offer = offer("spot", count, uids);
        offer.room = Some(packing::Room { cpu_milli: 64_000, memory: 1 << 40, pods: 110, ..packing::Room::default() });
        offer
    };
    // All four would fit one machine, yet CA counted four: each needs its own.
    assert_eq!(buy(&mut bought, "w-1", spread(2, "a b"), NOW), 2);
    assert_eq!(buy(&mut bought, "w-2", spread(4, "a b c d"), after(1)), 2);
    assert_eq!(covered(&bought, "a b c d", after(1)), "a b c d");
}

#[test]
fn a_group_that_is_not_known_is_shared_out_evenly() {
    let mut bought = Bought::default();
    buy(&mut bought, "w-1", offer("spot", 1, "a"), NOW);
    assert_eq!(buy(&mut bought, "w-2", Offer { room: None, ..offer("new", 2, "a b c") }, after(1)), 2);
}

#[test]
fn a_balanced_increase_is_shared_by_the_similar_groups() {
    let mut bought = Bought::default();
    bought.offered(vec![offer("zone-a", 4, "a b c d"), offer("zone-b", 4, "a b c d")], NOW);
    assert_eq!(bought.purchase(&"zone-a".into(), "w-1", 2, NOW), 2);
    assert_eq!(covered(&bought, "a b c d", NOW), "a b");
    assert_eq!(bought.purchase(&"zone-b".into(), "w-2", 2, NOW), 2);
    assert_eq!(covered(&bought, "a b c d", NOW), "a b c d");
}

#[test]
fn more_than_the_estimate_is_the_autoscalers_own_wish() {
    let mut bought = Bought::default();
    buy(&mut bought, "w-1", offer("other", 1, "a"), NOW);
    bought.offered(vec![offer("all-or-nothing", 2, "a b")], NOW);
    assert_eq!(bought.purchase(&"all-or-nothing".into(), "w-2", 8, NOW), 7);
}

#[test]
fn an_increase_without_a_question_is_carried_out_in_full() {
    let mut bought = Bought::default();
    assert_eq!(bought.purchase(&"spot".into(), "w-1", 3, NOW), 3, "a minimum size, or another expander's choice");
    buy(&mut bought, "w-2", offer("spot", 1, "a"), NOW);
    assert_eq!(bought.purchase(&"spot".into(), "w-3", 1, NOW), 1, "the claim was consumed: this is a second increase");
    bought.offered(vec![offer("spot", 1, "a")], after(1));
    assert_eq!(bought.purchase(&"spot".into(), "w-4", 1, after(61)), 1, "the question is stale");
    bought.offered(vec![offer("spot", 1, "a"), offer("dear", 1, "a")], after(100));
    assert_eq!(bought.purchase(&"spot".into(), "w-5", 1, after(100)), 0);
    assert_eq!(bought.purchase(&"dear".into(), "w-6", 1, after(111)), 1, "no part of the same balanced increase");
}

#[test]
fn refused_machines_free_their_pods_at_once() {
    let mut bought = Bought::default();
    buy(&mut bought, "w-1", offer("spot", 3, "a b c"), NOW);
    bought.refused("w-1", 1);
    assert_eq!(covered(&bought, "a b c", NOW), "a b");
    bought.cancelled("w-1", 2);
    assert_eq!(covered(&bought, "a b c", NOW), "");
    assert_eq!(buy(&mut bought, "w-2", offer("on-demand", 3, "a b c"), after(1)), 3);
}

/// CA counts the one machine that comes for whichever pod it likes, and asks about the other.
#[test]
fn the_pod_that_is_asked_about_goes_without_when_a_machine_was_refused() {
    for (asked, other) in [("a", "b"), ("b", "a")] {
        let mut bought = Bought::default();
        assert_eq!(buy(&mut bought, "w-1", offer("spot", 2, "a b"), NOW), 2);
        bought.refused("w-1", 1);
        assert_eq!(buy(&mut bought, "w-2", offer("on-demand", 1, asked), after(1)), 1, "{asked} has no machine");
        assert_eq!(covered(&bought, "a b", after(2)), "a b", "{other} has the one that came");
        assert_eq!(buy(&mut bought, "w-3", offer("on-demand", 2, "a b"), after(2)), 0);
    }
}

#[test]
fn a_pod_still_pending_after_its_machine_settled_buys_again() {
    let mut bought = Bought::default();
    buy(&mut bought, "w-1", offer("spot", 2, "a b"), NOW);
    bought.registered("w-1", after(60));
    assert_eq!(bought.cover("a", after(61)).unwrap().until, after(900), "the other machine is still to come");
    bought.registered("w-1", after(100));
    assert_eq!(bought.cover("a", after(101)).unwrap().until, after(280));
    assert_eq!(covered(&bought, "a b", after(280)), "");
    assert_eq!(buy(&mut bought, "w-2", offer("spot", 2, "a b"), after(281)), 2);
}

#[test]
fn switched_off_it_neither_holds_nor_lowers() {
    let mut bought = Bought::new(Limits { enabled: false, ..Limits::default() });
    for intent in ["w-1", "w-2"] {
        assert_eq!(buy(&mut bought, intent, offer("spot", 2, "a b"), NOW), 2);
    }
    assert_eq!(covered(&bought, "a b", NOW), "");
}

#[test]
fn pods_made_up_by_the_autoscaler_are_never_held() {
    let mut bought = Bought::default();
    let offer = || Offer { pods: [Arc::new(PodAsk::default())].into(), ..offer("spot", 1, "") };
    assert_eq!(buy(&mut bought, "w-1", offer(), NOW), 1);
    assert_eq!(buy(&mut bought, "w-2", offer(), NOW), 1);
}

#[test]
fn what_was_bought_survives_a_restart() {
    let mut bought = Bought::default();
    buy(&mut bought, "w-1", offer("spot", 2, "a b"), NOW);
    bought.refused("w-1", 1);
    let text = serde_json::to_string(&bought).unwrap();
    let mut again: Bought = serde_json::from_str(&text).unwrap();
    assert_eq!(covered(&again, "a b", NOW), "a");
    assert_eq!(buy(&mut again, "w-2", offer("spot", 2, "a b"), after(1)), 1);
}

#[test]
fn limits_are_read_from_a_configuration() {
    let limits: Limits = serde_saphyr::from_str("enabled: true\nhold: 5m\n").unwrap();
    assert_eq!(limits, Limits { hold: Duration::from_mins(5), ..Limits::default() });
    assert!(serde_saphyr::from_str::<Limits>("holdd: 5m").is_err());
}

/// What can happen to a memory.
#[derive(Clone, Debug)]
enum Event {
    Buy { pods: Vec<u8>, machines: u32, delta: u32 },
    Refuse { intent: u8, machines: u32 },
    Register { intent: u8 },
    Wait { seconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (prop::collection::btree_set(0_u8..12, 1..6), 1_u32..6, 1_u32..6)
            .prop_map(|(pods, machines, delta)| Event::Buy { pods: pods.into_iter().collect(), machines, delta }),
        (0_u8..8, 1_u32..4).prop_map(|(intent, machines)| Event::Refuse { intent, machines }),
        (0_u8..8).prop_map(|intent| Event::Register { intent }),
        (0_u64..400).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

fn names(pods: &[u8]) -> String {
    pods.iter().map(|pod| format!("p{pod}")).collect::<Vec<_>>().join(" ")
}

proptest! {
    /// Whatever happened: a launch is never more than asked, never none for an uncovered pod, and no pod is held
    /// longer than `hold` after its last purchase or by more machines than are still to come.
    #[test]
    fn no_history_holds_a_pod_too_long(events in prop::collection::vec(event(), 1..40)) {
        let mut bought = Bought::default();
        let (mut now, mut intents) = (NOW, 0_u8);
        let mut last: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut alive: BTreeMap<String, u32> = BTreeMap::new();
        for event in events {
            match event {
                Event::Buy { pods, machines, delta } => {
                    let names = names(&pods);
                    bought.offered(vec![offer("spot", machines, &names)], now);
                    let open = pods.len() != covered(&bought, &names, now).split_whitespace().count();
                    let intent = format!("w-{intents}");
                    let launch = bought.purchase(&"spot".into(), &intent, delta, now);
                    prop_assert!(launch <= delta);
                    prop_assert_eq!(launch > 0, open);
                    for uid in names.split_whitespace() {
                        if bought.pods.get(uid).is_some_and(|(of, _)| **of == *intent) {
                            last.insert(uid.into(), now);
                        }
                    }
                    alive.insert(intent, launch);
                    intents += 1;
                }
                Event::Refuse { intent, machines } => {
                    let intent = format!("w-{intent}");
                    bought.refused(&intent, machines);
                    alive.entry(intent).and_modify(|left| *left = left.saturating_sub(machines));
                }
                Event::Register { intent } => bought.registered(&format!("w-{intent}"), now),
                Event::Wait { seconds } => now = now + Duration::from_secs(seconds),
            }
            for pod in 0..12 {
                let uid = format!("p{pod}");
                let Some(cover) = bought.cover(&uid, now) else { continue };
                prop_assert!(cover.until <= last[&uid] + Limits::default().hold);
                prop_assert!(bought.cover(&uid, cover.until).is_none());
                prop_assert!(alive[&*cover.intent] > 0, "a pod is held by an intent with no machine left");
            }
        }
    }

    /// The order of the pods in a request changes neither how many machines are launched nor which pods they hold.
    #[test]
    fn the_order_of_a_request_changes_nothing(
        (sizes, shuffled) in prop::collection::vec(1_u64..8, 1..20).prop_flat_map(|sizes| {
            let order: Vec<usize> = (0..sizes.len()).collect();
            (Just(sizes), Just(order).prop_shuffle())
        }),
        node_count in 1_u32..12, known in 0_usize..5,
    ) {
        let pod = |place: usize| Arc::new(sized(place, sizes[place]));
        let ask = |order: &mut dyn Iterator<Item = usize>| Offer { pods: order.map(pod).collect(), ..offer("spot", node_count, "") };
        let mut bought = Bought::default();
        let first: Vec<usize> = (0..known.min(sizes.len())).collect();
        buy(&mut bought, "w-0", ask(&mut first.into_iter()), NOW);
        let straight = bought.plan(&ask(&mut (0..sizes.len())), node_count, NOW);
        let other = bought.plan(&ask(&mut shuffled.into_iter()), node_count, NOW);
        prop_assert_eq!(straight, other);
    }

    /// A request repeated at once is wholly covered whenever the first increase was carried out in full.
    #[test]
    fn a_repeated_request_buys_nothing(sizes in prop::collection::vec(1_u64..8, 1..20), node_count in 1_u32..12) {
        let pods = sizes.iter().enumerate().map(|(place, size)| Arc::new(sized(place, *size)));
        let ask = Offer { pods: pods.collect(), ..offer("spot", node_count, "") };
        let mut bought = Bought::default();
        prop_assert_eq!(buy(&mut bought, "w-1", ask.clone(), NOW), node_count);
        prop_assert_eq!(buy(&mut bought, "w-2", ask, after(1)), 0);
    }
}
