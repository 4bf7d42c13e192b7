//! Everything on the stage: the provider and the agent as in production, a cluster, the machines' kubelets, and the
//! autoscaler's loop that calls it all. Each turn gives everyone a chance to act.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use windlass_proto::core::Taint;
use windlass_provider::{
    cloud::sim::Scenario,
    config::Config,
    fleet::group::Group,
    replay::{
        autoscaler::{Act, Autoscaler, Era, Flags},
        cluster::Cluster,
    },
    timestamp::Timestamp,
};

use super::{
    gpu_node::GpuNode,
    kubelets::{Kubelets, News},
    narrator::{Narrator, count},
    story::{Chapter, GPU, Story},
    watched::{Heard, Watched},
    web,
};
use crate::caller::Caller;

/// How long the provider may take until it is ready.
const READY: Duration = Duration::from_mins(1);
/// How long a pod has worked before its figures are told: the agent shows averages of the last seconds.
const SETTLED: Duration = Duration::from_secs(3);
/// The cloud of the demo.
const SCENARIO: &str = include_str!("../../scenarios/demo.yaml");

/// The stage with everyone on it.
pub(super) struct Stage<'a> {
    runtime: &'a Runtime,
    stop_provider: CancellationToken,
    provider: JoinHandle<anyhow::Result<()>>,
    pages: SocketAddr,
    gpu_node: GpuNode,
    caller: Caller,
    heard: Heard,
    autoscaler: Autoscaler,
    next_loop: Timestamp,
    kubelets: Kubelets,
    cluster: Cluster,
    story: Option<Story>,
    tally: Tally,
    /// The pod whose GPU the agent watches, and since when.
    watched_pod: Option<(String, Timestamp)>,
    /// The cloud's groups, for people.
    groups: Vec<String>,
    _folder: TempDir,
}

/// What the summary tells.
#[derive(Debug, Default)]
struct Tally {
    came: usize,
    gone: usize,
    measured: bool,
    begun: Option<Timestamp>,
    took: Duration,
}

impl<'a> Stage<'a> {
    /// Starts everything and says where it can be looked at.
    ///
    /// # Errors
    /// Says what did not start.
    pub(super) fn build(runtime: &'a Runtime, narrator: &Narrator) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for sockets and state")?;
        let gpu_node = GpuNode::start(runtime, folder.path())?;
        let (scenario, state) = (folder.path().join("scenario.yaml"), folder.path().join("cloud.json"));
        std::fs::write(&scenario, SCENARIO).context("write the scenario")?;
        let config = configuration(&folder)?;
        let provider = runtime.block_on(windlass_provider::start(config)).context("start the provider")?;
        let (pages, expander) = (provider.http, provider.expander);
        wait_until_ready(pages)?;
        let roots = std::fs::read(folder.path().join("expander-ca.crt")).context("the expander's certificate")?;
        let caller = Caller::over_unix(&folder.path().join("provider.sock"), expander, &roots)?;
        let flags = Flags {
            scale_down_delay_after_add: Duration::from_secs(2),
            unneeded_time: Duration::from_secs(4),
            ..Flags::quick(Era::V1_36)
        };
        let stage = Self {
            runtime,
            stop_provider: provider.stopper(),
            provider: runtime.spawn(provider.finished()),
            pages,
            gpu_node,
            caller,
            heard: Heard::new(pages),
            autoscaler: Autoscaler::new(Era::V1_36, flags),
            next_loop: Timestamp::default(),
            kubelets: Kubelets::new(scenario, state),
            cluster: Cluster::default(),
            story: None,
            tally: Tally::default(),
            watched_pod: None,
            groups: groups()?,
            _folder: folder,
        };
        stage.prologue(narrator);
        Ok(stage)
    }

    /// Everyone's turn.
    ///
    /// # Errors
    /// When a part of the stage fails in a way that the story cannot go on.
    pub(super) fn turn(&mut self, narrator: &Narrator, now: Timestamp) -> anyhow::Result<()> {
        self.alive()?;
        self.machines(narrator, now)?;
        self.pods(narrator, now)?;
        self.people(narrator, now)?;
        self.measure(narrator, now);
        if now >= self.next_loop {
            self.next_loop = self.autoscaler.next_loop(now);
            self.autoscale(narrator, now);
        }
        Ok(())
    }

    /// Whether the story has come to its end.
    #[must_use]
    pub(super) fn finished(&self) -> bool {
        self.story.as_ref().is_some_and(|story| story.chapter == Chapter::End)
    }

    /// One line for the end.
    #[must_use]
    pub(super) fn summary(&self) -> String {
        let Heard { asked, refused, purchases, vetoes, .. } = &self.heard;
        let Tally { came, gone, took, .. } = &self.tally;
        let decided = format!("{} and {}", count(*purchases, "purchase"), count(*vetoes, "veto"));
        let machines = format!("{} asked for: {came} came, {refused} refused by the cloud", count(*asked, "machine"));
        match &self.story {
            Some(_) if self.finished() => {
                let (took, twice) = (took.as_secs_f64(), asked.saturating_sub(came + refused));
                format!(
                    "The story came to its end in {took:.0} s: {decided}; {machines}, {twice} not bought twice; {gone} returned."
                )
            }
            Some(story) => format!(
                "The story did NOT come to its end, it stopped in the chapter {:?}: {decided}; {machines}.",
                story.chapter
            ),
            None => "The story did not begin.".to_owned(),
        }
    }

    /// What to do once the story is told.
    pub(super) fn epilogue(&self, narrator: &Narrator, stays: bool) {
        narrator.chapter("That was the whole story");
        narrator.plain(format!("Every decision with all its reasons: http://{}/decisions", self.pages));
        if stays {
            narrator.plain("Everything stays up: look around at the addresses above. Ctrl-C ends it.");
        }
    }

    /// Stops both programs.
    pub(super) fn close(self) {
        // Open connections would keep the provider waiting for their end.
        drop(self.caller);
        self.runtime.block_on(async {
            self.gpu_node.stop().await;
            self.stop_provider.cancel();
            // How it ended no longer matters to the story.
            let _ = self.provider.await;
        });
    }

    fn prologue(&self, narrator: &Narrator) {
        let gpu = if self.gpu_node.simulated() { "simulated" } else { "this machine's own" };
        let agent = self.gpu_node.address();
        narrator.plain("Windlass: agent and provider as in production; cloud, cluster and autoscaler loop are played.");
        narrator.plain("");
        narrator.plain(format!("  agent     http://{agent}/metrics   ({}, {gpu})", self.gpu_node.model));
        narrator.plain(format!("  provider  http://{}/metrics", self.pages));
        narrator.plain(format!("  page      http://{}/          (groups, machines, decisions)", self.pages));
        for (number, group) in self.groups.iter().enumerate() {
            narrator.plain(format!("  {:<8}  {group}", if number == 0 { "cloud" } else { "" }));
        }
    }

    /// Fails when one of our programs has ended by itself.
    fn alive(&mut self) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                why = self.gpu_node.finished() => Err(why),
                end = &mut self.provider => end?.and_then(|()| bail!("nobody asked it to")).context("the provider ended"),
                () = std::future::ready(()) => Ok(()),
            }
        })
    }

    fn machines(&mut self, narrator: &Narrator, now: Timestamp) -> anyhow::Result<()> {
        for news in self.kubelets.step(&mut self.cluster, &mut self.caller, now)? {
            match news {
                News::Booting { machine, group, zone } => {
                    self.tally.came += 1;
                    narrator.event("cloud", format!("{group}: machine {machine} boots in {zone}"));
                }
                News::Registered { node, waits_for_gpus } => {
                    let gpus = if waits_for_gpus { "; its GPU is not there yet" } else { "" };
                    narrator.event("node", format!("{node} registers{gpus}"));
                }
                News::GpusReady { node } => narrator.event("node", format!("{node} shows its GPU")),
                News::Gone { node } => {
                    self.tally.gone += 1;
                    narrator.event("node", format!("{node} is gone"));
                }
            }
        }
        Ok(())
    }

    fn pods(&mut self, narrator: &Narrator, now: Timestamp) -> anyhow::Result<()> {
        for (uid, node) in self.cluster.bind() {
            let Some(pod) = self.cluster.pods.get(&uid) else { continue };
            narrator.event("pod", format!("{} runs on {node}", pod.name));
            if self.watched_pod.is_none() && pod.requests.contains_key(GPU) {
                self.watched_pod = Some((pod.name.clone(), now));
                self.gpu_node.hold(Some(&pod.name))?;
            }
        }
        Ok(())
    }

    fn people(&mut self, narrator: &Narrator, now: Timestamp) -> anyhow::Result<()> {
        self.tally.begun.get_or_insert(now);
        let story = self.story.get_or_insert_with(|| Story::new(now));
        let turn = story.turn(&mut self.cluster, self.tally.measured, now);
        if let Some(heading) = turn.begins.and_then(Chapter::heading) {
            narrator.chapter(heading);
        }
        for (pod, wants) in turn.waits {
            narrator.event("pod", format!("{pod} waits for {wants}"));
        }
        for pod in turn.done {
            narrator.event("pod", format!("{pod} is done"));
            if self.watched_pod.as_ref().is_some_and(|(watched, _)| *watched == pod) {
                self.gpu_node.hold(None)?;
            }
        }
        if turn.begins == Some(Chapter::End) {
            self.tally.took = self.tally.begun.map_or(Duration::ZERO, |begun| now.since(begun));
        }
        Ok(())
    }

    /// What the agent says about the pod that it watches: its figures once they have settled, and nothing once it is
    /// done.
    fn measure(&mut self, narrator: &Narrator, now: Timestamp) {
        let Some((pod, since)) = &self.watched_pod else { return };
        let working = self.story.as_ref().is_some_and(|story| story.chapter == Chapter::Working);
        if self.tally.measured && !working && self.gpu_node.measured(pod).is_none() {
            narrator.event("agent", format!("{pod} is gone from /metrics: what is not there is absent, not 0"));
            self.watched_pod = None;
        } else if working
            && !self.tally.measured
            && now.since(*since) >= SETTLED
            && let Some(measured) = self.gpu_node.measured(pod)
        {
            self.tally.measured = true;
            let gib = measured.memory / f64::from(1_u32 << 30);
            narrator.event("agent", format!("gpu_utilization{{pod=\"{pod}\"}} {:.0}  (percent)", measured.busy));
            narrator.more(format!("gpu_memory_used_bytes{{pod=\"{pod}\"}} {:.0}  ({gib:.1} GiB)", measured.memory));
        }
    }

    fn autoscale(&mut self, narrator: &Narrator, now: Timestamp) {
        let mut watched = Watched { caller: &mut self.caller, narrator, heard: &mut self.heard };
        for act in self.autoscaler.run_once(&self.cluster, &mut watched, now) {
            match act {
                Act::Taint { node } => self.taint(&node, true),
                Act::Untaint { node } => self.taint(&node, false),
                Act::Evict { pod } => {
                    self.cluster.pods.get_mut(&pod).into_iter().for_each(|pod| pod.node = None);
                }
                Act::Event { .. } => {}
                Act::Crash { why } => narrator.event("autoscaler", format!("crashes: {why}")),
            }
        }
    }

    fn taint(&mut self, node: &str, on: bool) {
        const KEY: &str = "ToBeDeletedByClusterAutoscaler";
        let Some(node) = self.cluster.nodes.get_mut(node) else { return };
        node.taints.retain(|taint| taint.key() != KEY);
        if on {
            let effect = Some("NoSchedule".to_owned());
            node.taints.push(Taint { key: Some(KEY.to_owned()), effect, ..Taint::default() });
        }
    }
}

/// A line for each group of the cloud: the machine, its GPUs and its price.
fn groups() -> anyhow::Result<Vec<String>> {
    let scenario = Scenario::parse(SCENARIO, Path::new("demo.yaml"))?;
    let line = |group: &Group| {
        let gpus = group.shape.gpus.as_ref().map_or_else(String::new, |gpus| format!("{} × T4", gpus.count));
        let dollars = group.price_micros.unwrap_or(0) / 100;
        let price = format!("${}.{:04}", dollars / 10_000, dollars % 10_000);
        format!("{:<16} {:<14} {gpus:<7}  {price} an hour", group.id.as_str(), group.shape.instance_type)
    };
    Ok(scenario.groups.values().map(|group| line(&group.group)).collect())
}

/// The provider's configuration, as an operator would write it.
fn configuration(folder: &TempDir) -> anyhow::Result<Config> {
    let place = |name: &str| -> PathBuf { folder.path().join(name) };
    let text = format!(
        "cloud: {{kind: sim, scenario: {}, state: {}}}\nprovider: {{listen: \"unix://{}\"}}\n\
         expander: {{listen: \"127.0.0.1:0\", selfSigned: {{caFile: {}, names: [localhost]}}}}\n\
         http: {{listen: \"127.0.0.1:0\"}}\nrefresh: 1s\n",
        place("scenario.yaml").display(),
        place("cloud.json").display(),
        place("provider.sock").display(),
        place("expander-ca.crt").display(),
    );
    let file = place("provider.yaml");
    std::fs::write(&file, text).context("write the provider's configuration")?;
    Config::load(&file).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow!("the provider's configuration: {}", problems.join("; "))
    })
}

fn wait_until_ready(pages: SocketAddr) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(50);
    let mut last = None;
    for _ in 0..READY.as_millis() / LOOK.as_millis() {
        match web::get(pages, "/readyz") {
            Ok(_) => return Ok(()),
            Err(why) => last = Some(why),
        }
        std::thread::sleep(LOOK);
    }
    match last {
        Some(why) => Err(why.context(format!("the provider is not ready after {} s", READY.as_secs()))),
        None => bail!("the provider was not asked"),
    }
}
