//! The shipped provider on AWS at size, 1,000 groups with 15,000 instances: what a minute with a full listing costs it,
//! what it keeps in memory, and how fast it reads. `cargo bench -p windlass-tests --bench aws` prints a table.

#![expect(clippy::print_stdout, reason = "a bench prints its tables")]

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use windlass_proto::externalgrpc::{self as wire, cloud_provider_client::CloudProviderClient};
use windlass_tests::{
    aws::{ACCESS_KEY, Asg, AwsCloud, REGION},
    program,
};

const GROUPS: usize = 1_000;
const INSTANCES_EACH: u32 = 15;
/// From the first listing until what is asked once has been asked: a thousand launch templates, at the provider's pace.
const SETTLE: Duration = Duration::from_secs(45);
/// How long CPU is counted while nothing happens; two full listings fall into it.
const QUIET: Duration = Duration::from_secs(120);

/// One account and the provider on it.
struct Stage {
    cloud: AwsCloud,
    provider: Child,
    client: CloudProviderClient<Channel>,
    _folder: TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.provider.kill();
        let _ = self.provider.wait();
    }
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let mut stage = Stage::start().await?;
    let start = stage.cpu()?;
    tokio::time::sleep(SETTLE).await;
    let settled = stage.cpu()?;
    tokio::time::sleep(QUIET).await;
    let minute = (stage.cpu()? - settled) * 60.0 / QUIET.as_secs_f64();
    println!("{GROUPS} groups, {} instances", GROUPS * usize::try_from(INSTANCES_EACH)?);
    println!("CPU: {start:.2} s until the first listing stood, {minute:.2} s for a quiet minute with one full listing");
    println!("memory: {:.1} MiB resident, {:.1} MiB at most", stage.memory("VmRSS")?, stage.memory("VmHWM")?);
    reads(&mut stage).await?;
    println!(
        "memory after the reads: {:.1} MiB resident, {:.1} MiB at most",
        stage.memory("VmRSS")?,
        stage.memory("VmHWM")?
    );
    Ok(())
}

impl Stage {
    async fn start() -> Result<Self> {
        let cloud = AwsCloud::start()?;
        cloud.with(|account, now| {
            for number in 0..GROUPS {
                let template = format!("lt-{number:04}");
                account.launch_template(&template, json!({"instanceType": "g5.xlarge", "imageId": "ami-0"}));
                let group =
                    Asg::new(&["us-east-1a", "us-east-1b", "us-east-1c"]).between(0, 100).desired(INSTANCES_EACH);
                let group = group.of_cluster("c1").launch_template(&template, "$Default");
                let group = group.node_template("label/k8s.amazonaws.com/accelerator", "nvidia-a10g");
                account.add(&format!("group-{number:04}"), group, now);
            }
        });
        let folder = tempfile::tempdir()?;
        let at = folder.path().display();
        let config = json!({
            "cloud": {"kind": "aws", "region": REGION, "endpoint": cloud.endpoint(), "clusterName": "c1"},
            "provider": {"listen": format!("unix://{at}/provider.sock")},
            "expander": {"listen": "127.0.0.1:0", "selfSigned": {"caFile": format!("{at}/ca.crt")}},
            "http": {"listen": "127.0.0.1:0"},
        });
        fs::write(folder.path().join("windlass.yaml"), config.to_string())?;
        let provider = Command::new(program::provider()?)
            .arg("--config")
            .arg(folder.path().join("windlass.yaml"))
            .envs([("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", "not-a-secret")])
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let client =
            CloudProviderClient::new(Endpoint::from_shared(format!("unix://{at}/provider.sock"))?.connect_lazy());
        let mut stage = Self { cloud, provider, client, _folder: folder };
        stage.until_listed().await?;
        Ok(stage)
    }

    async fn until_listed(&mut self) -> Result<()> {
        for _ in 0..1200 {
            if let Ok(answer) = self.client.node_groups(wire::NodeGroupsRequest {}).await {
                let listed = answer.into_inner().node_groups.len();
                if listed > 0 {
                    ensure!(listed == GROUPS, "{listed} of {GROUPS} groups are listed");
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the account was not listed within a minute")
    }

    /// Seconds of CPU that the provider has used so far.
    fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.provider.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).context("a field of stat");
        // utime and stime, in hundredths of a second on every Linux that we know.
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }

    /// A line of the provider's status, in MiB.
    fn memory(&self, key: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.provider.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)).context("a line of status")?;
        let kib: f64 = line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

/// Reads one after the other, over the unix socket.
async fn reads(stage: &mut Stage) -> Result<()> {
    println!("\n{:28} {:>7} {:>9} {:>9} {:>9}", "RPC", "calls", "p50 µs", "p99 µs", "max µs");
    let client = stage.client.clone();
    let group = |call: usize| format!("group-{:04}", call * 7 % GROUPS);
    time("NodeGroups", 1_000, |_| {
        let mut client = client.clone();
        async move { client.node_groups(wire::NodeGroupsRequest {}).await.map(drop) }
    })
    .await?;
    time("NodeGroupTargetSize", 5_000, |call| {
        let (mut client, id) = (client.clone(), group(call));
        async move { client.node_group_target_size(wire::NodeGroupTargetSizeRequest { id }).await.map(drop) }
    })
    .await?;
    time("NodeGroupNodes", 5_000, |call| {
        let (mut client, id) = (client.clone(), group(call));
        async move { client.node_group_nodes(wire::NodeGroupNodesRequest { id }).await.map(drop) }
    })
    .await?;
    time("NodeGroupTemplateNodeInfo", 5_000, |call| {
        let (mut client, id) = (client.clone(), group(call));
        let request = wire::NodeGroupTemplateNodeInfoRequest { id };
        async move { client.node_group_template_node_info(request).await.map(drop) }
    })
    .await?;
    let id = stage.cloud.group("group-0001").machines().remove(0);
    let provider_id = id.provider_id();
    time("NodeGroupForNode", 5_000, |_| {
        let mut client = client.clone();
        let node = wire::ExternalGrpcNode { provider_id: provider_id.clone(), ..Default::default() };
        async move { client.node_group_for_node(wire::NodeGroupForNodeRequest { node: Some(node) }).await.map(drop) }
    })
    .await
}

async fn time<F: Future<Output = Result<(), tonic::Status>>>(
    name: &str,
    calls: usize,
    call: impl Fn(usize) -> F,
) -> Result<()> {
    let mut took = Vec::with_capacity(calls);
    for number in 0..calls {
        let begun = now();
        call(number).await?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| took[(calls - 1) * share / 100];
    println!("{name:28} {calls:>7} {:>9.0} {:>9.0} {:>9.0}", at(50), at(99), at(100));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a bench is about time")]
fn now() -> Instant {
    Instant::now()
}
