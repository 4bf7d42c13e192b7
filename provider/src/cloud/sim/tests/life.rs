//! What launching, ending, capacity and the script do to machines.

use super::{Story, at};

#[test]
fn a_machine_lives_through_its_stages() {
    let mut story = Story::new("");
    assert_eq!(story.launch("spot", 1, "w-1", 10), "1 came");
    let id = story.cloud.all(at(10)).next().unwrap().id.clone();
    let zone = id.as_str().trim_start_matches("sim:///").to_owned();
    assert_eq!(story.listed(10), format!("spot: {zone} Creating"));
    assert_eq!(story.listed(11), format!("spot: {zone} Running"));
    let machine = story.machine(id.as_str()).clone();
    assert_eq!((machine.registers_at, machine.gpus_at), (Some(at(13)), Some(at(16))));
    assert!(!machine.registered(at(12)) && machine.registered(at(13)));
    assert!(!machine.gpus_allocatable(at(15)) && machine.gpus_allocatable(at(16)));
    assert_eq!(story.terminate("spot", &[id.as_str()], 20), Ok(()));
    assert_eq!(story.listed(21), format!("spot: {zone} Deleting"));
    assert!(!story.machine(id.as_str()).registered(at(21)));
    assert_eq!(story.listed(22), "");
}

#[test]
fn without_gpus_none_become_allocatable() {
    let mut story = Story::new("");
    story.launch("cpu", 1, "w-1", 0);
    assert!(!story.cloud.all(at(0)).next().unwrap().gpus_allocatable(at(100)));
}

#[test]
fn zones_give_what_they_have_and_the_rest_is_refused() {
    // Zone a gives 3, zone b any number: the emptier zone goes first.
    let mut story = Story::new("{at: 5s, group: spot, capacity: {b: 1}}");
    assert_eq!(story.launch("spot", 2, "w-1", 0), "2 came");
    assert_eq!(story.launch("spot", 4, "w-2", 6), "2 came, 2 NoCapacity");
    assert_eq!(story.launch("spot", 1, "w-3", 7), "0 came, 1 NoCapacity");
}

#[test]
fn a_stock_out_ends_when_the_script_says() {
    for (events, after) in [
        ("{at: 5s, group: spot, stockOut: true}, {at: 20s, group: spot, stockOut: false}", "2 came"),
        ("{at: 5s, for: 15s, group: spot, stockOut: true}", "2 came"),
        ("{at: 5s, stockOut: true}", "0 came, 2 NoCapacity"),
    ] {
        let mut story = Story::new(events);
        assert_eq!(story.launch("spot", 1, "w-1", 4), "1 came", "{events}");
        assert_eq!(story.launch("spot", 1, "w-2", 19), "0 came, 1 NoCapacity", "{events}");
        assert_eq!(story.launch("spot", 2, "w-3", 20), after, "{events}");
    }
}

#[test]
fn quotas_bind_a_group_or_the_account() {
    let mut story = Story::new("{at: 0s, group: spot, quota: 2}, {at: 0s, quota: 5}");
    assert_eq!(story.launch("spot", 3, "w-1", 1), "2 came, 1 Quota");
    assert_eq!(story.launch("cpu", 4, "w-2", 1), "3 came, 1 Quota");
    assert_eq!(story.launch("spot", 1, "w-3", 1), "0 came, 1 Quota");
}

#[test]
fn what_cannot_be_meant_is_refused_whole() {
    let mut story = Story::new("");
    assert_eq!(story.launch("nothing", 1, "w-1", 0), "ValidationError");
    assert_eq!(story.launch("spot", 0, "w-2", 0), "ValidationError");
    assert_eq!(story.launch("spot", 7, "w-3", 0), "ValidationError");
    assert_eq!(story.launch("spot", 4, "w-4", 0), "4 came");
    assert_eq!(story.launch("spot", 3, "w-5", 0), "ValidationError");
    assert_eq!(story.launch("cpu", 1, "w-4", 0), "ValidationError", "a token of another group");
    assert_eq!(story.cloud.all(at(0)).count(), 4);
}

#[test]
fn a_token_launches_once_and_is_answered_the_same() {
    let mut story = Story::new("{at: 5s, group: spot, capacity: {a: 1, b: 1}}");
    assert_eq!(story.launch("spot", 3, "w-1", 6), "2 came, 1 NoCapacity");
    assert_eq!(story.launch("spot", 3, "w-1", 7), "2 came, 1 NoCapacity");
    assert_eq!(story.cloud.all(at(7)).count(), 2);
}

#[test]
fn ending_is_exact_and_may_be_repeated() {
    let mut story = Story::new("");
    story.launch("spot", 2, "w-1", 0);
    story.launch("cpu", 1, "w-2", 0);
    let ids: Vec<String> = story.cloud.all(at(0)).map(|machine| machine.id.to_string()).collect();
    let of = |group: &str| -> Vec<&str> {
        let in_group = |id: &&String| story.machine(id).group.as_str() == group;
        ids.iter().filter(in_group).map(String::as_str).collect()
    };
    let (spot, cpu) = (of("spot"), of("cpu"));
    let foreign = story.terminate("spot", &[spot[0], cpu[0]], 5).unwrap_err();
    assert!(foreign.contains("nothing was ended"), "{foreign}");
    assert_eq!(story.listed(6).matches("Running").count(), 3);
    for again in [7, 8, 20] {
        assert_eq!(story.terminate("spot", &[spot[0], "sim:///a/i-999999"], again), Ok(()));
    }
    assert_eq!(story.machine(spot[1]).ends_at, None);
    assert_eq!(story.listed(30).matches("Running").count(), 2);
}

#[test]
fn an_interruption_gives_notice_and_then_takes_the_machine() {
    let events = "{at: 10s, group: spot, interrupt: {instances: 1, notice: 30s}}";
    // Whether the cloud is looked at in time or late, the same machine is struck at the same moment.
    let mut struck = Vec::new();
    for look in [10, 25] {
        let mut story = Story::new(events);
        story.launch("spot", 3, "w-1", 0);
        story.listed(look);
        let noticed: Vec<_> =
            story.cloud.all(at(look)).filter(|machine| machine.notice_at.is_some()).cloned().collect();
        assert_eq!((noticed.len(), noticed[0].notice_at, noticed[0].ends_at), (1, Some(at(10)), Some(at(40))));
        assert_eq!(story.listed(39).matches("Running").count(), 3);
        assert_eq!(story.listed(40).matches("Deleting").count(), 1);
        assert_eq!(story.listed(42).matches("Running").count(), 2);
        assert_eq!(story.listed(99).matches("Running").count(), 2, "it strikes once");
        struck.push(noticed[0].id.clone());
    }
    assert_eq!(struck[0], struck[1]);
}

#[test]
fn who_never_registers_runs_all_the_same() {
    let mut story = Story::new("{at: 0s, for: 5s, group: spot, neverRegister: true}");
    story.launch("spot", 1, "w-1", 1);
    let machine = story.cloud.all(at(1)).next().unwrap().clone();
    assert_eq!((machine.registers_at, machine.gpus_at), (None, None));
    assert!(story.listed(60).ends_with("Running"));
    story.launch("spot", 1, "w-2", 6);
    assert_eq!(story.cloud.all(at(6)).filter(|machine| machine.registers_at.is_some()).count(), 1);
}
