//! How often AWS is asked, at 10, 100 and 1,000 groups: counted by the faked account, a quiet minute, one in which a tenth
//! of the groups grow, and the two after orders that AWS leaves undecided, beside what the in-tree provider asks by its own
//! intervals; by both ways to buy, while a loop of cluster-autoscaler begins every ten seconds. Minutes are minutes: the
//! bench takes five.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use tonic::transport::{Channel, Endpoint};
use windlass_proto::externalgrpc::{
    NodeGroupIncreaseSizeRequest, NodeGroupsRequest, RefreshRequest, cloud_provider_client::CloudProviderClient,
};
use windlass_tests::{
    aws::{ACCESS_KEY, Asg, AwsCloud, Pace, REGION},
    program,
};

/// Group counts.
const SIZES: [u32; 3] = [10, 100, 1000];
/// Ways to buy, and what AWS makes of it.
const WAYS: [Way; 3] = [
    Way { launch: "launch-instances", undecided: false },
    Way { launch: "desired-capacity", undecided: false },
    Way { launch: "desired-capacity", undecided: true },
];

/// How machines are bought.
#[derive(Clone, Copy)]
struct Way {
    launch: &'static str,
    /// AWS takes the orders, and neither brings machines nor says why not.
    undecided: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let runs = futures::future::join_all(WAYS.iter().flat_map(|way| SIZES.map(|size| measure(size, *way))))
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    println!(
        "requests to AWS, counted by the account; in-tree: by its documented intervals, with groups of EKS, each with its own launch template"
    );
    println!(
        "{:>16} {:>6} {:>9} | {:>12} {:>8} | {:>13} {:>8} | {:>15} {:>8} | what the growing minute is made of",
        "bought by",
        "groups",
        "at start",
        "quiet minute",
        "in-tree",
        "a tenth grows",
        "in-tree",
        "the next minute",
        "in-tree"
    );
    for Run { way, groups, start, minutes: [quiet, busy, after] } in runs {
        let (calm, growing, waiting) = in_tree(groups);
        let waiting = if way.undecided { waiting } else { calm };
        let made_of: Vec<_> = busy.iter().map(|(action, count)| format!("{action} {count}")).collect();
        println!(
            "{:>16} {groups:>6} {:>9} | {:>12} {calm:>8.1} | {:>13} {growing:>8.1} | {:>15} {waiting:>8.1} | {}{}",
            way.launch,
            total(&start),
            total(&quiet),
            total(&busy),
            total(&after),
            if way.undecided { "orders left undecided: " } else { "" },
            made_of.join(", ")
        );
    }
    Ok(())
}

/// What was counted at one size.
struct Run {
    way: Way,
    groups: u32,
    start: BTreeMap<String, usize>,
    /// A quiet one, one in which a tenth of the groups grow, and the one after that.
    minutes: [BTreeMap<String, usize>; 3],
}

fn total(calls: &BTreeMap<String, usize>) -> usize {
    calls.values().sum()
}

/// The in-tree provider's minute, quiet, with a tenth of the groups growing, and with a tenth of them waiting: all groups
/// once a minute in pages of a hundred, each launch template once in twenty minutes, each EKS node group once in six; for a
/// group that grows the call itself and its activities, for one that waits its activities.
fn in_tree(groups: u32) -> (f64, f64, f64) {
    let (n, waiting) = (f64::from(groups), f64::from(growing(groups)));
    let quiet = f64::from(groups.div_ceil(100)) + n / 20.0 + n / 6.0;
    (quiet, quiet + 2.0 * waiting, quiet + waiting)
}

fn growing(groups: u32) -> u32 {
    groups.div_ceil(10)
}

async fn measure(groups: u32, way: Way) -> Result<Run> {
    let cloud = account(groups, way.undecided)?;
    let folder = tempfile::tempdir()?;
    let _program = Ended(start(&cloud, folder.path(), way.launch)?);
    let socket = format!("unix://{}/provider.sock", folder.path().display());
    let client = CloudProviderClient::new(Endpoint::try_from(socket)?.connect_lazy());
    until_listed(&client, groups).await?;
    let _loops = tokio::task::JoinSet::from_iter([loops(client.clone())]);
    let start = settled(&cloud).await;
    let mut counted = start.clone();
    let mut minute = async || {
        tokio::time::sleep(Duration::from_mins(1)).await;
        let before = std::mem::replace(&mut counted, cloud.actions());
        since(&before, &counted)
    };
    let quiet = minute().await;
    for group in 0..growing(groups) {
        let request = NodeGroupIncreaseSizeRequest { delta: 1, id: name(group) };
        client.clone().node_group_increase_size(request).await?;
    }
    Ok(Run { way, groups, start, minutes: [quiet, minute().await, minute().await] })
}

/// Begins a loop every ten seconds, as cluster-autoscaler does.
async fn loops(mut client: CloudProviderClient<Channel>) {
    while client.refresh(RefreshRequest {}).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

/// The calls so far, once ten seconds pass without one: templates of a thousand groups are read at a measured pace.
async fn settled(cloud: &AwsCloud) -> BTreeMap<String, usize> {
    let mut before = cloud.actions();
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let now = cloud.actions();
        if now == before {
            return now;
        }
        before = now;
    }
}

fn since(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let more = |(action, count): (&String, &usize)| {
        let more = count - before.get(action).copied().unwrap_or(0);
        (more > 0).then(|| (action.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

fn name(group: u32) -> String {
    format!("group-{group:04}")
}

/// Managed node groups, each with a launch template of its own.
fn account(groups: u32, undecided: bool) -> Result<AwsCloud> {
    let cloud = AwsCloud::start()?;
    let react = if undecided { Duration::from_hours(1) } else { Pace::default().react };
    for group in 0..groups {
        let name = name(group);
        let described = json!({"nodegroupName": name, "clusterName": "c1", "status": "ACTIVE", "capacityType": "SPOT",
                               "labels": {"k8s.amazonaws.com/accelerator": "nvidia-a10g"}, "amiType": "AL2023_x86_64_NVIDIA"});
        cloud.with(|account, _| {
            account.launch_template(&name, json!({"instanceType": "g5.xlarge", "imageId": "ami-0"}));
            account.nodegroups.insert(("c1".to_owned(), name.clone()), described);
        });
        let asg =
            Asg::new(&["us-east-1a", "us-east-1b"]).between(0, 5).of_cluster("c1").launch_template(&name, "$Latest");
        let asg = asg.pace(Pace { react, ..Pace::default() });
        cloud.add(&name, asg.tag("eks:cluster-name", "c1").tag("eks:nodegroup-name", &name));
    }
    Ok(cloud)
}

/// The provider with the refresh that it has by itself.
fn start(cloud: &AwsCloud, folder: &std::path::Path, way: &str) -> Result<Child> {
    let at = folder.display();
    let config = json!({
        "cloud": {"kind": "aws", "region": REGION, "endpoint": cloud.endpoint(), "clusterName": "c1", "launch": way},
        "provider": {"listen": format!("unix://{at}/provider.sock")},
        "expander": {"listen": "127.0.0.1:0", "selfSigned": {"caFile": format!("{at}/ca.crt")}},
        "http": {"listen": "127.0.0.1:0"},
    });
    let file = folder.join("windlass.yaml");
    std::fs::write(&file, config.to_string())?;
    let environment =
        [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", "-"), ("AWS_EC2_METADATA_DISABLED", "true")];
    let mut command = Command::new(program::provider()?);
    command.arg("--config").arg(file).args(["--log", "error"]).envs(environment).stdin(Stdio::null());
    command.spawn().context("the provider")
}

/// Killed when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until_listed(client: &CloudProviderClient<Channel>, groups: u32) -> Result<()> {
    for _ in 0..1200 {
        let answer = client.clone().node_groups(NodeGroupsRequest {}).await;
        if answer.is_ok_and(|answer| answer.into_inner().node_groups.len() == groups as usize) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("{groups} groups were not listed within two minutes")
}
