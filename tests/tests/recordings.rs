//! The model of cluster-autoscaler's loop, held to recordings of five real releases: same calls, same order, same arguments.
//! `recordings/compare.rs` says what is compared, `recordings/differences.rs` lists what differs and why.

#![expect(clippy::unwrap_used, reason = "a recording that cannot be read is a failed test")]

use windlass_provider::replay::autoscaler::{Era, Expander, Flags};
use windlass_tests::recording::{self, VERSIONS};

mod recordings {
    pub(crate) mod compare;
    pub(crate) mod differences;
    pub(crate) mod replay;
    pub(crate) mod stage;
}

use recordings::{
    differences::LISTED,
    replay,
    stage::{Hints, Race, Story},
};

fn flags(era: Era, story: &str) -> Flags {
    let quick = Flags::quick(era);
    Flags {
        frequent_loops: quick.frequent_loops && story != "never-registers-slow-loops",
        expander: match story {
            "price-expander" => Expander::Price,
            _ if story.starts_with("expander-") => Expander::GrpcLeastWaste,
            _ => Expander::Grpc,
        },
        // 1.27 has no --bypassed-scheduler-names, so that its GPU pods waited.
        gpu_wait: (era == Era::V1_27).then_some(std::time::Duration::from_secs(30)),
        pod_wait: (era == Era::V1_27).then_some(std::time::Duration::from_secs(2)),
        // Among equals CA picks one at random; this is what came of it.
        tie: usize::from(["expander-slow", "expander-unknown"].contains(&story)),
        ..quick
    }
}

fn hints(era: Era, version: &str, story: &str) -> Hints {
    let races: &[Race] = match (version, story) {
        ("1.36.1", "veto-options-answered") => &[Race { instance: "rig://z-a/i-0002", shift: -20 }],
        ("1.36.1", "veto-label-late" | "burst") => &[Race { instance: "rig://z-a/i-0002", shift: 20 }],
        ("1.36.1", "expander-unknown") => &[Race { instance: "rig://z-a/i-0001", shift: -20 }],
        ("1.36.1", "price-expander") => &[Race { instance: "rig://z-a/i-0001", shift: -40 }],
        _ => &[],
    };
    // Named and those that fit on four-GPU machines already bought: 3, 14 + 4, 10 + 20, 8 + 32.
    let seen: &[usize] = if story == "burst" { &[3, 18, 30, 40] } else { &[] };
    Hints { pods_wait: flags(era, story).gpu_wait.is_some(), seen, races }
}

/// Releases whose client dies of options in the new fields only.
fn dies(era: Era, story: &str) -> bool {
    story == "options-new-fields-only" && era < Era::V1_34
}

#[test]
fn the_model_says_what_the_autoscaler_said() {
    let (mut wrong, mut used) = (Vec::new(), vec![0; LISTED.len()]);
    for (version, era) in VERSIONS {
        for story in recording::stories(version).unwrap() {
            let name = format!("{version}/{story}");
            let lines = recording::read(version, &story).unwrap();
            let cut = Story::new(&lines, &hints(era, version, &story));
            let outcome = replay::play(&cut, era, &flags(era, &story));
            println!(
                "{name}: {} loops, {} calls, {} of them decisive, {} differences",
                outcome.loops,
                outcome.calls,
                outcome.decisions,
                outcome.found.len()
            );
            assert_eq!(outcome.crash.is_some(), dies(era, &story), "{name}: {:?}", outcome.crash);
            for found in outcome.found {
                match LISTED.iter().position(|one| one.recording == name && found.text.contains(one.contains)) {
                    Some(index) => used[index] += 1,
                    None => {
                        wrong.push(format!("{name} process {} loop {}: {}", found.process, found.number, found.text))
                    }
                }
            }
        }
    }
    for (one, used) in LISTED.iter().zip(used) {
        if one.times != used {
            let why = one.why;
            wrong
                .push(format!("{}: listed {} times, found {used}: {} ({why})", one.recording, one.times, one.contains));
        }
    }
    assert!(wrong.is_empty(), "{} differences that are not as listed:\n{}", wrong.len(), wrong.join("\n"));
}
