//! The page as text: what a person must be able to find on it.

use super::*;
use crate::{
    expander::{Choice, PodAsk, choose, priority::Priorities},
    fleet::{
        group::{Refusal, RefusalClass},
        intents::IntentId,
        offering::Offerings,
    },
    snapshot::scenario::{TWINS, fleet},
};

const NOW: Timestamp = Timestamp(1_795_355_102_000);

fn snapshot() -> Snapshot {
    let mut fleet = fleet(TWINS, NOW);
    fleet.increase("spot-a10g", 2, IntentId::new(1, NOW), NOW);
    let mut offerings = Offerings::default();
    let message = "no spot capacity".to_owned();
    let refusal = Refusal { class: RefusalClass::NoCapacity, code: "stock-out".to_owned(), message };
    let group = fleet.group("spot-a10g").unwrap().group.clone();
    offerings.note_refusal(&group, None, &refusal, NOW);
    Snapshot { fleet: Arc::new(fleet), offerings: Arc::new(offerings), synced_at: Some(NOW), ..Snapshot::default() }
}

fn decision(snapshot: &Snapshot) -> Arc<Decision> {
    let pods: Arc<[Arc<PodAsk>]> = [Arc::new(PodAsk { uid: "u".into(), ..PodAsk::default() })].into();
    let choices: Vec<_> = snapshot
        .fleet
        .groups()
        .map(|it| Choice {
            id: it.group.id.clone(),
            group: Some(&it.group),
            shunned: None,
            refusing: Vec::new(),
            node_count: 1,
            pods: pods.clone(),
        })
        .collect();
    Arc::new(choose(&choices, &snapshot.bought, &Policy::default(), NOW))
}

#[track_caller]
fn check(page: &str, finds: &[&str]) {
    for text in finds {
        assert!(page.contains(text), "{text} is not on the page:\n{page}");
    }
}

#[test]
fn groups_and_decisions_are_shown_with_their_reasons() {
    let snapshot = snapshot();
    let decisions = [decision(&snapshot)];
    let policy = Policy::default();
    let page = render(&View {
        snapshot: &snapshot,
        policy: &policy,
        decisions: &decisions,
        pending: &[],
        unlabelled: &unlabelled::Counts::new(),
        now: NOW + Duration::from_secs(5),
    });
    check(
        &page,
        &[
            "<b>spot-a10g</b>",
            "zone-a b",
            "1 × nvidia-a10g, 24 GiB",
            "$0.40",
            "2 <small>of 0–8</small>",
            "left alone for 55 s: stock-out: no spot capacity",
            "<b>spot-a10g</b> +1 for 1 pod <small>by priority</small>",
            "<code>priority</code> spot first, and this is on-demand",
            "2026-11-22 13:45:07 UTC",
            "5 s ago",
        ],
    );
    assert!(page.contains("od-&lt;a10g&gt;") && !page.contains("<a10g>"), "foreign text is escaped");
    assert!(!page.contains("banner") || !page.contains("class=\"banner"), "nothing to warn of");
}

#[test]
fn before_the_first_listing_the_page_says_what_is_awaited() {
    let (snapshot, policy) = (Snapshot::default(), Policy::default());
    let pending = ["the first listing of the cloud".to_owned()];
    let page = render(&View {
        snapshot: &snapshot,
        policy: &policy,
        decisions: &[],
        pending: &pending,
        unlabelled: &unlabelled::Counts::new(),
        now: NOW,
    });
    check(
        &page,
        &[
            "has not been listed yet",
            "Still waiting for: the first listing",
            "No groups.",
            "None yet.",
            "--expander=grpc",
        ],
    );
}

#[test]
fn what_is_old_or_upside_down_is_said_at_the_top() {
    let snapshot = snapshot();
    let list = Priorities::parse("10: [spot]\n50: [od]", "list").unwrap();
    let policy = Policy { priorities: Some(Arc::new(list)), ..Policy::default() };
    let page = render(&View {
        snapshot: &snapshot,
        policy: &policy,
        decisions: &[],
        pending: &[],
        unlabelled: &unlabelled::Counts::new(),
        now: NOW + Duration::from_mins(10),
    });
    check(
        &page,
        &[
            "<b>Stale.</b>",
            "10 min ago",
            "<b>Priority list.</b> on-demand (od-&lt;a10g&gt;: 50) ranks above spot (spot-a10g: 10)",
        ],
    );
}
