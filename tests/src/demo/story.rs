//! The chapters: what the people of the demo want, and when a chapter has come to its end. Values only.

use std::{collections::BTreeMap, time::Duration};

use windlass_provider::{
    replay::cluster::{Cluster, PodView, Resources},
    timestamp::Timestamp,
};

/// The extended resource of a GPU.
pub(super) const GPU: &str = "nvidia.com/gpu";
/// How long the training pods work once all of them run.
const WORK: Duration = Duration::from_secs(4);

/// Where the story stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chapter {
    /// A pod without GPUs wants a place.
    Web,
    /// Two pods want a GPU each.
    Training,
    /// Both work.
    Working,
    /// They are done, and their machines go.
    Idle,
    /// The end.
    End,
}

impl Chapter {
    /// What stands above it.
    #[must_use]
    pub(super) fn heading(self) -> Option<&'static str> {
        match self {
            Self::Web => Some("A web pod wants a CPU: it must not wake a GPU machine"),
            Self::Training => {
                Some("Two training pods want a GPU each: spot first, and what spot cannot give, on demand")
            }
            Self::Working => Some("They work: the agent sees which pod uses how much of its GPU"),
            Self::Idle => Some("The work is done: idle GPU machines go back, the web pod's machine stays"),
            Self::End => None,
        }
    }
}

/// The story so far.
#[derive(Clone, Debug)]
pub(super) struct Story {
    /// The chapter that is told now.
    pub(super) chapter: Chapter,
    since: Timestamp,
    begun: bool,
}

/// What a turn of the story brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// A chapter that begins.
    pub(super) begins: Option<Chapter>,
    /// Names of pods that wait from now on, and what they want.
    pub(super) waits: Vec<(String, String)>,
    /// Names of pods that are done.
    pub(super) done: Vec<String>,
}

impl Story {
    /// Before the first chapter.
    #[must_use]
    pub(super) fn new(now: Timestamp) -> Self {
        Self { chapter: Chapter::Web, since: now, begun: false }
    }

    /// Goes on as far as the cluster, and what the agent has measured, allow: creates pods, and ends them.
    pub(super) fn turn(&mut self, cluster: &mut Cluster, measured: bool, now: Timestamp) -> Turn {
        if self.begun && !self.ended(cluster, measured, now) {
            return Turn::default();
        }
        if self.begun {
            self.chapter = match self.chapter {
                Chapter::Web => Chapter::Training,
                Chapter::Training => Chapter::Working,
                Chapter::Working => Chapter::Idle,
                Chapter::Idle | Chapter::End => Chapter::End,
            };
        }
        self.begun = true;
        self.since = now;
        let mut turn = Turn { begins: Some(self.chapter), ..Turn::default() };
        match self.chapter {
            Chapter::Web => turn.waits.push(self.create(cluster, "web-0", &[("cpu", 1500), ("memory", 2 << 30)])),
            Chapter::Training => {
                for name in ["train-0", "train-1"] {
                    let wants = [("cpu", 2000), ("memory", 8 << 30), (GPU, 1)];
                    turn.waits.push(self.create(cluster, name, &wants));
                }
            }
            Chapter::Idle => {
                turn.done = ["train-0", "train-1"].map(str::to_owned).to_vec();
                cluster.pods.retain(|_, pod| !turn.done.contains(&pod.name));
            }
            Chapter::Working | Chapter::End => {}
        }
        turn
    }

    fn ended(&self, cluster: &Cluster, measured: bool, now: Timestamp) -> bool {
        match self.chapter {
            Chapter::Web | Chapter::Training => cluster.pods.values().all(|pod| pod.node.is_some()),
            Chapter::Working => measured && now.since(self.since) >= WORK,
            Chapter::Idle => !cluster.nodes.values().any(|node| node.capacity.contains_key(GPU)),
            Chapter::End => false,
        }
    }

    fn create(&self, cluster: &mut Cluster, name: &str, wants: &[(&str, u64)]) -> (String, String) {
        let wants: Resources = wants.iter().map(|(resource, amount)| ((*resource).to_owned(), *amount)).collect();
        let words = words(&wants);
        // A uid is new for every pod that ever was, as in Kubernetes.
        let mut pod = PodView::new(name, &format!("{name}-{}", self.since.0), wants, self.since);
        pod.controller = Some(if name.starts_with("train") { "Job" } else { "ReplicaSet" }.to_owned());
        pod.controller_uid = Some(format!("owner-of-{}", name.trim_end_matches(|c: char| c.is_ascii_digit())));
        cluster.add_pod(pod);
        (name.to_owned(), words)
    }
}

/// `2 CPUs, 8 GiB and 1 GPU`.
fn words(wants: &BTreeMap<String, u64>) -> String {
    let amount = |resource: &str| wants.get(resource).copied().unwrap_or(0);
    let (whole, rest) = (amount("cpu") / 1000, amount("cpu") % 1000 / 100);
    let cpus = if rest == 0 { format!("{whole} CPUs") } else { format!("{whole}.{rest} CPUs") };
    let memory = format!("{} GiB", amount("memory") >> 30);
    match amount(GPU) {
        0 => format!("{cpus} and {memory}"),
        gpus => format!("{cpus}, {memory} and {gpus} GPU"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chapter_ends_when_its_pods_run() {
        let mut cluster = Cluster::default();
        let now = Timestamp(1_000);
        let mut story = Story::new(now);
        let turn = story.turn(&mut cluster, true, now);
        assert_eq!((turn.begins, turn.waits.len()), (Some(Chapter::Web), 1));
        assert_eq!(turn.waits[0].1, "1.5 CPUs and 2 GiB");
        assert_eq!(story.turn(&mut cluster, true, now), Turn::default());
        cluster.pods.values_mut().for_each(|pod| pod.node = Some("n".into()));
        let turn = story.turn(&mut cluster, true, now);
        assert_eq!((turn.begins, turn.waits.len()), (Some(Chapter::Training), 2));
        assert_eq!(turn.waits[0].1, "2 CPUs, 8 GiB and 1 GPU");
        cluster.pods.values_mut().for_each(|pod| pod.node = Some("n".into()));
        assert_eq!(story.turn(&mut cluster, true, now).begins, Some(Chapter::Working));
        assert_eq!(story.turn(&mut cluster, false, now + WORK), Turn::default(), "nothing was measured yet");
        let turn = story.turn(&mut cluster, true, now + WORK);
        assert_eq!((turn.begins, turn.done.len(), cluster.pods.len()), (Some(Chapter::Idle), 2, 1));
        assert_eq!(story.turn(&mut cluster, true, now + WORK).begins, Some(Chapter::End));
        assert_eq!(story.turn(&mut cluster, true, now + WORK), Turn::default());
    }
}
