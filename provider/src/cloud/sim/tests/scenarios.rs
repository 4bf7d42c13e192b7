//! Scenario files: what is read, and what is refused with its place and a remedy.

use std::{path::Path, time::Duration};

use crate::{
    cloud::sim::{Event, Happening, Machines, Scenario},
    fleet::group::Market,
};

use super::START;

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::parse(text, Path::new("s.yaml")).map_err(|error| error.to_string())
}

#[test]
fn a_group_is_read_with_its_defaults() {
    let text = "
machines: {bootTime: 9s, deviceDelay: 4s}
groups:
  - id: h100
    min: 1
    max: 4
    instanceType: p5.48xlarge
    price: 98.32
    cpu: 192
    memory: 2Ti
    gpu: {model: nvidia-h100, count: 8, memory: 80Gi}
    bootTime: 1.5m
    options: {scaleDownUnneededTime: 20m}
";
    let scenario = parse(text).unwrap();
    let group = &scenario.groups["h100"];
    let shape = &group.group.shape;
    assert_eq!((shape.cpu_milli, shape.memory, shape.pods), (192_000, 2 << 40, 110));
    let gpus = shape.gpus.as_ref().unwrap();
    assert_eq!((gpus.count, gpus.memory_mib, gpus.resource.as_str()), (8, 81_920, "nvidia.com/gpu"));
    assert_eq!((group.group.price_micros, group.group.market), (Some(98_320_000), Market::OnDemand));
    assert_eq!((group.group.zones.as_slice(), group.initial), (&["sim-1a".to_owned()][..], 1));
    assert_eq!((group.spans.boot, group.spans.device), (Duration::from_secs(90), Duration::from_secs(4)));
    assert_eq!(group.group.overrides.scale_down_unneeded_time, Some(Duration::from_secs(1200)));
    let cloud = Machines::start(&scenario, START);
    assert!(cloud.all(START).all(|machine| machine.registered(START) && machine.gpus_allocatable(START)));
    assert_eq!(cloud.all(START).count(), 1);
}

#[test]
fn events_are_read_in_order_of_time() {
    let scenario = super::scenario(
        "{at: 20, group: spot, stockOut: false}, {at: 10s, group: cpu, interrupt: {instances: 2}}, {at: 5s, slowCalls: 3s}",
    );
    let happenings: Vec<_> = scenario.events.iter().map(|Event { happening, .. }| happening.clone()).collect();
    let expect = [
        Happening::SlowCalls(Duration::from_secs(3)),
        Happening::Interrupt { instances: 2, notice: Duration::from_secs(120) },
        Happening::StockOut(false),
    ];
    assert_eq!(happenings, expect);
}

/// A group on line 3 with `keys` in it, and `events` on line 4.
fn wrong(keys: &str, events: &str) -> String {
    let text = format!(
        "
groups:
  - {{id: g, max: 3, instanceType: t, zones: [a], cpu: 2, memory: 8Gi{keys}}}
events: [{events}]
"
    );
    parse(&text).unwrap_err()
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_a_remedy() {
    for (keys, events, line, words) in [
        (", colour: red", "", 3, &["colour", "unknown field", "instanceType"][..]),
        (", min: 5", "", 3, &["groups[0].max", "3 is below the minimum 5", "raise max or lower min"]),
        (", initial: 4", "", 3, &["groups[0].initial", "outside 0 to 3"]),
        (", capacity: {b: 2}", "", 3, &["groups[0].capacity", "\"b\" is not a zone", "its zones are a"]),
        (", ephemeralStorage: 10GB5", "", 3, &["groups[0].ephemeralStorage", "\"10GB5\" is not a size such as 32Gi"]),
        (", gpu: {model: x, count: 1, memory: lots}", "", 3, &["groups[0].gpu.memory", "\"lots\""]),
        (", gpu: {model: x, count: 0, memory: 1Gi}", "", 3, &["groups[0].gpu.count", "leave the whole gpu key out"]),
        (", bootTime: 2 parsecs", "", 3, &["groups[0].bootTime", "for example 500ms, 90s, 15m or 1h"]),
        (", price: -1", "", 3, &["groups[0].price", "US dollars"]),
        (", price: .nan", "", 3, &["price"]),
        (", reserved: {cpu: 2}", "", 3, &["groups[0].cpu", "reserve less"]),
        (
            ", taints: [{key: k, effect: NoWay}]",
            "",
            3,
            &["groups[0].taints", "NoSchedule, PreferNoSchedule or NoExecute"],
        ),
        (", market: futures", "", 3, &["futures", "on-demand"]),
        ("", "{at: 1s, group: h, stockOut: true}", 4, &["events[0].group", "no group \"h\"", "there are g"]),
        ("", "{at: 1s, group: g}", 4, &["events[0]", "0 things happen", "exactly one of stockOut"]),
        ("", "{at: 1s, quota: 1, stockOut: true}", 4, &["events[0]", "2 things happen"]),
        ("", "{at: 1s, interrupt: {instances: 1}}", 4, &["events[0].interrupt", "add group:"]),
        ("", "{at: 1s, group: g, capacity: {z: 1}}", 4, &["events[0].capacity", "\"z\" is not a zone"]),
        ("", "{at: soon, quota: 1}", 4, &["events[0].at", "for example"]),
        ("", "{at: 1s, failCalls: often}", 4, &["often", "throttled"]),
    ] {
        let told = wrong(keys, events);
        assert!(told.starts_with(&format!("s.yaml:{line}:")), "{told}");
        words.iter().for_each(|word| assert!(told.contains(word), "{word}: {told}"));
    }
}

#[test]
fn a_scenario_without_groups_or_with_one_twice_is_refused() {
    let group = "{id: g, max: 3, instanceType: t, cpu: 2, memory: 8Gi}";
    let told = parse("groups: []").unwrap_err();
    assert!(told.starts_with("s.yaml:1:9: groups: there is none"), "{told}");
    let told = parse(&format!("groups:\n- {group}\n- {group}")).unwrap_err();
    assert!(told.starts_with("s.yaml:3:8: groups[1].id: \"g\" is there twice"), "{told}");
    let told = parse("seed: 1").unwrap_err();
    assert!(told.contains("groups"), "{told}");
    let told = parse("groups: {").unwrap_err();
    assert!(told.starts_with("s.yaml:"), "{told}");
}

#[test]
fn the_scenarios_in_the_tree_are_right() {
    let mut read = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/scenarios")).unwrap() {
        let file = file.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(Scenario::parse(&text, &file).map(|_| ()), Ok(()), "{}", file.display());
        read += 1;
    }
    assert!(read >= 2);
}
