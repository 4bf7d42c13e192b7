//! The model of the autoscaler and our provider, whole, on the simulated cloud, in a circle: what one does is what the other
//! sees next. Nodes are played from what the provider lists. The real autoscaler does the same in the end-to-end rig.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use prost::Message as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use windlass_proto::{
    core,
    externalgrpc::{Instance, NodeGroupNodesRequest, NodeGroupTemplateNodeInfoRequest, instance_status::InstanceState},
};
use windlass_provider::{
    Running,
    config::Config,
    replay::{
        autoscaler::{Act, Autoscaler, Call, Era, Failure, Flags, Provider, Reply},
        cluster::{Cluster, NodeView, PodView},
    },
    timestamp::Timestamp,
};
use windlass_tests::{caller::Caller, recording::VERSIONS};

/// Long enough on a busy machine; a story takes a second or two.
const PATIENCE: Duration = Duration::from_mins(2);
/// From registration until the GPUs are allocatable.
const DEVICE_DELAY: Duration = Duration::from_millis(150);

const GPU_LABEL: &str = "windlass.example/accelerator";

const GROUPS: &str = "\
seed: 1
gpuLabel: windlass.example/accelerator
machines: {pendingTime: 100ms, bootTime: 0s, deviceDelay: 0s, jitter: 0s, shutdownTime: 50ms}
groups:
  - {id: spot, max: 3, instanceType: g5.xlarge, market: spot, region: z, zones: [z-a], price: 0.4, cpu: 4, memory: 16Gi, gpu: {model: a10g, count: 1, memory: 24Gi}}
  - {id: on-demand, max: 3, instanceType: g5.xlarge, region: z, zones: [z-a], price: 1.0, cpu: 4, memory: 16Gi, gpu: {model: a10g, count: 1, memory: 24Gi}}
  - {id: plain, max: 3, instanceType: m7i.large, region: z, zones: [z-a], price: 0.1, cpu: 2, memory: 8Gi}
";

/// Counts what is bought.
struct Counted {
    caller: Caller,
    bought: BTreeMap<String, i32>,
}

impl Provider for Counted {
    fn call(&mut self, call: &Call) -> Result<Reply, Failure> {
        let reply = self.caller.call(call);
        if let (Call::IncreaseSize(request), Ok(_)) = (call, &reply) {
            *self.bought.entry(request.id.clone()).or_default() += request.delta;
        }
        reply
    }
}

/// Everything a story needs. Fields end in this order: the provider before its runtime.
struct Stage {
    autoscaler: Autoscaler,
    provider: Counted,
    cluster: Cluster,
    /// Groups whose machines never become Nodes.
    silent: Vec<&'static str>,
    /// Whether nodes get their GPU label only together with their GPUs.
    label_late: bool,
    era: Era,
    began: Instant,
    _running: Running,
    _runtime: Runtime,
    _folder: TempDir,
}

fn flags(era: Era) -> Flags {
    let millis = Duration::from_millis;
    Flags {
        scan_interval: millis(20),
        scale_down_delay_after_add: millis(200),
        unneeded_time: millis(300),
        unready_time: millis(600),
        initial_backoff: millis(500),
        delete_delay_after_taint: millis(20),
        unremovable_recheck: millis(100),
        ..Flags::quick(era)
    }
}

impl Stage {
    fn new(era: Era, scenario: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("scenario.yaml"), format!("{GROUPS}{scenario}")).unwrap();
        let text = format!(
            "cloud: {{kind: sim, scenario: {}}}\nprovider: {{listen: \"unix://{}\"}}\n\
             expander: {{listen: \"127.0.0.1:0\", selfSigned: {{caFile: {}, names: [localhost]}}}}\n\
             http: {{listen: \"127.0.0.1:0\"}}\nrefresh: 100ms\n{config}",
            path("scenario.yaml").display(),
            path("provider.sock").display(),
            path("roots.crt").display(),
        );
        let runtime = Runtime::new().unwrap();
        let config = Config::parse(&text, Path::new("config.yaml")).unwrap();
        let running = runtime.block_on(windlass_provider::start(config)).unwrap();
        let roots = std::fs::read(path("roots.crt")).unwrap();
        let caller = Caller::over_unix(&path("provider.sock"), running.expander, &roots).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the story runs against a real provider, in real time")]
        let began = Instant::now();
        Self {
            autoscaler: Autoscaler::new(era, flags(era)),
            provider: Counted { caller, bought: BTreeMap::new() },
            cluster: Cluster::default(),
            silent: Vec::new(),
            label_late: false,
            era,
            began,
            _running: running,
            _runtime: runtime,
            _folder: folder,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(1_000_000) + self.began.elapsed()
    }

    /// Another process with nothing in its memory.
    fn restart_autoscaler(&mut self) {
        self.autoscaler = Autoscaler::new(self.era, flags(self.era));
    }

    fn add_pods(&mut self, names: &[&str], gpus: u64) {
        for name in names {
            let amounts = [("cpu", 1000), ("memory", 1 << 30), ("nvidia.com/gpu", gpus)];
            let requests = amounts.into_iter().filter(|(_, amount)| *amount > 0);
            let requests = requests.map(|(name, amount)| (name.to_owned(), amount)).collect();
            let mut pod = PodView::new(name, &format!("uid-of-{name}"), requests, self.now());
            pod.controller = Some("ReplicaSet".into());
            pod.controller_uid = Some("uid-of-the-set".into());
            self.cluster.add_pod(pod);
        }
    }

    fn instances(&mut self, group: &str) -> Vec<Instance> {
        let call = Call::Nodes(NodeGroupNodesRequest { id: group.into() });
        match self.provider.call(&call) {
            Ok(Reply::Nodes(response)) => response.instances,
            _ => Vec::new(),
        }
    }

    /// Instances of all groups that are no mere placeholders.
    fn machines(&mut self) -> usize {
        let all =
            ["spot", "on-demand", "plain"].into_iter().flat_map(|group| self.instances(group)).collect::<Vec<_>>();
        all.into_iter()
            .filter(|instance| instance.status.as_ref().is_some_and(|status| status.error_info.is_none()))
            .count()
    }

    /// Kubelets and device plugins: a machine that runs becomes a Node, and shows its GPUs a moment later.
    fn play_nodes(&mut self, now: Timestamp) {
        let mut alive = Vec::new();
        for group in ["spot", "on-demand", "plain"] {
            let call = Call::TemplateNodeInfo(NodeGroupTemplateNodeInfoRequest { id: group.into() });
            let Ok(Reply::TemplateNodeInfo(response)) = self.provider.call(&call) else { return };
            let template = core::Node::decode(response.node_bytes.as_slice()).unwrap();
            for instance in self.instances(group) {
                alive.push(instance.id.clone());
                let running = instance.status.is_some_and(|status| {
                    status.instance_state() == InstanceState::InstanceRunning && status.error_info.is_none()
                });
                let whole =
                    NodeView::from_template(&template, &instance.id.replace(['/', ':'], "-"), &instance.id, now);
                match self.cluster.node_of_mut(&instance.id) {
                    None if running && !self.silent.contains(&group) => {
                        let mut node = whole.without_devices();
                        if self.label_late {
                            node.labels.remove(GPU_LABEL);
                        }
                        self.cluster.add_node(node);
                    }
                    Some(node) if now.since(node.created_at) >= DEVICE_DELAY => {
                        node.labels = whole.labels;
                        node.capacity = whole.capacity;
                        node.allocatable = whole.allocatable;
                    }
                    _ => {}
                }
            }
        }
        let gone = self.cluster.nodes.values().filter(|node| !alive.contains(&node.provider_id));
        let gone: Vec<String> = gone.map(|node| node.name.clone()).collect();
        for name in gone {
            self.cluster.remove_node(&name);
        }
    }

    fn turn(&mut self) {
        // One time for all: a machine that stalls in between must not make a node look old.
        let now = self.now();
        self.play_nodes(now);
        self.cluster.bind();
        for act in self.autoscaler.run_once(&self.cluster, &mut self.provider, now) {
            self.carry_out(act);
        }
        std::thread::sleep(Duration::from_millis(20));
    }

    fn carry_out(&mut self, act: Act) {
        const MARK: &str = "ToBeDeletedByClusterAutoscaler";
        match act {
            Act::Taint { node } => {
                if let Some(node) = self.cluster.nodes.get_mut(&node) {
                    let (key, effect) = (Some(MARK.to_owned()), Some("NoSchedule".to_owned()));
                    node.taints.push(core::Taint { key, value: None, effect });
                }
            }
            Act::Untaint { node } => {
                if let Some(node) = self.cluster.nodes.get_mut(&node) {
                    node.taints.retain(|taint| taint.key() != MARK);
                }
            }
            Act::Evict { pod } => {
                if let Some(pod) = self.cluster.pods.get_mut(&pod) {
                    pod.node = None;
                }
            }
            Act::Crash { why } => panic!("{why}"),
            Act::Event { .. } => {}
        }
    }

    /// Turns until this holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let start = self.began.elapsed();
        while !holds(self) {
            let bought = &self.provider.bought;
            assert!(self.began.elapsed() - start < PATIENCE, "{:?}: {what} did not come; bought {bought:?}", self.era);
            self.turn();
        }
    }

    fn until_all_run(&mut self) {
        self.until("every pod running", |stage| stage.cluster.pods.values().all(|pod| pod.node.is_some()));
    }

    fn check_bought(&self, expect: &[(&str, i32)]) {
        let expect = expect.iter().map(|(group, count)| ((*group).to_owned(), *count)).collect();
        assert_eq!(self.provider.bought, expect, "{:?}", self.era);
    }
}

#[test]
fn from_zero_to_two_and_back_in_every_era() {
    for (_, era) in VERSIONS {
        let mut stage = Stage::new(era, "", "");
        stage.add_pods(&["a", "b"], 1);
        stage.until_all_run();
        stage.check_bought(&[("spot", 2)]);
        stage.cluster.pods.clear();
        stage.until("the end of every machine", |stage| stage.machines() == 0 && stage.cluster.nodes.is_empty());
        stage.check_bought(&[("spot", 2)]);
    }
}

#[test]
fn a_stock_out_sends_the_pods_to_the_next_group() {
    for era in [Era::V1_29, Era::V1_36] {
        let mut stage = Stage::new(era, "events: [{at: 0s, group: spot, stockOut: true}]\n", "");
        stage.add_pods(&["a", "b"], 1);
        stage.until_all_run();
        assert_eq!(stage.provider.bought.get("on-demand"), Some(&2), "{era:?}: {:?}", stage.provider.bought);
        assert_eq!(stage.machines(), 2, "{era:?}");
    }
}

#[test]
fn machines_that_never_register_are_given_up_and_none_is_left_behind() {
    for era in [Era::V1_29, Era::V1_36] {
        let mut stage = Stage::new(era, "", "");
        stage.silent = vec!["spot"];
        let impatient = Flags { max_node_provision_time: Duration::from_millis(1500), ..flags(era) };
        stage.autoscaler = Autoscaler::new(era, impatient);
        stage.add_pods(&["a"], 1);
        stage.until_all_run();
        stage.until("the end of the silent machines", |stage| stage.instances("spot").is_empty());
        assert!(stage.provider.bought["spot"] <= 2, "{era:?}: {:?}", stage.provider.bought);
    }
}

#[test]
fn a_restart_buys_once_with_the_purchase_memory_and_once_more_without() {
    for (memory, expect) in [("true", 2), ("false", 3)] {
        let mut stage = Stage::new(Era::V1_36, "", &format!("purchaseMemory: {{enabled: {memory}}}\n"));
        stage.add_pods(&["a", "b"], 1);
        stage.until("a purchase", |stage| !stage.provider.bought.is_empty());
        stage.restart_autoscaler();
        stage.until_all_run();
        stage.check_bought(&[("spot", expect)]);
    }
}

/// What is bought for two GPU pods, in all.
fn bought_for_two(config: &str, label_late: bool) -> i32 {
    let mut stage = Stage::new(Era::V1_36, "", config);
    stage.label_late = label_late;
    stage.add_pods(&["a", "b"], 1);
    stage.until_all_run();
    stage.provider.bought.values().sum()
}

#[test]
fn answered_options_and_a_late_label_buy_too_much_without_the_purchase_memory_alone() {
    let overrides =
        "groups: {spot: {options: {scaleDownUnneededTime: 20m}}, on-demand: {options: {scaleDownUnneededTime: 20m}}}\n";
    let forgetful = "purchaseMemory: {enabled: false}\n";
    assert_eq!(bought_for_two(overrides, false), 2);
    assert_eq!(bought_for_two("", true), 2);
    assert!(
        bought_for_two(&format!("{overrides}{forgetful}"), false) > 2,
        "kubernetes/autoscaler#10245 no longer shows"
    );
    assert!(bought_for_two(forgetful, true) > 2, "a late label is no longer taken for a node without GPUs");
}

#[test]
fn a_half_empty_node_is_drained_into_another() {
    for era in [Era::V1_27, Era::V1_36] {
        let mut stage = Stage::new(era, "", "");
        // One each of four on two machines; their plain machines have two CPUs, a little of them reserved.
        stage.add_pods(&["a", "b", "c", "d"], 0);
        for pod in stage.cluster.pods.values_mut() {
            pod.requests.insert("cpu".into(), 900);
        }
        stage.until_all_run();
        stage.check_bought(&[("plain", 2)]);
        let mut kept = std::collections::BTreeSet::new();
        stage.cluster.pods.retain(|_, pod| kept.insert(pod.node.clone()));
        assert_eq!(stage.cluster.pods.len(), 2, "{era:?}: a pod on each machine");
        stage.until("one machine with both pods", |stage| stage.machines() == 1 && stage.cluster.nodes.len() == 1);
        stage.until_all_run();
        stage.check_bought(&[("plain", 2)]);
    }
}

#[test]
fn a_pod_without_gpus_buys_no_gpu() {
    let mut stage = Stage::new(Era::V1_36, "", "");
    stage.add_pods(&["a"], 0);
    stage.until_all_run();
    stage.check_bought(&[("plain", 1)]);
}
