//! What only AWS does: zones that refuse, quotas, droughts of a whole market, and machines that are taken back.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1 as k8s;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use windlass_tests::{
    aws::{AwsCloud, Scarcity, instance},
    port::Port,
    rig::{
        scene::{Scene, Setup},
        world::World,
    },
};

use crate::{
    growth::{SOON, exactly},
    runner::{Stage, Story, story},
};

/// How soon on-demand is bought when the whole spot market has nothing.
const DROUGHT: Duration = Duration::from_secs(20);
/// CA's own default of `--scan-interval`.
const LOOP: Duration = Duration::from_secs(10);
/// AWS's notice before it takes a spot machine back.
const NOTICE: Duration = Duration::from_secs(120);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story!(a_spot_machine_is_replaced_in_time, on Aws),
        story!(an_agents_notice_replaces_in_time, on Aws),
        story!(a_drought_of_spot_buys_on_demand, on Aws),
        story!(a_drought_with_loops_of_ten_seconds, on Aws),
        story!(a_drought_with_loops_of_five_seconds, on Aws),
        story!(a_refusal_is_seen_by_the_next_loop, on Aws),
        story!(a_refusing_zone_sends_machines_to_another, on Aws),
        story!(a_quota_asks_another_group, on Aws),
    ]
}

/// One zone has nothing: the machines come from the other one, by the same purchase, and nobody hears of a refusal.
async fn a_refusing_zone_sends_machines_to_another(stage: Stage) -> Result<()> {
    let mut scene = two_zones(&stage).await?;
    let cloud = cloud(&scene)?;
    cloud.scarce(Scarcity::new("InsufficientInstanceCapacity").zone("us-east-1a"));
    scene.create_pods("gpu", 2, 1).await?;
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("spot-a10g", 2)]).await?;
    let elsewhere = cloud.group("spot-a10g").machines().into_iter().filter(|it| it.zone != "us-east-1b").count();
    ensure!(elsewhere == 0, "{elsewhere} machines are where nothing is to be had");
    let asked = scene.journal.increases();
    ensure!(asked.iter().all(|it| it.group == "spot-a10g"), "another group was asked: {asked:?}");
    scene.nothing_further_is_bought().await
}

/// The account may have no more spot machines: on-demand is asked at once, and no other zone in between.
async fn a_quota_asks_another_group(stage: Stage) -> Result<()> {
    let mut scene = two_zones(&stage).await?;
    cloud(&scene)?.scarce(Scarcity::new("MaxSpotInstanceCountExceeded").group("spot-a10g"));
    scene.create_pods("gpu", 2, 1).await?;
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("od-a10g", 2)]).await?;
    scene.nothing_further_is_bought().await
}

/// No spot machine in the whole region, of either type: on-demand is bought within seconds, and the second time without
/// asking spot first.
async fn a_drought_of_spot_buys_on_demand(stage: Stage) -> Result<()> {
    let mut scene = drought(&stage, Setup::default()).await?;
    for (round, name) in ["first", "second"].into_iter().enumerate() {
        let took = until_on_demand(&mut scene, name).await?;
        stage.measure(
            ["pods pending until on-demand is asked for", "the same once more, in the same drought"][round],
            took,
        );
        ensure!(took < DROUGHT, "on-demand was asked only after {took:?}");
    }
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("od-a10g", 2)]).await?;
    scene.nothing_further_is_bought().await
}

/// The same with the pace of CA's own defaults: each spot group that has to be tried costs no more than one loop.
async fn a_drought_with_loops_of_ten_seconds(stage: Stage) -> Result<()> {
    drought_at_the_pace_of(&stage, LOOP).await
}

/// The same with the pace that the chart sets.
async fn a_drought_with_loops_of_five_seconds(stage: Stage) -> Result<()> {
    drought_at_the_pace_of(&stage, LOOP / 2).await
}

async fn drought_at_the_pace_of(stage: &Stage, scan_interval: Duration) -> Result<()> {
    let mut scene = drought(stage, Setup { scan_interval, ..Setup::default() }).await?;
    let took = until_on_demand(&mut scene, "first").await?;
    stage.measure("pods pending until on-demand is asked for", took);
    let first = scene.journal.increases().first().map(|it| it.at).context("nothing was asked for")?;
    let since = scene.journal.increases().last().map(|it| it.at.saturating_sub(first)).unwrap_or_default();
    stage.measure("the first spot group asked until on-demand is", since);
    scene.until_running(1, SOON).await?;
    exactly(&mut scene, &[("od-a10g", 1)]).await
}

/// AWS takes six seconds for its no to a raised desired capacity; LaunchInstances says it at once. Either way the next
/// loop asks the other group, and the provider lists as seldom as it does by itself.
async fn a_refusal_is_seen_by_the_next_loop(stage: Stage) -> Result<()> {
    let world = World { zones: 2, ..World::default() };
    let setup = Setup {
        world,
        settings: json!({"refresh": "1m"}),
        scan_interval: LOOP,
        frequent_loops: Some(false),
        ..Setup::default()
    };
    let mut scene = stage.scene(setup).await?;
    let cloud = cloud(&scene)?;
    cloud.spot_drought();
    cloud.group("spot-a10g").with(|group, _| group.pace.react = Duration::from_secs(6));
    let took = until_on_demand(&mut scene, "gpu").await?;
    stage.measure("pods pending until on-demand is asked for", took);
    let asked = scene.journal.increases();
    let groups: Vec<_> = asked.iter().map(|it| it.group.as_str()).collect();
    ensure!(groups == ["spot-a10g", "od-a10g"], "asked were {groups:?}");
    let loops = scene.journal.loops(asked[0].at, asked[1].at);
    ensure!(loops == 1, "the refusal was seen by loop {loops} after the one that bought");
    scene.until_running(1, SOON).await?;
    exactly(&mut scene, &[("od-a10g", 1)]).await
}

/// Two groups of spot machines and one on demand, in a region that has no spot machine; the provider lists as seldom as it
/// does by itself.
async fn drought(stage: &Stage, setup: Setup) -> Result<Scene> {
    let mut world = World { zones: 2, ..World::default() };
    let mut other = world.group("spot-a10g").context("no spot group")?.clone();
    other.id = "spot-big-a10g";
    other.instance_type = "g5.2xlarge";
    world.groups.push(other);
    let scene = stage.scene(Setup { world, settings: json!({"refresh": "1m"}), ..setup }).await?;
    cloud(&scene)?.spot_drought();
    Ok(scene)
}

/// Makes a pod, and answers how long it took until one more on-demand machine was asked for.
async fn until_on_demand(scene: &mut Scene, pods: &str) -> Result<Duration> {
    let before = on_demand(scene).len();
    scene.create_pods(pods, 1, 1).await?;
    let pending = scene.journal.acts("pods-created").pop().context("no pods")?.0;
    let bought = async |scene: &mut Scene| Ok(on_demand(scene).len() > before);
    scene.until("an on-demand machine asked for", SOON, bought).await?;
    let took = on_demand(scene).get(before).copied().unwrap_or_default().saturating_sub(pending);
    scene.journal.act("drought", json!({"pods": pods, "seconds": took.as_secs_f64()}));
    Ok(took)
}

/// AWS announces that it takes a spot machine back, by a queue: nobody asks the node itself.
async fn a_spot_machine_is_replaced_in_time(stage: Stage) -> Result<()> {
    let mut scene = stage.scene(Setup { world: World { queue: true, ..World::default() }, ..Setup::default() }).await?;
    let node = node_of_the_first_pod(&mut scene).await?;
    is_replaced_in_time(&mut scene, &node).await
}

/// The same without a queue: the agent on the node reads the notice in the instance metadata, and the provider asks it.
async fn an_agents_notice_replaces_in_time(stage: Stage) -> Result<()> {
    let port = Port::hold()?;
    let settings = json!({"usage": {"agents": {"urls": [port.url()]}}});
    let mut scene = stage.scene(Setup { settings, ..Setup::default() }).await?;
    let node = node_of_the_first_pod(&mut scene).await?;
    let cloud = cloud(&scene)?;
    let machines = cloud.group("spot-a10g").machines();
    let machine = machines.iter().find(|it| it.id == node).context("the node is no machine")?;
    let metadata = instance::metadata(machine)?;
    let agent = windlass_agent::start(windlass_agent::config::Config {
        listen: port.address(),
        metadata: Some(metadata.endpoint().parse().map_err(anyhow::Error::msg)?),
        nvml_library: Some("/nonexistent/libnvidia-ml.so.1".into()),
        node_name: node.clone(),
        ..windlass_agent::config::Config::default()
    })
    .await?;
    let heard = async |scene: &mut Scene| {
        Ok(scene.provider.get("/metrics").await?.contains("windlass_provider_agents{state=\"heard\"} 1\n"))
    };
    scene.until("the agent is heard", SOON, heard).await?;
    instance::take_back(&cloud, &metadata, NOTICE);
    is_replaced_in_time(&mut scene, &node).await?;
    agent.stop().await;
    Ok(())
}

async fn node_of_the_first_pod(scene: &mut Scene) -> Result<String> {
    scene.create_pods("first", 1, 1).await?;
    scene.until_running(1, SOON).await?;
    scene.node_of("first-0").await?.context("the pod runs nowhere")?.metadata.name.context("no name")
}

/// AWS takes the machine back. Its pod is moved, as the one who drains nodes does, and runs again on a new machine before
/// the old one ends; afterwards there is one machine, and one is wanted.
async fn is_replaced_in_time(scene: &mut Scene, node: &str) -> Result<()> {
    let cloud = cloud(scene)?;
    let struck = cloud.group("spot-a10g").interrupt(&[node.to_owned()], NOTICE);
    ensure!(struck == [node], "AWS takes back {struck:?}");
    let told = scene.journal.now();
    let deleting = async |scene: &mut Scene| {
        let instances = scene.instances("spot-a10g").await?;
        Ok(instances
            .iter()
            .any(|it| it.id.ends_with(node) && it.status.as_ref().is_some_and(|it| it.instance_state == 3)))
    };
    scene.until("the machine is shown as going", Duration::from_secs(30), deleting).await?;
    drain(scene, node).await?;
    scene.delete_pod("first-0").await?;
    scene.create_pods("second", 1, 1).await?;
    scene.until_running(1, SOON).await?;
    let took = scene.journal.now().saturating_sub(told);
    scene.journal.act("replaced", json!({"seconds": took.as_secs_f64()}));
    ensure!(took < NOTICE, "the replacement came {took:?} after the warning");
    let settled = async |scene: &mut Scene| {
        let nodes = scene.nodes().await?;
        let old = nodes.iter().any(|it| it.metadata.name.as_deref() == Some(node));
        Ok(!old && nodes.len() == 1 && cloud.group("spot-a10g").desired() + cloud.group("od-a10g").desired() == 1)
    };
    scene.until("one machine, and one wanted", NOTICE + SOON, settled).await?;
    scene.nothing_further_is_bought().await
}

/// When on-demand machines were granted.
fn on_demand(scene: &Scene) -> Vec<Duration> {
    let increases = scene.journal.increases().into_iter();
    increases.filter(|it| it.group == "od-a10g" && it.code == 0).map(|it| it.at).collect()
}

async fn two_zones(stage: &Stage) -> Result<Scene> {
    stage.scene(Setup { world: World { zones: 2, ..World::default() }, ..Setup::default() }).await
}

fn cloud(scene: &Scene) -> Result<Arc<AwsCloud>> {
    scene.aws.clone().context("this scenario is told on AWS")
}

/// Nothing new comes to the node.
async fn drain(scene: &Scene, node: &str) -> Result<()> {
    let nodes: Api<k8s::Node> = Api::all(scene.plane.client.clone());
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    nodes.patch(node, &PatchParams::default(), &cordon).await.map(drop).context("cordoning a node")
}
