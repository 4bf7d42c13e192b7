//! The priority list by example; and a sample of what CA's own filter answered to random questions.

use super::*;

fn list(text: &str) -> Result<Priorities, String> {
    Priorities::parse(text, "priorities.yaml").map_err(|error| error.to_string())
}

#[test]
fn the_highest_matching_number_counts() {
    let list = list("10:\n  - .*\n50:\n  - spot\n  - ^exact$\n-1:\n  - .*\n-5:\n  - hidden\n").unwrap();
    for (group, priority) in
        [("a10g-spot-1", Some(50)), ("exact", Some(50)), ("inexact", Some(10)), ("hidden", Some(10))]
    {
        assert_eq!(list.of(group), priority, "{group}");
    }
}

#[test]
fn below_minus_one_nothing_wins() {
    assert_eq!(list("-2: [.*]").unwrap().of("any"), None);
    assert_eq!(list("-1: [.*]").unwrap().of("any"), Some(-1));
}

#[test]
fn a_whole_config_map_is_read_too() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: cluster-autoscaler-priority-expander\ndata:\n  priorities: |-\n    10:\n      - .*\n";
    assert_eq!(list(text).unwrap().of("any"), Some(10));
    let error = list("kind: ConfigMap\ndata: {priority: ''}").unwrap_err();
    assert_eq!(
        error,
        "priorities.yaml: data: the ConfigMap has no key `priorities`; CA reads the list from that key only"
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_a_remedy() {
    for (text, expect) in [
        ("", "priorities.yaml"),
        ("ten: [.*]", "priorities.yaml:1:1: "),
        ("10:\n  - .*\n20: spot\n", "priorities.yaml:3:5: "),
        ("10: []", "the list has no pattern; write numbers with lists of patterns"),
        (
            "10: [\"*spot*\"]",
            "priorities.yaml: 10[0]: `*spot*` is no pattern (repetition operator missing expression); patterns are regular expressions, not globs: write `.*` for `*`",
        ),
        ("10: [ok, \"a{\"]", "priorities.yaml: 10[1]: `a{` is no pattern ("),
        ("10: [\"(?=look)\"]", "`(?=look)` is no pattern (look-around"),
        ("10: [\"(a{1000}){1000}\"]", "(it is too large)"),
    ] {
        let error = list(text).unwrap_err();
        assert!(error.contains(expect), "{text:?}: {error}");
    }
}

#[test]
fn a_list_upside_down_is_flagged() {
    let warnings = list("10: [\".*spot.*\"]\n50: [\".*on-demand.*\"]").unwrap().warnings().to_vec();
    assert_eq!(
        warnings,
        ["`.*spot.*` (10) ranks below `.*on-demand.*` (50): the highest number wins, so on-demand is bought first"]
    );
    assert!(list("50: [\".*spot.*\"]\n10: [\".*on-demand.*\"]").unwrap().warnings().is_empty());
}

/// Lines of the answers that cluster-autoscaler 1.36.1's own priority filter gave to random questions: the list, the
/// groups offered, the groups that passed. An empty list stands for one that could not be read: all pass.
#[test]
fn the_answers_are_the_autoscalers_own() {
    let mut rows = 0;
    for line in include_str!("answers.jsonl").lines() {
        let (text, offered, passed): (String, Vec<String>, Vec<String>) = serde_json::from_str(line).unwrap();
        let list = Priorities::parse(&text, "answers").unwrap_or_default();
        let ranks: Vec<_> = offered.iter().map(|group| list.of(group)).collect();
        let highest = ranks.iter().copied().max().flatten();
        let chosen: Vec<_> =
            offered.iter().zip(&ranks).filter(|(_, rank)| **rank == highest || highest.is_none()).collect();
        assert_eq!(chosen.iter().map(|(group, _)| (*group).clone()).collect::<Vec<_>>(), passed, "{line}");
        rows += 1;
    }
    assert!(rows >= 40, "{rows} rows");
}
