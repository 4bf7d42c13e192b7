//! A faked account, the shipped provider on it, and a client of the provider's: with the few acts and waits that tests
//! are made of.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use prost::Message as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::{Channel, Endpoint};
use windlass_proto::core::Node;
use windlass_proto::externalgrpc::{
    ExternalGrpcNode, Instance, NodeGroup, NodeGroupDecreaseTargetSizeRequest, NodeGroupDeleteNodesRequest,
    NodeGroupForNodeRequest, NodeGroupIncreaseSizeRequest, NodeGroupNodesRequest, NodeGroupTargetSizeRequest,
    NodeGroupTemplateNodeInfoRequest, NodeGroupsRequest, RefreshRequest, cloud_provider_client::CloudProviderClient,
    instance_status::InstanceState,
};
use windlass_tests::{
    aws::{ACCESS_KEY, Asg, AwsCloud, REGION},
    port::Port,
    program,
};

/// How long anything may take. What is waited for comes within seconds; a machine that stalls may take longer.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running provider and its account. Dropping it ends both.
pub(crate) struct Stage {
    /// The account.
    pub(crate) cloud: AwsCloud,
    /// A client of the provider.
    pub(crate) client: CloudProviderClient<Channel>,
    program: Option<Child>,
    environment: Vec<(String, String)>,
    http: Port,
    /// Where configuration, log and state lie.
    pub(crate) folder: tempfile::TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the provider's log:\n{}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}

/// A group of the cluster `c1` with a GPU, in two zones, of five machines at most.
pub(crate) fn gpu_group() -> Asg {
    Asg::new(&["us-east-1a", "us-east-1b"])
        .between(0, 5)
        .of_cluster("c1")
        .node_template("label/node.kubernetes.io/instance-type", "g5.xlarge")
        .node_template("label/k8s.amazonaws.com/accelerator", "nvidia-a10g")
}

impl Stage {
    /// The provider with its usual configuration; waits until it lists groups.
    pub(crate) async fn new(cloud: AwsCloud) -> Self {
        Self::with(cloud, &json!({})).await
    }

    /// The same for one group, `gpu`.
    pub(crate) async fn of(group: Asg) -> Self {
        let cloud = AwsCloud::start().unwrap();
        cloud.add("gpu", group);
        Self::new(cloud).await
    }

    /// The provider with `settings` over its usual configuration, section by section; waits until it lists groups.
    pub(crate) async fn with(cloud: AwsCloud, settings: &Value) -> Self {
        let mut stage = Self::prepared(cloud, settings, &[]);
        stage.start();
        let listed = async |stage: &mut Self| !stage.groups().await.is_empty();
        stage.until("the groups are listed", listed).await;
        stage
    }

    /// Everything but the running program; `environment` goes over the usual one, an empty value takes one away.
    pub(crate) fn prepared(cloud: AwsCloud, settings: &Value, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let http = Port::hold().unwrap();
        let mut config = json!({
            "cloud": {"kind": "aws", "region": REGION, "endpoint": cloud.endpoint(), "clusterName": "c1"},
            "provider": {"listen": format!("unix://{at}/provider.sock")},
            "expander": {"listen": "127.0.0.1:0", "selfSigned": {"caFile": format!("{at}/ca.crt")}},
            "http": {"listen": http.address()},
            "state": format!("{at}/state.json"),
            "refresh": "200ms",
        });
        merge(&mut config, settings);
        std::fs::write(folder.path().join("windlass.yaml"), config.to_string()).unwrap();
        let usual = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", "not-a-secret"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        let all = usual.iter().chain(environment).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let socket = format!("unix://{at}/provider.sock");
        let client = CloudProviderClient::new(Endpoint::try_from(socket).unwrap().connect_lazy());
        Self { cloud, client, program: None, environment: all.collect(), http, folder }
    }

    /// Starts the program, or starts it again.
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.command();
        command.arg("--config").arg(self.path("windlass.yaml"));
        self.program = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Another command of the program, as `doctor`, in the same environment; it is done when this returns.
    pub(crate) fn run(&self, arguments: &[&str]) -> std::process::Output {
        self.command().args(arguments).arg("--config").arg(self.path("windlass.yaml")).output().unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program::provider().unwrap());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            // Whoever runs the tests may have an account of their own, or a proxy.
            if text.starts_with("AWS_") || text.ends_with("_PROXY") {
                command.env_remove(&name);
            }
        }
        for (name, value) in &self.environment {
            _ = if value.is_empty() { command.env_remove(name) } else { command.env(name, value) };
        }
        command.stdin(Stdio::null());
        command
    }

    /// Ends the program as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            let _ = program.kill();
            let _ = program.wait();
        }
    }

    /// A file of the stage.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until it is so.
    pub(crate) async fn until(&mut self, what: &str, mut is: impl AsyncFnMut(&mut Self) -> bool) {
        let wait = async {
            while !is(self).await {
                self.lives(what);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "in {PATIENCE:?} it never came that {what}");
    }

    /// A program that was started and has ended by itself is worth no wait.
    fn lives(&mut self, what: &str) {
        let ended = self.program.as_mut().and_then(|program| program.try_wait().unwrap());
        assert!(ended.is_none(), "the provider ended ({}) before {what}", ended.unwrap_or_default());
    }

    /// Waits until a call has been made so many times more, however it went.
    pub(crate) async fn asked(&mut self, action: &str, times: usize) {
        let before = self.cloud.calls(action).len();
        let asked = async |stage: &mut Self| stage.cloud.calls(action).len() >= before + times;
        self.until(&format!("{action} is called again"), asked).await;
    }

    /// Waits until the cloud has been listed anew, twice: what was true before is seen now.
    pub(crate) async fn relisted(&mut self) {
        let listed =
            |stage: &Self| stage.cloud.calls("DescribeAutoScalingGroups").iter().filter(|it| !it.failed).count();
        let before = listed(self);
        self.until("the cloud is listed again", async |stage| listed(stage) >= before + 3).await;
    }

    /// Every group; none when the provider does not answer.
    pub(crate) async fn groups(&mut self) -> Vec<NodeGroup> {
        let answer = self.client.node_groups(NodeGroupsRequest {}).await;
        answer.map(|answer| answer.into_inner().node_groups).unwrap_or_default()
    }

    /// `IncreaseSize`, and whether it was granted.
    pub(crate) async fn increase(&mut self, group: &str, delta: i32) -> Result<(), tonic::Status> {
        let request = NodeGroupIncreaseSizeRequest { delta, id: group.to_owned() };
        self.client.node_group_increase_size(request).await.map(drop)
    }

    /// `DecreaseTargetSize` by `-delta`, and whether it was granted.
    pub(crate) async fn decrease(&mut self, group: &str, delta: i32) -> Result<(), tonic::Status> {
        let request = NodeGroupDecreaseTargetSizeRequest { delta, id: group.to_owned() };
        self.client.node_group_decrease_target_size(request).await.map(drop)
    }

    /// `DeleteNodes` of these instances, by provider id, and whether it was granted.
    pub(crate) async fn delete(&mut self, group: &str, ids: &[&str]) -> Result<(), tonic::Status> {
        let node = |id: &&str| ExternalGrpcNode {
            provider_id: (*id).to_owned(),
            name: (*id).to_owned(),
            ..Default::default()
        };
        let request = NodeGroupDeleteNodesRequest { nodes: ids.iter().map(node).collect(), id: group.to_owned() };
        self.client.node_group_delete_nodes(request).await.map(drop)
    }

    /// `Refresh`, as each loop of the autoscaler begins.
    pub(crate) async fn refresh(&mut self) -> Result<(), tonic::Status> {
        self.client.refresh(RefreshRequest {}).await.map(drop)
    }

    /// The autoscaler shows a real node, as it does in each loop.
    pub(crate) async fn shown(&mut self, name: &str, provider_id: &str) {
        let node =
            ExternalGrpcNode { provider_id: provider_id.to_owned(), name: name.to_owned(), ..Default::default() };
        let request = NodeGroupForNodeRequest { node: Some(node) };
        self.client.node_group_for_node(request).await.unwrap();
    }

    /// The group's target.
    pub(crate) async fn target(&mut self, group: &str) -> i32 {
        let request = NodeGroupTargetSizeRequest { id: group.to_owned() };
        self.client.node_group_target_size(request).await.unwrap().into_inner().target_size
    }

    /// The node that a new machine of the group would be; None while there is none.
    pub(crate) async fn template_of(&mut self, group: &str) -> Option<Node> {
        let request = NodeGroupTemplateNodeInfoRequest { id: group.to_owned() };
        let answer = self.client.node_group_template_node_info(request).await.ok()?.into_inner();
        Some(Node::decode(answer.node_bytes.as_slice()).unwrap())
    }

    /// The group's instances.
    pub(crate) async fn instances(&mut self, group: &str) -> Vec<Instance> {
        let request = NodeGroupNodesRequest { id: group.to_owned() };
        self.client.node_group_nodes(request).await.unwrap().into_inner().instances
    }

    /// How many of the group's instances are in this state, without any error.
    pub(crate) async fn count(&mut self, group: &str, state: InstanceState) -> usize {
        let is = |it: &Instance| {
            it.status.as_ref().is_some_and(|it| it.instance_state() == state && it.error_info.is_none())
        };
        self.instances(group).await.iter().filter(|it| is(it)).count()
    }

    /// The errors that the group shows, as (class, code, message).
    pub(crate) async fn errors(&mut self, group: &str) -> Vec<(i32, String, String)> {
        let error = |it: Instance| it.status?.error_info;
        let errors = self.instances(group).await.into_iter().filter_map(error);
        errors.map(|it| (it.instance_error_class, it.error_code, it.error_message)).collect()
    }

    /// What its HTTP listener answers at a path; empty when it does not.
    pub(crate) async fn page(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.http.address()).await else { return String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }
}

/// Writes `over` over `base`, object by object; null takes a key away.
fn merge(base: &mut Value, over: &Value) {
    let (Some(into), Some(from)) = (base.as_object_mut(), over.as_object()) else {
        *base = over.clone();
        return;
    };
    for (key, value) in from {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
