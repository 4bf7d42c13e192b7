//! Machines that are announced to leave.

use super::*;
use crate::fleet::tests::{fake, fleet, group, list, running, target};

fn notice(machine: &str, kind: NoticeKind) -> Notice {
    Notice { machine: machine.to_owned(), kind, ends_at: None }
}

#[test]
fn a_machine_that_is_taken_back_leaves_the_target_at_once_and_is_ended_just_before() {
    for name in ["aws:///eu-west-1a/i-1", "i-1"] {
        let mut fleet = fleet(0, 5, &["aws:///eu-west-1a/i-1", "aws:///eu-west-1a/i-2"]);
        let told = fleet.noticed(&notice(name, NoticeKind::Interruption), Timestamp(1_000));
        assert_eq!(told.map(|it| it.1), Some("aws:///eu-west-1a/i-1".into()), "{name}");
        assert_eq!(target(&fleet), 1);
        assert_eq!(fleet.noticed(&notice(name, NoticeKind::Interruption), Timestamp(2_000)), None, "known");
        assert_eq!(fleet.take_leave(Timestamp(100_000)).0, []);
        let (due, _) = fleet.take_leave(Timestamp(111_000));
        assert_eq!(due, [("g".into(), vec!["aws:///eu-west-1a/i-1".into()])]);
        assert_eq!(fleet.take_leave(Timestamp(112_000)).0, [], "once");
        assert_eq!(fleet.doomed(), due, "and again by the next process");
        let deletion = fleet.delete("g", &[fake("aws:///eu-west-1a/i-1")]).unwrap();
        assert_eq!((deletion.terminate.len(), target(&fleet)), (0, 1), "it is on its way");
    }
}

#[test]
fn a_machine_that_goes_down_is_left_to_the_group() {
    let mut fleet = fleet(0, 5, &["i-1"]);
    assert!(fleet.noticed(&notice("i-1", NoticeKind::Ending), Timestamp(1_000)).is_some());
    assert_eq!((target(&fleet), fleet.take_leave(Timestamp(9_000)).0), (0, vec![]));
}

#[test]
fn a_hint_that_may_come_to_nothing_changes_nothing() {
    let mut fleet = fleet(0, 5, &["i-1"]);
    assert_eq!(fleet.noticed(&notice("i-1", NoticeKind::Rebalance), Timestamp(1)), None);
    assert_eq!(fleet.noticed(&notice("i-9", NoticeKind::Interruption), Timestamp(1)), None);
    assert_eq!(target(&fleet), 1);
}

#[test]
fn what_was_announced_outlives_the_process() {
    let mut before = fleet(0, 5, &["i-1", "i-2"]);
    before.noticed(&notice("i-1", NoticeKind::Interruption), Timestamp(1_000));
    let saved = serde_json::to_string(&before.saved()).unwrap();
    let mut after = Fleet::restore(serde_json::from_str(&saved).unwrap());
    list(&mut after, group("g", 0, 5), vec![running("i-1", None), running("i-2", None)], 5_000);
    assert_eq!(target(&after), 1);
    list(&mut after, group("g", 0, 5), vec![running("i-1", None), running("i-2", None)], 6_000);
    assert_eq!(target(&after), 1, "and the listing");
}

#[test]
fn a_machine_that_was_not_taken_after_all_counts_again() {
    let mut fleet = fleet(0, 5, &["i-1"]);
    fleet.noticed(&notice("i-1", NoticeKind::Interruption), Timestamp(0));
    let (due, _) = fleet.take_leave(Timestamp(110_000));
    fleet.spared("g", &due[0].1);
    assert!(!fleet.expire(Timestamp(400_000)));
    assert!(fleet.expire(Timestamp(420_000)));
    assert_eq!(target(&fleet), 1);
}

#[test]
fn a_notice_that_is_taken_back_is_as_if_it_had_never_been_until_the_machine_is_being_ended() {
    let mut fleet = fleet(0, 5, &["i-1"]);
    assert_eq!(fleet.noticed(&notice("i-1", NoticeKind::Withdrawn), Timestamp(1_000)), None, "nothing was announced");
    fleet.noticed(&notice("i-1", NoticeKind::Interruption), Timestamp(1_000));
    assert_eq!(target(&fleet), 0);
    assert!(fleet.noticed(&notice("i-1", NoticeKind::Withdrawn), Timestamp(2_000)).is_some());
    assert_eq!((target(&fleet), fleet.take_leave(Timestamp(111_000)).0), (1, vec![]));
    fleet.noticed(&notice("i-1", NoticeKind::Interruption), Timestamp(3_000));
    assert_eq!(fleet.take_leave(Timestamp(113_000)).0.len(), 1);
    assert_eq!(fleet.noticed(&notice("i-1", NoticeKind::Withdrawn), Timestamp(114_000)), None, "too late");
    assert_eq!(target(&fleet), 0);
}

/// CA drains a machine and asks for its end; before or meanwhile that end is announced by the cloud, which then lets it be.
#[test]
fn a_machine_that_ca_wants_ended_is_ended_whatever_becomes_of_the_notice() {
    for (kind, withdrawn, after) in [
        // The cloud would replace it: ended at once.
        (NoticeKind::Interruption, None, 2_000),
        (NoticeKind::Interruption, Some(2_000), 2_000),
        // It goes by itself, and its group counts it no more: ended only when it does not go.
        (NoticeKind::Ending, None, 301_000),
        (NoticeKind::Ending, Some(60_000), 60_000),
    ] {
        let mut fleet = fleet(1, 5, &["i-1", "i-2"]);
        fleet.noticed(&notice("i-1", kind), Timestamp(1_000)).unwrap();
        let deletion = fleet.delete("g", &[fake("i-1")]).unwrap();
        assert_eq!((deletion.terminate.len(), target(&fleet)), (0, 1), "{kind:?}: it does not count");
        let saved = serde_json::to_string(&fleet.saved()).unwrap();
        let mut fleet = Fleet::restore(serde_json::from_str(&saved).unwrap());
        list(&mut fleet, group("g", 1, 5), vec![running("i-1", None), running("i-2", None)], 1_500);
        let mut ended = Vec::new();
        for now in (2_000..400_000).step_by(1_000) {
            if withdrawn == Some(now) {
                assert_eq!(fleet.noticed(&notice("i-1", NoticeKind::Withdrawn), Timestamp(now)), None, "it goes");
            }
            fleet.expire(Timestamp(now));
            ended.extend(fleet.take_leave(Timestamp(now)).0.into_iter().map(|(_, machines)| (now, machines)));
            assert_eq!(target(&fleet), 1, "{kind:?} at {now}");
        }
        assert_eq!(ended, [(after, vec!["i-1".into()])], "{kind:?}");
    }
}

#[test]
fn one_that_cannot_be_ended_either_counts_again() {
    let mut fleet = fleet(0, 5, &["i-1"]);
    fleet.noticed(&notice("i-1", NoticeKind::Ending), Timestamp(0)).unwrap();
    fleet.delete("g", &[fake("i-1")]).unwrap();
    fleet.expire(Timestamp(300_000));
    let due = fleet.take_leave(Timestamp(300_000)).0;
    fleet.spared("g", &due[0].1);
    assert!(fleet.expire(Timestamp(301_000)));
    assert_eq!((target(&fleet), fleet.take_leave(Timestamp(301_000)).0), (1, vec![]));
}
