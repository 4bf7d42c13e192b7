//! A provider in this process, in front of an embedded cloud, and a client of it.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use tempfile::TempDir;
use tonic::{Code, Status, transport::Channel};
use windlass_proto::externalgrpc::{
    ExternalGrpcNode, Instance, NodeGroupDecreaseTargetSizeRequest, NodeGroupDeleteNodesRequest,
    NodeGroupForNodeRequest, NodeGroupIncreaseSizeRequest, NodeGroupNodesRequest, NodeGroupTargetSizeRequest,
    RefreshRequest, cloud_provider_client::CloudProviderClient,
};
use windlass_provider::{Running, config::Config, snapshot::Snapshot};

/// How long anything may take. What is waited for comes within seconds; a machine that stalls may take longer.
const PATIENCE: Duration = Duration::from_mins(2);

/// Three groups: `spot` has two machines to start with, `od` costs more, `cpu` has no GPU.
pub(crate) const GROUPS: &str = "
gpuLabel: example.com/accelerator
machines: {pendingTime: 10ms, bootTime: 10ms, deviceDelay: 10ms, shutdownTime: 50ms}
groups:
  - {id: spot, min: 1, max: 5, initial: 2, instanceType: g5.xlarge, market: spot, region: r, zones: [r-a], price: 0.4,
     cpu: 4, memory: 16Gi, gpu: {model: a10g, count: 1, memory: 24Gi},
     taints: [{key: nvidia.com/gpu, value: present, effect: NoSchedule}], labels: {team: vision}}
  - {id: od, max: 5, instanceType: g5.xlarge, region: r, zones: [r-a], price: 1.0,
     cpu: 4, memory: 16Gi, gpu: {model: a10g, count: 1, memory: 24Gi}}
  - {id: cpu, max: 5, instanceType: m7i.xlarge, region: r, zones: [r-a], price: 0.2, cpu: 4, memory: 16Gi}
";

pub(crate) struct Stage {
    pub(crate) folder: TempDir,
    pub(crate) running: Option<Running>,
    pub(crate) client: CloudProviderClient<Channel>,
}

impl Stage {
    /// The three groups with these events, listed once.
    pub(crate) async fn start(events: &str) -> Self {
        let mut stage = Self::start_unsynced(events, "").await;
        stage.sync().await;
        stage
    }

    /// The same with more configuration, and without waiting.
    pub(crate) async fn start_unsynced(events: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        happens(folder.path(), events);
        let text = format!(
            "cloud: {{kind: sim, scenario: scenario.yaml, state: sim.json}}
provider: {{listen: \"unix://{0}/provider.sock\"}}
expander: {{listen: \"127.0.0.1:0\", selfSigned: {{caFile: ca.crt}}}}
http: {{listen: \"127.0.0.1:0\"}}
refresh: 100ms
state: state.json
{config}\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("windlass.yaml"), text).unwrap();
        let running = run(folder.path()).await;
        let client = connect(folder.path());
        Self { folder, running: Some(running), client }
    }

    /// Waits until the provider has seen its cloud.
    pub(crate) async fn sync(&mut self) {
        eventually("the first listing", async || self.client.clone().refresh(RefreshRequest {}).await.is_ok()).await;
    }

    /// Ends the provider as a kill would, and starts it again on the same files.
    pub(crate) async fn restart(&mut self) {
        drop(self.running.take());
        self.let_go().await;
        self.running = Some(run(self.folder.path()).await);
        self.client = connect(self.folder.path());
        self.sync().await;
    }

    /// Waits until nobody listens on the socket: aborted tasks let go of it when they are next run.
    pub(crate) async fn let_go(&self) {
        let socket = self.folder.path().join("provider.sock");
        eventually("the socket is free", async || std::os::unix::net::UnixStream::connect(&socket).is_err()).await;
    }

    /// From the cloud's next call on these events happen, and no others.
    pub(crate) fn happens(&self, events: &str) {
        happens(self.folder.path(), events);
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.running.as_ref().unwrap().shared.keeper.snapshot()
    }

    /// Waits until the cloud has been listed anew, twice: what was true before is seen now.
    pub(crate) async fn relisted(&self) {
        for _ in 0..2 {
            let before = self.snapshot().synced_at;
            eventually("the cloud is listed again", async || self.snapshot().synced_at > before).await;
        }
    }

    pub(crate) async fn target(&self, id: &str) -> i32 {
        let request = NodeGroupTargetSizeRequest { id: id.to_owned() };
        self.client.clone().node_group_target_size(request).await.unwrap().into_inner().target_size
    }

    pub(crate) async fn nodes(&self, id: &str) -> Vec<Instance> {
        let request = NodeGroupNodesRequest { id: id.to_owned() };
        self.client.clone().node_group_nodes(request).await.unwrap().into_inner().instances
    }

    /// Ids of machines that exist, in order.
    pub(crate) async fn machines(&self, id: &str) -> Vec<String> {
        let nodes = self.nodes(id).await.into_iter().map(|node| node.id);
        nodes.filter(|id| !id.starts_with("windlass://")).collect()
    }

    pub(crate) async fn increase(&self, id: &str, delta: i32) -> Result<(), Status> {
        let request = NodeGroupIncreaseSizeRequest { delta, id: id.to_owned() };
        self.client.clone().node_group_increase_size(request).await.map(|_| ())
    }

    pub(crate) async fn decrease(&self, id: &str, delta: i32) -> Result<(), Status> {
        let request = NodeGroupDecreaseTargetSizeRequest { delta, id: id.to_owned() };
        self.client.clone().node_group_decrease_target_size(request).await.map(|_| ())
    }

    pub(crate) async fn delete(&self, id: &str, nodes: Vec<ExternalGrpcNode>) -> Result<(), Status> {
        let request = NodeGroupDeleteNodesRequest { nodes, id: id.to_owned() };
        self.client.clone().node_group_delete_nodes(request).await.map(|_| ())
    }

    /// The id and the sizes of a node's group.
    pub(crate) async fn group_of(&self, node: ExternalGrpcNode) -> (String, i32, i32) {
        let request = NodeGroupForNodeRequest { node: Some(node) };
        let group = self.client.clone().node_group_for_node(request).await.unwrap().into_inner().node_group;
        let group = group.unwrap_or_default();
        (group.id, group.min_size, group.max_size)
    }
}

/// Writes the scenario as a whole: a provider that runs may read it at any time.
fn happens(folder: &Path, events: &str) {
    let (aside, file) = (folder.join("scenario.new"), folder.join("scenario.yaml"));
    std::fs::write(&aside, format!("{GROUPS}\n{events}\n")).unwrap();
    std::fs::rename(aside, file).unwrap();
}

async fn run(folder: &Path) -> Running {
    let config = Config::load(&folder.join("windlass.yaml")).unwrap();
    windlass_provider::start(config).await.unwrap()
}

fn connect(folder: &Path) -> CloudProviderClient<Channel> {
    let address = format!("unix://{}/provider.sock", folder.display());
    CloudProviderClient::new(tonic::transport::Endpoint::from_shared(address).unwrap().connect_lazy())
}

/// A node as CA sends it.
pub(crate) fn node(id: &str) -> ExternalGrpcNode {
    ExternalGrpcNode { provider_id: id.to_owned(), name: format!("node-of-{id}"), ..ExternalGrpcNode::default() }
}

/// A node that CA makes up for a machine that has none.
pub(crate) fn fake(id: &str, reason: &str) -> ExternalGrpcNode {
    let annotations = [("k8s.io/cluster-autoscaler/fake-node-reason".to_owned(), reason.to_owned())].into();
    ExternalGrpcNode { provider_id: id.to_owned(), name: id.to_owned(), annotations, ..ExternalGrpcNode::default() }
}

pub(crate) fn code(answer: Result<(), Status>) -> Code {
    answer.map_or_else(|status| status.code(), |()| Code::Ok)
}

/// Waits for something that has to come true; how long it takes is not asserted.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let wait = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never came true: {what}");
}
