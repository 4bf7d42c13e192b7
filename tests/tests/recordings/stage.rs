//! A recording cut into processes and loops, and the cluster as each loop saw it.
//!
//! What a recording does not say is taken from what the autoscaler asked: a Node had reached its informer when it looked
//! the node's group up, and a pod had when it was named in a `BestOptions` request (of pods created together, the others one
//! loop later). Everything else comes from the stage's acts.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use windlass_proto::{core, externalgrpc::ExternalGrpcNode};
use windlass_provider::{
    replay::{
        autoscaler::{Call, Failure, Reply},
        cluster::{Cluster, NodeView, PodView},
    },
    timestamp::Timestamp,
};
use windlass_tests::recording::{Line, Stage, What};

/// One call and its answer.
pub(crate) type Exchange = (Call, Result<Reply, Failure>);

/// The calls from one `Refresh` up to the next, or those before the first.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) at: Timestamp,
    pub(crate) calls: Vec<Exchange>,
}

/// One autoscaler process: its first segment is what it asked before its first loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(crate) segments: Vec<Segment>,
}

/// A recording.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) processes: Vec<Process>,
    acts: Vec<(Timestamp, Stage)>,
    templates: BTreeMap<String, core::Node>,
    group_of: BTreeMap<String, String>,
    pods: Vec<Arrival>,
}

/// What a recording's lines leave open.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hints {
    /// GPU pods wait half a minute before they are named: they were visible from the start.
    pub(crate) pods_wait: bool,
    /// How many pods the autoscaler had seen by each loop that asked the expander, where they came over several loops.
    pub(crate) seen: &'static [usize],
    /// See [`Race`].
    pub(crate) races: &'static [Race],
}

/// GPUs that became allocatable within milliseconds of a loop's start: the act's line alone does not say on which side the
/// autoscaler saw it; what it asked does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Race {
    /// The instance.
    pub(crate) instance: &'static str,
    /// By how many milliseconds to move the act.
    pub(crate) shift: i64,
}

/// A pod, and when the autoscaler could see it.
#[derive(Debug)]
struct Arrival {
    pod: PodView,
    visible: Timestamp,
}

/// The id of a fake node's instance is also its name.
pub(crate) fn is_real(node: &ExternalGrpcNode) -> bool {
    node.name != node.provider_id && !node.name.starts_with("template-node-for-")
}

fn looked_up(call: &Call) -> Option<&ExternalGrpcNode> {
    match call {
        Call::NodeGroupForNode(request) => request.node.as_ref().filter(|node| is_real(node)),
        _ => None,
    }
}

impl Story {
    /// Cuts a recording.
    pub(crate) fn new(lines: &[Line], hints: &Hints) -> Self {
        let mut story = Self::default();
        for line in lines {
            match &line.what {
                What::Stage(stage) => {
                    let raced = hints.races.iter().find(|race| *stage == Stage::GpuReady(race.instance.to_owned()));
                    let at = raced.map_or(line.at, |race| Timestamp(line.at.0.saturating_add_signed(race.shift)));
                    if *stage == Stage::Started {
                        let segments = vec![Segment { at: line.at, calls: Vec::new() }];
                        story.processes.push(Process { segments });
                    }
                    story.acts.push((at, stage.clone()));
                }
                What::Rpc(rpc) => story.add(line.at, rpc.call().unwrap(), rpc.reply()),
            }
        }
        for process in &mut story.processes {
            gather_startup(process);
        }
        story.pods = story.arrivals(hints);
        story
    }

    fn add(&mut self, at: Timestamp, call: Call, reply: Result<Reply, Failure>) {
        if let (Call::TemplateNodeInfo(request), Ok(Reply::TemplateNodeInfo(response))) = (&call, &reply) {
            let bytes = if response.node_bytes.is_empty() { &response.node_info } else { &response.node_bytes };
            self.templates.insert(request.id.clone(), core::Node::decode(bytes.as_slice()).unwrap());
        }
        if let (Some(node), Ok(Reply::NodeGroupForNode(response))) = (looked_up(&call), &reply)
            && let Some(group) = &response.node_group
        {
            self.group_of.insert(node.name.clone(), group.id.clone());
        }
        let process = self.processes.last_mut().unwrap();
        if call == Call::Refresh {
            process.segments.push(Segment { at, calls: Vec::new() });
        }
        process.segments.last_mut().unwrap().calls.push((call, reply));
    }

    /// Pods by the act that created them.
    fn arrivals(&self, hints: &Hints) -> Vec<Arrival> {
        let mut named: BTreeMap<String, (Timestamp, PodView)> = BTreeMap::new();
        for segment in self.segments() {
            for pod in segment.calls.iter().flat_map(|(call, _)| pods_of(call)) {
                named.entry(pod.uid.clone()).or_insert((segment.at, pod));
            }
        }
        let mut named: Vec<(Timestamp, PodView)> = named.into_values().collect();
        named.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        let mut named = named.into_iter();
        let mut arrivals = Vec::new();
        for (number, (at, act)) in self.acts.iter().enumerate() {
            let Stage::PodsCreated { count, gpus } = act else { continue };
            let pods: Vec<(Timestamp, PodView)> = named.by_ref().take(*count).collect();
            let first = pods.first().map(|(seen, _)| *seen);
            let unnamed =
                (pods.len()..*count).map(|index| (*at, never_named(&format!("unnamed-{number}-{index}"), *gpus)));
            for (index, (seen, mut pod)) in pods.iter().cloned().chain(unnamed).enumerate() {
                pod.created_at = *at;
                let visible = match first {
                    _ if hints.pods_wait => {
                        // Their age counts from a creation time that Kubernetes cuts to whole seconds.
                        pod.created_at = Timestamp(at.0 - 500);
                        *at
                    }
                    _ if !hints.seen.is_empty() => self.seen(hints.seen, index),
                    None => *at,
                    Some(first) if seen == first => first,
                    Some(first) => Timestamp(first.0 + 1),
                };
                arrivals.push(Arrival { pod, visible });
            }
        }
        arrivals
    }

    /// The start of the loop that asked the expander and had seen more pods than this.
    fn seen(&self, seen: &[usize], index: usize) -> Timestamp {
        let asking = self
            .segments()
            .filter(|segment| segment.calls.iter().any(|(call, _)| matches!(call, Call::BestOptions(_))));
        let loops = asking.zip(seen).find(|(_, count)| index < **count);
        loops.map_or(Timestamp(u64::MAX), |(segment, _)| segment.at)
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.processes.iter().flat_map(|process| &process.segments)
    }

    /// The cluster when this segment's loop read it. `marks`: nodes that the model has marked for deletion.
    pub(crate) fn cluster(&self, segment: &Segment, marks: &BTreeSet<String>) -> Cluster {
        let mut cluster = Cluster::default();
        for node in self.nodes(segment) {
            cluster.add_node(self.node(&node, segment.at, marks));
        }
        let deleted: Vec<&String> = self
            .before(segment.at)
            .filter_map(|act| match act {
                Stage::PodsDeleted(prefix) => Some(prefix),
                _ => None,
            })
            .collect();
        for arrival in self.pods.iter().filter(|arrival| arrival.visible <= segment.at) {
            if deleted.iter().any(|prefix| arrival.pod.name.starts_with(prefix.as_str())) {
                continue;
            }
            let mut pod = arrival.pod.clone();
            pod.node = self.before(segment.at).find_map(|act| match act {
                Stage::PodRunning { pod: name, node } if *name == pod.name => Some(node.clone()),
                _ => None,
            });
            cluster.add_pod(pod);
        }
        cluster
    }

    fn before(&self, at: Timestamp) -> impl Iterator<Item = &Stage> {
        self.acts.iter().filter(move |(when, _)| *when < at).map(|(_, act)| act)
    }

    /// Nodes the loop knew: those it looked up before its last reading of sizes. Where it ended at `Refresh`, those the stage had.
    fn nodes(&self, segment: &Segment) -> Vec<ExternalGrpcNode> {
        let last_size = segment.calls.iter().rposition(|(call, _)| matches!(call, Call::TargetSize(_)));
        let mut nodes: BTreeMap<String, ExternalGrpcNode> = BTreeMap::new();
        if let Some(last) = last_size {
            for node in segment.calls[..last].iter().filter_map(|(call, _)| looked_up(call)) {
                nodes.insert(node.name.clone(), node.clone());
            }
        } else {
            let gone = |id: &String| self.before(segment.at).any(|act| *act == Stage::NodeGone(id.clone()));
            for act in self.before(segment.at) {
                if let Stage::NodeRegistered(id) = act
                    && !gone(id)
                    && let Some(node) = self.any_look_up(id)
                {
                    nodes.insert(node.name.clone(), node);
                }
            }
        }
        nodes.into_values().collect()
    }

    fn any_look_up(&self, id: &str) -> Option<ExternalGrpcNode> {
        let calls = self.segments().flat_map(|segment| &segment.calls);
        calls.filter_map(|(call, _)| looked_up(call)).find(|node| node.provider_id == id).cloned()
    }

    fn node(&self, seen: &ExternalGrpcNode, at: Timestamp, marks: &BTreeSet<String>) -> NodeView {
        let registered = self
            .acts
            .iter()
            .find(|(_, act)| *act == Stage::NodeRegistered(seen.provider_id.clone()))
            .map_or(at, |(when, _)| *when);
        let template = self.group_of.get(&seen.name).and_then(|group| self.templates.get(group)).unwrap();
        let mut node = NodeView::from_template(template, &seen.name, &seen.provider_id, registered);
        node.labels = seen.labels.clone().into_iter().collect();
        node.annotations = seen.annotations.clone().into_iter().collect();
        if !self.before(at).any(|act| *act == Stage::GpuReady(seen.provider_id.clone())) {
            node = node.without_devices();
        }
        if marks.contains(&seen.name) {
            node.taints.push(core::Taint {
                key: Some("ToBeDeletedByClusterAutoscaler".into()),
                value: None,
                effect: Some("NoSchedule".into()),
            });
        }
        node
    }
}

/// Pods that a call names and the cluster holds.
fn pods_of(call: &Call) -> Vec<PodView> {
    let pods: Vec<&[u8]> = match call {
        Call::BestOptions(request) => {
            let lists = request.options.iter().flat_map(|option| [&option.pod, &option.pod_bytes]);
            lists.flatten().map(AsRef::as_ref).collect()
        }
        Call::PricingPodPrice(request) => vec![&request.pod, &request.pod_bytes],
        _ => Vec::new(),
    };
    let pods = pods.into_iter().map(|bytes| PodView::from_proto(&core::Pod::decode(bytes).unwrap()));
    pods.filter(|pod| !pod.uid.is_empty()).collect()
}

/// A pod that no request of the recording shows, like those that one does.
fn never_named(name: &str, gpus: u64) -> PodView {
    let amounts = [("cpu", 2000), ("memory", 4 << 30), ("nvidia.com/gpu", gpus)];
    let requests = amounts.into_iter().filter(|(_, amount)| *amount > 0);
    let requests = requests.map(|(name, amount)| (name.to_owned(), amount)).collect();
    let mut pod = PodView::new(name, name, requests, Timestamp(0));
    pod.tolerations.push(core::Toleration {
        key: Some("nvidia.com/gpu".into()),
        operator: Some("Exists".into()),
        ..core::Toleration::default()
    });
    pod
}

/// The instance lists are first read by a task of their own, which may lose the race with the first loop: what it asked goes
/// back to the start.
fn gather_startup(process: &mut Process) {
    let groups = |segment: &Segment| segment.calls.iter().filter(|(call, _)| matches!(call, Call::Nodes(_))).count();
    if process.segments.len() < 2 {
        return;
    }
    let all: BTreeSet<String> = process
        .segments
        .iter()
        .flat_map(|segment| &segment.calls)
        .filter_map(|(call, _)| match call {
            Call::TargetSize(request) => Some(request.id.clone()),
            _ => None,
        })
        .collect();
    let missing = all.len().saturating_sub(groups(&process.segments[0]));
    let mut moved = Vec::new();
    process.segments[1].calls.retain(|exchange| {
        let take = matches!(exchange.0, Call::Nodes(_)) && moved.len() < missing;
        if take {
            moved.push(exchange.clone());
        }
        !take
    });
    process.segments[0].calls.extend(moved);
}
