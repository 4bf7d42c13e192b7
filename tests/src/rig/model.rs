//! Drives a scenario with the model of the autoscaler's loop: a thread that reads the cluster from the apiserver, runs
//! the loop over gRPC, and carries out what the loop does to the cluster.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{EvictParams, Patch, PatchParams},
};
use prost::Message;
use serde_json::{Value, json};
use tonic::codegen::http;
use windlass_proto::core;
use windlass_provider::{
    replay::{
        autoscaler::{Act, Autoscaler, Era, Expander, Flags},
        cluster::{Cluster, NodeView, PodView},
    },
    timestamp::Timestamp,
};

use super::{autoscaler::Surroundings, provider::Door};
use crate::caller::Caller;

/// What every cluster-autoscaler marks a node with that it is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Between two loops at least.
const PAUSE: Duration = Duration::from_millis(20);
/// How soon it notices that it is to stop.
const ATTENTIVE: Duration = Duration::from_millis(200);

/// The model, running in a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Model {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Model {
    /// Starts the loop.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(around: Surroundings) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("autoscaler-model".to_owned())
            .spawn(move || run(&around, &stopped))
            .context("starting the model's thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Fails when the loop has ended.
    ///
    /// # Errors
    /// Says why it ended.
    pub fn alive(&mut self) -> Result<()> {
        if !self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            return Ok(());
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => Err(error.context("the model of the autoscaler ended")),
            Some(Err(panic)) => Err(anyhow!("the model of the autoscaler panicked: {panic:?}")),
            _ => bail!("the model of the autoscaler ended"),
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it ended with no longer matters.
            let _ = thread.join();
        }
    }
}

/// The thread: one loop after the other.
fn run(around: &Surroundings, stop: &AtomicBool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let roots = std::fs::read(&around.expander_roots).context("reading the trust root of the expander")?;
    let Door::Unix(socket) = &around.provider else { bail!("the model speaks over a unix socket only") };
    let mut caller = Caller::over_unix(socket, around.expander, &roots).context("a client for the relays")?;
    let flags = Flags::quick(Era::V1_36);
    let flags = Flags {
        expander: if around.expanders == "grpc" { Expander::Grpc } else { Expander::GrpcLeastWaste },
        scan_interval: around.scan_interval,
        max_backoff: around.max_backoff.unwrap_or(flags.max_backoff),
        frequent_loops: around.frequent_loops.unwrap_or(flags.frequent_loops),
        ..flags
    };
    let mut autoscaler = Autoscaler::new(Era::V1_36, flags);
    // A client belongs to the runtime that it was first used on.
    let client = runtime.block_on(async { super::plane::client_of(&around.kubeconfig) })?;
    while !stop.load(Ordering::Relaxed) {
        let begun = now();
        let cluster = runtime.block_on(read(&client))?;
        for act in autoscaler.run_once(&cluster, &mut caller, begun) {
            runtime.block_on(carry_out(&client, &cluster, &act, around))?;
        }
        let next = autoscaler.next_loop(begun).max(now() + PAUSE);
        while now() < next && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(next.since(now()).min(ATTENTIVE));
        }
    }
    Ok(())
}

fn now() -> Timestamp {
    Timestamp(u64::try_from(k8s_openapi::jiff::Timestamp::now().as_millisecond()).unwrap_or_default())
}

/// Does to the cluster what the loop decided.
async fn carry_out(client: &Client, cluster: &Cluster, act: &Act, around: &Surroundings) -> Result<()> {
    match act {
        Act::Taint { node } => taint(client, cluster, node, true).await,
        Act::Untaint { node } => taint(client, cluster, node, false).await,
        Act::Evict { pod } => {
            let Some(pod) = cluster.pods.get(pod) else { return Ok(()) };
            let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
            match pods.evict(&pod.name, &EvictParams::default()).await {
                // Gone, or held by a disruption budget: the next loop sees for itself.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => Ok(()),
                other => other.map(drop).context("evicting a pod"),
            }
        }
        Act::Event { reason, about, message } => {
            around.journal.act("autoscaler-says", json!({"reason": reason, "about": about, "message": message}));
            Ok(())
        }
        Act::Crash { why } => bail!("cluster-autoscaler would have crashed: {why}"),
    }
}

/// Writes the node's taints anew, with or without the mark of deletion.
async fn taint(client: &Client, cluster: &Cluster, node: &str, deleting: bool) -> Result<()> {
    let Some(seen) = cluster.nodes.get(node) else { return Ok(()) };
    let kept = seen.taints.iter().filter(|taint| taint.key() != TO_BE_DELETED);
    let mut taints: Vec<Value> =
        kept.map(|taint| json!({"key": taint.key(), "value": taint.value(), "effect": taint.effect()})).collect();
    if deleting {
        taints.push(json!({"key": TO_BE_DELETED, "value": (now().0 / 1000).to_string(), "effect": "NoSchedule"}));
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": {"taints": taints}}));
    match nodes.patch(node, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).context("tainting a node"),
    }
}

/// The whole cluster, as protobuf: the model reads the very messages that the autoscaler's client decodes.
async fn read(client: &Client) -> Result<Cluster> {
    let mut cluster = Cluster::default();
    for item in items(client, "/api/v1/nodes").await? {
        cluster.add_node(NodeView::from_proto(&core::Node::decode(item.as_slice()).context("a Node")?));
    }
    for item in items(client, "/api/v1/pods").await? {
        let placed = Placed::decode(item.as_slice()).context("a Pod")?;
        if matches!(placed.phase(), "Succeeded" | "Failed") {
            continue;
        }
        let pod = PodView::from_proto(&core::Pod::decode(item.as_slice()).context("a Pod")?);
        cluster.add_pod(PodView { node: placed.node().map(str::to_owned), ..pod });
    }
    Ok(cluster)
}

/// The items of a list, each still encoded.
async fn items(client: &Client, path: &str) -> Result<Vec<Vec<u8>>> {
    let request = http::Request::get(path).header("Accept", "application/vnd.kubernetes.protobuf");
    let request = request.body(kube::client::Body::empty()).context("writing a request")?;
    let answer = client.send(request).await.with_context(|| format!("listing {path}"))?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await.with_context(|| format!("reading {path}"))?.to_bytes();
    let message = bytes.strip_prefix(b"k8s\0").with_context(|| format!("{path} answered {status}, not protobuf"))?;
    let unknown = Unknown::decode(message).context("the envelope of a list")?;
    Ok(List::decode(unknown.raw.as_slice()).context("a list")?.items)
}

/// `runtime.Unknown`, the envelope of every message of the apiserver.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

/// `NodeList` and `PodList`.
#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(bytes = "vec", repeated, tag = "2")]
    items: Vec<Vec<u8>>,
}

/// What of a Pod says where it is.
#[derive(Clone, PartialEq, Message)]
struct Placed {
    #[prost(message, optional, tag = "2")]
    spec: Option<PlacedSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<PlacedStatus>,
}

/// `PodSpec.nodeName`.
#[derive(Clone, PartialEq, Message)]
struct PlacedSpec {
    #[prost(string, tag = "10")]
    node_name: String,
}

/// `PodStatus.phase`.
#[derive(Clone, PartialEq, Message)]
struct PlacedStatus {
    #[prost(string, tag = "1")]
    phase: String,
}

impl Placed {
    fn phase(&self) -> &str {
        self.status.as_ref().map_or("", |status| &status.phase)
    }

    fn node(&self) -> Option<&str> {
        self.spec.as_ref().map(|spec| spec.node_name.as_str()).filter(|node| !node.is_empty())
    }
}
