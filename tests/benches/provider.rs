//! The provider at size: 1,000 groups and 15,000 nodes on the embedded cloud, every read RPC over the unix socket, and
//! BestOptions with 200 groups and 30,000 pods over TLS. `cargo bench -p windlass-tests --bench provider` prints tables.
//!
//! Percentiles are those of the machine as it is; `taskset -c 0 chrt -f 10` before the program keeps others off its core.
//! The provider runs in a process of its own (this program again, with `--serve`), so that its memory is its own.

#![expect(clippy::print_stdout, reason = "a bench prints its tables")]

use std::{
    fmt::Write as _,
    fs,
    future::Future,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use prost::{Message as _, bytes::Bytes};
use tonic::{
    Code, Response, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use windlass_proto::{
    core,
    expander::{BestOptionsRequest, Option as WireOption, expander_client::ExpanderClient},
    externalgrpc::{self as wire, cloud_provider_client::CloudProviderClient},
};
use windlass_provider::config::Config;

const GROUPS: usize = 1_000;
const NODES_EACH: usize = 15;
/// What cluster-autoscaler's own scalability goal speaks of.
const OPTIONS: usize = 200;
const PODS: usize = 30_000;
/// The most that cluster-autoscaler can be expected to send: its limit for what it receives.
const LARGEST: usize = 128 << 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "--serve") {
        return serve(Path::new(&arguments[place + 1]));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

/// The provider, with the runtime of its binary.
fn serve(config: &Path) -> Result<()> {
    let config = Config::load(config).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let running = windlass_provider::start(config).await?;
        let folder = running.expander.to_string();
        fs::write("expander.part", folder)?;
        fs::rename("expander.part", "expander")?;
        running.finished().await
    })
}

/// The provider's process, ended with this value.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Served {
    /// A line of the process's status, in MiB.
    fn memory(&self, key: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
    }
}

async fn measure() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = write_config(folder.path())?;
    let child = Command::new(std::env::current_exe()?).arg("--serve").arg(&config).current_dir(&folder).spawn()?;
    let served = Served(child);
    let expander = wait_for(&folder.path().join("expander")).await?;
    let socket = folder.path().join("provider.sock");
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
    let client = CloudProviderClient::new(channel);
    until_synced(&client).await?;

    println!("{GROUPS} groups, {} nodes, unix socket, one call after the other", GROUPS * NODES_EACH);
    println!("{:28} {:>7} {:>9} {:>9} {:>9}", "RPC", "calls", "p50 µs", "p99 µs", "max µs");
    reads(&client).await?;
    println!(
        "\nmemory of the provider: {:.1} MiB resident, {:.1} MiB at most",
        served.memory("VmRSS"),
        served.memory("VmHWM")
    );

    let roots = Certificate::from_pem(fs::read(folder.path().join("ca.crt"))?);
    let tls = ClientTlsConfig::new().ca_certificate(roots).domain_name("localhost");
    let channel = Endpoint::from_shared(format!("https://{expander}"))?.tls_config(tls)?.connect().await?;
    let mut client = ExpanderClient::new(channel).max_encoding_message_size(2 * LARGEST);
    println!(
        "\n{:46} {:>7} {:>8} {:>7} {:>7} {:>9} {:>8}",
        "BestOptions over TLS", "MiB", "best ms", "median", "worst", "RSS after", "at most"
    );
    let each = PODS / OPTIONS;
    let spread = question(|option| (option * each..(option + 1) * each).collect());
    best_options(&mut client, "200 options, 30,000 pods, each in one option", &spread).await?;
    println!(" {:9.1} {:8.1}", served.memory("VmRSS"), served.memory("VmHWM"));
    let same: Vec<usize> = (0..LARGEST / OPTIONS / pod(0).len()).collect();
    let named = format!("200 options that all name the same {} pods", same.len());
    best_options(&mut client, &named, &question(|_| same.clone())).await?;
    println!(" {:9.1} {:8.1}", served.memory("VmRSS"), served.memory("VmHWM"));
    Ok(())
}

fn write_config(folder: &Path) -> Result<std::path::PathBuf> {
    let mut scenario = "seed: 1\ngroups:\n".to_owned();
    for group in 0..GROUPS {
        let market = if group % 2 == 0 { "spot" } else { "on-demand" };
        let gpu = if group % 4 == 3 { "" } else { ", gpu: {model: nvidia-a10g, count: 1, memory: 24Gi}" };
        writeln!(
            scenario,
            "  - {{id: group-{group:04}, max: 100, initial: {NODES_EACH}, instanceType: type-{}, market: {market}, region: r, zones: [zone-a, zone-b, zone-c], price: {}, cpu: 8, memory: 32Gi{gpu}}}",
            group % 50,
            0.1 + (group % 37) as f64 / 10.0,
        )?;
    }
    fs::write(folder.join("scenario.yaml"), scenario)?;
    let config = folder.join("config.yaml");
    let text = format!(
        "cloud: {{kind: sim, scenario: scenario.yaml}}\n\
         provider: {{listen: \"unix://{}/provider.sock\"}}\n\
         expander: {{listen: \"127.0.0.1:0\", selfSigned: {{caFile: ca.crt}}}}\n\
         http: {{listen: \"127.0.0.1:0\"}}\n",
        folder.display()
    );
    fs::write(&config, text)?;
    Ok(config)
}

async fn wait_for(file: &Path) -> Result<String> {
    for _ in 0..3000 {
        if let Ok(text) = fs::read_to_string(file) {
            return Ok(text);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("the provider did not start within a minute")
}

async fn until_synced(client: &CloudProviderClient<Channel>) -> Result<()> {
    for _ in 0..3000 {
        if client.clone().refresh(wire::RefreshRequest {}).await.is_ok() {
            let groups = client.clone().node_groups(wire::NodeGroupsRequest {}).await?.into_inner().node_groups;
            ensure!(groups.len() == GROUPS, "{} groups are listed", groups.len());
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("the cloud was not listed within a minute")
}

/// Every RPC that changes nothing.
async fn reads(client: &CloudProviderClient<Channel>) -> Result<()> {
    let group = |call: usize| format!("group-{:04}", call * 7 % GROUPS);
    let nodes = nodes(client).await?;
    let node = |call: usize| Some(nodes[call * 131 % nodes.len()].clone());
    let own = || client.clone();
    time("Refresh", 3_000, |_| async move { own().refresh(wire::RefreshRequest {}).await }).await?;
    time("NodeGroups", 1_000, |_| async move { own().node_groups(wire::NodeGroupsRequest {}).await }).await?;
    time("NodeGroupForNode", 15_000, |call| {
        let request = wire::NodeGroupForNodeRequest { node: node(call) };
        async move { own().node_group_for_node(request).await }
    })
    .await?;
    time("NodeGroupForNode, unknown", 3_000, |_| {
        let stranger = wire::ExternalGrpcNode { provider_id: "other:///node".to_owned(), ..Default::default() };
        async move { own().node_group_for_node(wire::NodeGroupForNodeRequest { node: Some(stranger) }).await }
    })
    .await?;
    time("NodeGroupTargetSize", 10_000, |call| {
        let request = wire::NodeGroupTargetSizeRequest { id: group(call) };
        async move { own().node_group_target_size(request).await }
    })
    .await?;
    time("NodeGroupNodes", 10_000, |call| {
        let request = wire::NodeGroupNodesRequest { id: group(call) };
        async move { own().node_group_nodes(request).await }
    })
    .await?;
    time("NodeGroupTemplateNodeInfo", 10_000, |call| {
        let request = wire::NodeGroupTemplateNodeInfoRequest { id: group(call) };
        async move { own().node_group_template_node_info(request).await }
    })
    .await?;
    time("NodeGroupGetOptions", 10_000, |call| {
        let request = wire::NodeGroupAutoscalingOptionsRequest { id: group(call), ..Default::default() };
        async move { own().node_group_get_options(request).await }
    })
    .await?;
    time("PricingNodePrice", 3_000, |call| {
        let (start_timestamp, end_timestamp) = (at(0), at(3600));
        let request =
            wire::PricingNodePriceRequest { node: node(call), start_timestamp, end_timestamp, ..Default::default() };
        async move { own().pricing_node_price(request).await }
    })
    .await?;
    time("GPULabel", 3_000, |_| async move { own().gpu_label(wire::GpuLabelRequest {}).await }).await?;
    let types = |_| async move { own().get_available_gpu_types(wire::GetAvailableGpuTypesRequest {}).await };
    time("GetAvailableGPUTypes", 3_000, types).await
}

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

/// Every node, as cluster-autoscaler would show it.
async fn nodes(client: &CloudProviderClient<Channel>) -> Result<Vec<wire::ExternalGrpcNode>> {
    let mut nodes = Vec::with_capacity(GROUPS * NODES_EACH);
    for group in 0..GROUPS {
        let request = wire::NodeGroupNodesRequest { id: format!("group-{group:04}") };
        for instance in client.clone().node_group_nodes(request).await?.into_inner().instances {
            let labels = [("node.kubernetes.io/instance-type".to_owned(), format!("type-{}", group % 50))].into();
            let name = instance.id.rsplit('/').next().unwrap_or_default().to_owned();
            nodes.push(wire::ExternalGrpcNode { provider_id: instance.id, name, labels, ..Default::default() });
        }
    }
    ensure!(nodes.len() == GROUPS * NODES_EACH, "{} nodes are listed", nodes.len());
    Ok(nodes)
}

async fn time<T, F>(name: &str, calls: usize, call: impl Fn(usize) -> F) -> Result<()>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut took = Vec::with_capacity(calls);
    for place in 0..calls + calls / 10 {
        let begun = now();
        match call(place).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => return Err(status).context(name.to_owned()),
        }
        // The first tenth warms caches on both sides.
        if place >= calls / 10 {
            took.push(begun.elapsed());
        }
    }
    took.sort_unstable();
    let micros = |share: usize| took[(took.len() - 1) * share / 1000].as_secs_f64() * 1e6;
    println!("{name:28} {calls:7} {:9.0} {:9.0} {:9.0}", micros(500), micros(990), micros(1000));
    Ok(())
}

/// A pod of the size that pods have: a GPU, two CPUs, labels, and an annotation that stands for all that nobody reads.
fn pod(number: usize) -> Bytes {
    let quantity = |text: &str| core::Quantity { string: Some(text.to_owned()) };
    let requests = [("cpu", "2"), ("memory", "8Gi"), ("nvidia.com/gpu", "1")];
    let requests = requests.map(|(name, text)| (name.to_owned(), quantity(text))).into();
    let metadata = core::ObjectMeta {
        name: Some(format!("train-{number:06}")),
        namespace: Some("research".to_owned()),
        uid: Some(format!("5b3c0a52-7f5e-4a55-9d0e-{number:012}")),
        labels: ["app", "team", "stage", "release"].map(|key| (key.to_owned(), "value".to_owned())).into(),
        annotations: [("kubectl.kubernetes.io/last-applied-configuration".to_owned(), "x".repeat(700))].into(),
        ..Default::default()
    };
    let resources = core::ResourceRequirements { requests, ..Default::default() };
    let containers = vec![core::Container { resources: Some(resources), ..Default::default() }];
    let toleration = core::Toleration { key: Some("nvidia.com/gpu".to_owned()), ..Default::default() };
    let node_selector = [("nvidia.com/gpu.product".to_owned(), "NVIDIA-A10G".to_owned())].into();
    let spec = core::PodSpec { containers, node_selector, tolerations: vec![toleration], ..Default::default() };
    core::Pod { metadata: Some(metadata), spec: Some(spec) }.encode_to_vec().into()
}

fn question(pods: impl Fn(usize) -> Vec<usize>) -> BestOptionsRequest {
    let option = |option: usize| WireOption {
        node_group_id: format!("group-{:04}", option * 5),
        node_count: 50,
        pod_bytes: pods(option).into_iter().map(pod).collect(),
        ..Default::default()
    };
    BestOptionsRequest { options: (0..OPTIONS).map(option).collect(), ..Default::default() }
}

async fn best_options(client: &mut ExpanderClient<Channel>, name: &str, request: &BestOptionsRequest) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..12 {
        let request = request.clone();
        let begun = now();
        let answer = client.best_options(request).await?.into_inner();
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.options.len() == 1, "{} options were answered", answer.options.len());
    }
    took.remove(0);
    took.sort_unstable_by(f64::total_cmp);
    let size = request.encoded_len() as f64 / f64::from(1 << 20);
    print!("{name:46} {size:7.1} {:8.0} {:7.0} {:7.0}", took[0], took[took.len() / 2], took[took.len() - 1]);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a bench is about time")]
fn now() -> Instant {
    Instant::now()
}
