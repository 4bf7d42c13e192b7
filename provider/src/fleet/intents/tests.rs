//! Names and launches of an intent, in tables.

use super::*;

#[test]
fn a_placeholder_id_says_where_it_belongs_whatever_the_group_is_called() {
    for group in ["g", "https://gce/projects/p/zones/z/instanceGroups/g", "a b"] {
        let intent = Intent::new(IntentId::new(7, Timestamp(255)), group.into(), 2, Timestamp(0));
        let ids: Vec<String> = intent.placeholders().map(|it| it.id.to_string()).collect();
        assert_eq!(
            ids.iter().map(|id| parse_placeholder(id)).collect::<Vec<_>>(),
            [Some((group, "w-7-ff", 0)), Some((group, "w-7-ff", 1))]
        );
    }
    for id in ["", "windlass://", "windlass://g", "windlass://g/w", "windlass://g/w/x", "aws:///a/i-1"] {
        assert_eq!(parse_placeholder(id), None, "{id}");
    }
}

#[test]
fn a_launch_is_repeated_as_it_was_first_asked() {
    let mut intent = Intent::new(IntentId::new(1, Timestamp(0)), "g".into(), 3, Timestamp(0));
    let first = intent.next_launch(1, Vec::new()).unwrap();
    let second = intent.next_launch(9, Vec::new()).unwrap();
    assert_eq!((first.count, second.count, second.token.as_str()), (1, 2, "w-1-0.2"));
    assert_eq!(intent.cancel(1, true), 1);
    let again = |launch: &Launch| Launch { again: true, ..launch.clone() };
    assert_eq!(intent.unanswered(), [again(&first), again(&second)]);
    assert_eq!(IntentId::of_token(&second.token), intent.id);
}
