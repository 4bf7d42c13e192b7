//! What must hold at every moment of a storm: no machine ends that nobody named and no host lost, and no pod is lost but
//! with such a host.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use windlass_tests::rig::scene::Scene;

/// From the end of a machine until it is judged: by then whoever named it has been written down.
const JUDGED: Duration = Duration::from_secs(3);

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Machines that end, and when that was seen; None once they were judged.
    ended: BTreeMap<String, Option<Duration>>,
}

impl Watch {
    /// Looks at every machine there is.
    pub(super) fn look(&mut self, scene: &Scene, struck: &BTreeSet<String>) -> Result<()> {
        let cloud = scene.aws.as_ref().context("no AWS")?;
        let now = scene.journal.now();
        let ending: Vec<String> = cloud.with(|account, now| {
            let machines = account.groups.values().flat_map(|group| group.machines.values());
            machines.filter(|it| it.ends_at.is_some_and(|at| at <= now)).map(|it| it.id.clone()).collect()
        });
        for id in ending {
            self.ended.entry(id).or_insert(Some(now));
        }
        let due = |at: &mut Duration| *at + JUDGED <= now;
        let due: Vec<&str> =
            self.ended.iter_mut().filter_map(|(id, at)| at.take_if(due).map(|_| id.as_str())).collect();
        if due.is_empty() {
            return Ok(());
        }
        let named: BTreeSet<String> = scene.journal.named_for_deletion().iter().map(|id| last(id)).collect();
        let nodes: BTreeSet<String> = words(scene, "node-registered", "node");
        for id in due {
            ensure!(
                struck.contains(id) || named.contains(id) || !nodes.contains(id),
                "{id} was a Node, was ended, and nobody had named it"
            );
        }
        for node in words(scene, "pod-lost", "node") {
            ensure!(struck.contains(&node), "a pod was lost with {node}, whose host was well");
        }
        Ok(())
    }

    /// The numbers of a storm in one line.
    pub(super) fn summary(&self, scene: &Scene, counts: &BTreeMap<&'static str, u32>) -> String {
        let pods = scene.journal.acts("pods-created").len();
        let nodes = words(scene, "node-registered", "node");
        let used = words(scene, "pod-running", "node");
        let happened: Vec<String> = counts.iter().map(|(what, times)| format!("{what} {times}")).collect();
        format!(
            "chaos: {:.0} s; {pods} pods; {} machines, {} became nodes, {} of them never had a pod; {} ended; {}",
            scene.journal.now().as_secs_f64(),
            scene.machines(),
            nodes.len(),
            nodes.difference(&used).count(),
            self.ended.len(),
            happened.join(", "),
        )
    }
}

/// One word of each act of a name.
fn words(scene: &Scene, act: &str, word: &str) -> BTreeSet<String> {
    let acts = scene.journal.acts(act);
    acts.iter().filter_map(|(_, details)| details[word].as_str().map(str::to_owned)).collect()
}

/// `i-…` of `aws:///zone/i-…`.
fn last(id: &str) -> String {
    id.rsplit('/').next().unwrap_or_default().to_owned()
}
