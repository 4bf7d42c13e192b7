//! The memory of refusals, against the clock.

use super::*;
use crate::fleet::tests::{group, refusal};

const MINUTE: u64 = 60_000;

#[test]
fn a_refusal_is_remembered_for_every_group_that_buys_the_same_and_longer_each_time() {
    let mut offerings = Offerings::default();
    let (a, b) = (group("a", 0, 9), group("b", 0, 9));
    let mut now = Timestamp(0);
    for minutes in [1, 2, 4, 8, 16, 30, 30] {
        offerings.note_refusal(&a, None, &refusal(), now);
        offerings.note_refusal(&b, None, &refusal(), now);
        let until = Timestamp(now.0 + minutes * MINUTE);
        assert_eq!(offerings.shunned(&b, now).map(|it| it.until), Some(until), "{minutes}");
        assert_eq!(offerings.shunned(&b, until), None);
        assert_eq!(offerings.probation(&b), Some(Probation::Launches));
        now = until;
    }
    let other = Group { market: Market::OnDemand, ..group("c", 0, 9) };
    assert_eq!((offerings.shunned(&other, Timestamp(0)), offerings.probation(&other)), (None, None));
    offerings.note_launched(&a, "eu-west-1a");
    assert_eq!((offerings.shunned(&b, Timestamp(0)), offerings.probation(&b)), (None, None));
}

#[test]
fn one_good_zone_is_enough() {
    let mut offerings = Offerings::default();
    let wide = Group { zones: vec!["x".to_owned(), "y".to_owned()], ..group("w", 0, 9) };
    offerings.note_refusal(&wide, Some("x"), &refusal(), Timestamp(0));
    assert_eq!(offerings.shunned(&wide, Timestamp(1)), None);
    offerings.note_refusal(&wide, Some("y"), &refusal(), Timestamp(1));
    assert_eq!(offerings.shunned(&wide, Timestamp(1)).map(|it| it.until), Some(Timestamp(MINUTE)));
}

#[test]
fn zones_that_refused_lately_are_asked_last() {
    let mut offerings = Offerings::default();
    let zones = ["w", "x", "y", "z"].map(str::to_owned).to_vec();
    let wide = Group { zones, ..group("w", 0, 9) };
    let held = |zone: &str| u32::from(zone == "x") * 3;
    assert_eq!(offerings.in_order(&wide, held), ["w", "y", "z", "x"], "the one that holds most comes last");
    offerings.note_refusal(&wide, Some("y"), &refusal(), Timestamp(0));
    offerings.note_refusal(&wide, Some("w"), &refusal(), Timestamp(1));
    assert_eq!(offerings.in_order(&wide, held), ["z", "x", "y", "w"]);
    let other = Group { market: Market::OnDemand, ..wide.clone() };
    assert_eq!(offerings.in_order(&other, held), ["w", "y", "z", "x"], "another market is another thing");
    offerings.note_launched(&wide, "y");
    assert_eq!(offerings.in_order(&wide, held), ["y", "z", "x", "w"], "good news count for their zone alone");
}

#[test]
fn machines_that_never_register_are_the_groups_own_fault_and_a_launch_proves_nothing() {
    let mut offerings = Offerings::default();
    let (a, b) = (group("a", 0, 9), group("b", 0, 9));
    offerings.note_never_registered(&a, Timestamp(0));
    offerings.note_launched(&a, "eu-west-1a");
    assert!(offerings.shunned(&a, Timestamp(1)).is_some_and(|it| it.why.contains("never register")));
    assert_eq!(offerings.shunned(&b, Timestamp(1)), None);
    assert_eq!(offerings.probation(&a), Some(Probation::Registers));
    offerings.note_success(&a);
    assert_eq!((offerings.shunned(&a, Timestamp(2)), offerings.probation(&a)), (None, None));
    offerings.note_refusal(&a, None, &refusal(), Timestamp(3));
    offerings.note_success(&a);
    assert!(offerings.shunned(&a, Timestamp(4)).is_some(), "an older machine says nothing of what is free now");
}

#[test]
fn throttling_is_not_a_refusal_and_old_ones_are_forgotten() {
    let mut offerings = Offerings::default();
    let a = group("a", 0, 9);
    offerings.note_refusal(&a, None, &Refusal { class: RefusalClass::Throttled, ..refusal() }, Timestamp(0));
    assert_eq!(offerings.probation(&a), None);
    for class in [RefusalClass::Permission, RefusalClass::Configuration, RefusalClass::Quota] {
        offerings.note_refusal(&a, None, &Refusal { class, ..refusal() }, Timestamp(0));
        assert!(offerings.shunned(&a, Timestamp(1)).is_some(), "{class:?}");
    }
    let saved = serde_json::to_string(&offerings).unwrap();
    assert_eq!(serde_json::from_str::<Offerings>(&saved).unwrap(), offerings);
    offerings.expire(Timestamp(32 * MINUTE));
    assert_eq!(offerings.probation(&a), None);
}
