//! Who is heard, and what the keeper hears of it.

use super::*;
use crate::fleet::tests::fleet;

const INTERVAL: Duration = Duration::from_secs(10);

/// A table with these agents, after a look at their name.
fn table(agents: &[&str]) -> Table {
    let mut table = Table::default();
    list(&mut table, agents);
    table
}

fn list(table: &mut Table, agents: &[&str]) {
    let agents: Vec<Arc<str>> = agents.iter().map(|agent| (*agent).into()).collect();
    table.list(agents.iter());
}

fn said(machine: Option<&str>, notices: &[NoticeKind]) -> Said {
    let notices = notices.iter().map(|kind| (*kind, None)).collect();
    Said { node: "node".to_owned(), machine: machine.map(str::to_owned), notices }
}

/// An agent says this of its machine at that second; the state it is in then, and what the keeper hears, which is noted.
fn says(
    table: &mut Table,
    agent: &str,
    machine: &str,
    notices: &[NoticeKind],
    second: u64,
) -> (State, Vec<NoticeKind>) {
    let agent: Arc<str> = agent.into();
    let (said, now) = (said(Some(machine), notices), Timestamp(second * 1000));
    let ours = said.machine(&fleet(0, 9, &["i-1", "i-2", "i-3"]), None);
    let outcome = table.heard(&agent, &said, ours, now);
    outcome.tell.iter().for_each(|notice| table.told(notice));
    (table.rows[&agent].state, outcome.tell.iter().map(|notice| notice.kind).collect())
}

use NoticeKind::{Ending, Interruption, Rebalance, Withdrawn};
use State::{Changed, Heard, Stranger, Taken};

#[test]
fn a_notice_is_told_once_and_its_withdrawal_too() {
    let mut table = table(&["a"]);
    for (notices, expect, second) in [
        ([].as_slice(), [].as_slice(), 0),
        (&[Rebalance], &[Rebalance], 10),
        (&[Rebalance, Interruption], &[Interruption], 20),
        (&[Rebalance, Interruption], &[], 30),
        (&[Ending, Interruption], &[Ending], 40),
        (&[Ending], &[], 50),
        (&[], &[Withdrawn], 60),
        (&[], &[], 70),
        (&[Interruption], &[Interruption], 80),
    ] {
        assert_eq!(says(&mut table, "a", "i-1", notices, second), (Heard, expect.to_vec()), "{second}");
    }
}

#[test]
fn what_the_keeper_did_not_take_is_told_again() {
    let mut table = table(&["a"]);
    let said = said(Some("i-1"), &[Interruption]);
    for _ in 0..2 {
        let outcome = table.heard(&"a".into(), &said, Some("i-1".into()), Timestamp(0));
        assert_eq!(outcome.tell.len(), 1);
    }
}

#[test]
fn silence_withdraws_nothing_and_neither_does_an_agent_that_has_not_looked_yet() {
    let mut table = table(&["a"]);
    assert_eq!(says(&mut table, "a", "i-1", &[Interruption], 0).1, [Interruption]);
    let outcome = table.silent("a", INTERVAL, Timestamp(10_000));
    assert_eq!(outcome, Outcome { changed: Some((Heard, State::Silent)), ..Outcome::default() });
    assert_eq!(table.silent("a", INTERVAL, Timestamp(20_000)), Outcome::default(), "told once");
    // It came up again, and the cloud has not told it yet who it is.
    let outcome = table.heard(&"a".into(), &said(None, &[]), Some("i-1".into()), Timestamp(30_000));
    assert_eq!((outcome.changed, outcome.tell), (Some((State::Silent, Heard)), vec![]));
    assert_eq!(says(&mut table, "a", "i-1", &[], 40).1, [Withdrawn]);
}

#[test]
fn only_machines_of_ours_count_and_what_is_said_of_others_is_told_once() {
    let mut table = table(&["a"]);
    let ignored =
        |table: &mut Table, kinds| table.heard(&"a".into(), &said(Some("i-9"), kinds), None, Timestamp(0)).ignored;
    assert_eq!(ignored(&mut table, &[Interruption]), [Interruption]);
    assert_eq!(ignored(&mut table, &[Interruption, Rebalance]), [Rebalance]);
    assert_eq!(ignored(&mut table, &[Interruption]), []);
    assert_eq!(table.counts()[&Stranger], 1);
    // A listing shows the machine a little later: the notice stands, and is heard.
    assert_eq!(says(&mut table, "a", "i-1", &[Interruption], 10), (Heard, vec![Interruption]));
}

#[test]
fn an_address_speaks_for_one_machine() {
    let mut table = table(&["a"]);
    assert_eq!(says(&mut table, "a", "i-1", &[], 0), (Heard, vec![]));
    for second in [10, 60, 200, 299] {
        assert_eq!(says(&mut table, "a", "i-2", &[Interruption], second), (Changed, vec![]), "{second}");
    }
    assert_eq!(
        says(&mut table, "a", "i-2", &[Interruption], 300),
        (Heard, vec![Interruption]),
        "the address is another's"
    );
    assert_eq!(says(&mut table, "a", "i-1", &[Interruption], 310), (Changed, vec![]));
}

#[test]
fn a_machine_has_one_address_that_speaks_for_it_until_that_one_is_gone() {
    let mut table = table(&["a", "b"]);
    assert_eq!(says(&mut table, "a", "i-1", &[], 0), (Heard, vec![]));
    assert_eq!(says(&mut table, "b", "i-1", &[Interruption], 1), (Taken, vec![]));
    assert_eq!(says(&mut table, "a", "i-1", &[], 10), (Heard, vec![]), "the first goes on");
    table.silent("a", INTERVAL, Timestamp(20_000));
    assert_eq!(says(&mut table, "b", "i-1", &[Interruption], 21), (Heard, vec![Interruption]), "a restarted agent");
    assert_eq!(says(&mut table, "a", "i-1", &[], 30), (Taken, vec![]));
    list(&mut table, &["a"]);
    assert_eq!(
        says(&mut table, "a", "i-1", &[Interruption], 40),
        (Heard, vec![]),
        "known of the machine, whoever told"
    );
}

#[test]
fn a_silent_agent_is_asked_more_rarely_and_after_the_others() {
    let mut table = table(&["a", "b"]);
    let due = |table: &Table, second: u64| table.due(Timestamp(second * 1000)).join(" ");
    assert_eq!(due(&table, 0), "a b");
    table.silent("a", INTERVAL, Timestamp(0));
    says(&mut table, "b", "i-1", &[], 0);
    assert_eq!((due(&table, 1), due(&table, 10)), ("b".to_owned(), "b a".to_owned()));
    table.silent("a", INTERVAL, Timestamp(10_000));
    assert_eq!((due(&table, 20), due(&table, 30)), ("b".to_owned(), "b a".to_owned()));
    for _ in 0..40 {
        table.silent("a", INTERVAL, Timestamp(30_000));
    }
    assert_eq!((due(&table, 60), due(&table, 70)), ("b".to_owned(), "b a".to_owned()));
    assert!(!table.is_lost("a", Timestamp(299_000)) && table.is_lost("a", Timestamp(300_000)));
}

#[test]
fn who_is_gone_is_forgotten() {
    let fleet = fleet(0, 5, &["i-2"]);
    let mut table = table(&["a", "b", "c"]);
    says(&mut table, "a", "i-1", &[Interruption], 0);
    says(&mut table, "b", "i-2", &[Interruption], 0);
    list(&mut table, &["c"]);
    table.forget(&fleet, Timestamp(10_000));
    assert_eq!(table.rows.len(), 3, "an address may come back");
    assert_eq!(table.told.keys().map(InstanceId::as_str).collect::<Vec<_>>(), ["i-2"]);
    table.forget(&fleet, Timestamp(300_000));
    assert_eq!((table.rows.len(), table.speakers.len()), (1, 0));
    assert_eq!(table.counts().values().sum::<usize>(), 1);
}

#[test]
fn an_end_that_is_long_over_is_none_and_one_that_is_far_away_is_brought_near() {
    let now = Timestamp(1_000_000);
    for (ends_at, expect) in [
        (Some(699_999), None),
        (Some(700_001), Some(Some(700_001))),
        (Some(1_120_000), Some(Some(1_120_000))),
        (Some(u64::MAX), Some(Some(1_600_000))),
        (None, Some(None)),
    ] {
        let notices = [(Interruption, ends_at.map(Timestamp))].into();
        let said = Said { notices, ..Said::default() };
        let found = standing(&said, now).remove(&Interruption);
        assert_eq!(found, expect.map(|at| at.map(Timestamp)), "{ends_at:?}");
    }
}
