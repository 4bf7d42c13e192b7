//! The model of cluster-autoscaler's loop, held to recordings of five real releases: same calls, same order, same arguments.
//! `recordings/compare.rs` says what is compared, `recordings/differences.rs` lists what differs and why.

use windlass_provider::replay::autoscaler::{Era, Expander, Flags};
use windlass_tests::recording::{self, VERSIONS};

mod recordings {
    pub(crate) mod compare;
    pub(crate) mod replay;
    pub(crate) mod stage;
}

use recordings::{replay, stage::Story};

fn flags(era: Era, story: &str) -> Flags {
    let quick = Flags::quick(era);
    let grpc_then_waste = story.starts_with("expander-");
    Flags {
        frequent_loops: quick.frequent_loops && story != "never-registers-slow-loops",
        expander: if grpc_then_waste { Expander::GrpcLeastWaste } else { Expander::Grpc },
        // 1.27 has no --bypassed-scheduler-names, so that its GPU pods waited.
        gpu_wait: (era == Era::V1_27).then_some(std::time::Duration::from_secs(30)),
        pod_wait: (era == Era::V1_27).then_some(std::time::Duration::from_secs(2)),
        // Among equals CA picks one at random; this is what came of it.
        tie: usize::from(["expander-slow", "expander-unknown"].contains(&story)),
        ..quick
    }
}

#[test]
fn look() {
    let only = std::env::var("STORY").unwrap_or_default();
    for (version, era) in VERSIONS {
        for story in recording::stories(version).unwrap() {
            let name = format!("{version}/{story}");
            if !name.contains(&only) {
                continue;
            }
            let lines = recording::read(version, &story).unwrap();
            let cut = Story::new(&lines, flags(era, &story).gpu_wait.is_some());
            let outcome = replay::play(&cut, era, &flags(era, &story));
            println!(
                "{name}: {} loops, {} decisions, {} differences, crash {:?}",
                outcome.loops,
                outcome.decisions,
                outcome.found.len(),
                outcome.crash
            );
            for found in outcome.found.iter().take(if only.is_empty() { 2 } else { 60 }) {
                println!("   {}.{} {}", found.process, found.number, found.text);
            }
        }
    }
}
