//! What the cloud will not give: sold out, sold out in part, and machines that run but never become Nodes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::time::Instant;
use windlass_tests::rig::{
    scene::{Scene, Setup},
    world::{Event, World},
};

use crate::{
    growth::{SOON, exactly},
    runner::{Stage, Story, story},
};

/// How soon another group is asked after a refusal.
const OTHER_GROUP: Duration = Duration::from_secs(5);
/// How long the spot group is sold out, from the start of the provider.
const SOLD_OUT: Duration = Duration::from_secs(60);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story!(stock_out_asks_another_group_and_probes_later, on Every),
        story!(instances_that_never_register, on SimAndAws),
        story!(instances_that_never_register_slow_loops, on SimAndAwsDesired),
        story!(spot_first_then_on_demand, on Every),
    ]
}

/// Spot is sold out for a while: on-demand is asked within seconds, and spot again once the memory of it has faded.
async fn stock_out_asks_another_group_and_probes_later(stage: Stage) -> Result<()> {
    let begun = Instant::now();
    let sold_out = Event::SoldOut { group: "spot-a10g", lasts: SOLD_OUT };
    let settings = json!({"offerings": {"initialBackoff": "20s", "maxBackoff": "40s"}});
    let setup = Setup { world: World::default().with_event(sold_out), settings, ..Setup::default() };
    let mut scene = stage.scene(setup).await?;
    scene.create_pods("first", 2, 1).await?;
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("od-a10g", 2)]).await?;
    another_group_within(&scene, OTHER_GROUP)?;
    scene.nothing_further_is_bought().await?;
    // Until the machines are for sale again, and the longest memory of the refusal is over.
    let left = (SOLD_OUT + Duration::from_secs(25)).saturating_sub(begun.elapsed());
    scene.wait(left).await?;
    scene.create_pods("later", 1, 1).await?;
    scene.until_running(3, SOON).await?;
    exactly(&mut scene, &[("od-a10g", 2), ("spot-a10g", 1)]).await?;
    scene.nothing_further_is_bought().await
}

/// Rig R4: machines run and never register. CA takes the loss for a success and would try the same group for ever.
async fn instances_that_never_register(stage: Stage) -> Result<()> {
    never_register(stage, None).await
}

/// Rig R5: the same with CA's loops before 1.35, which lower the target past machines that exist.
async fn instances_that_never_register_slow_loops(stage: Stage) -> Result<()> {
    never_register(stage, Some(false)).await
}

/// The pods run elsewhere, no more than one try was paid for, and nothing of it is left behind.
async fn never_register(stage: Stage, frequent_loops: Option<bool>) -> Result<()> {
    let settings = json!({"unregistered": {"reapAfter": "40s"}});
    let mut scene = stage.scene(Setup { settings, frequent_loops, ..Setup::default() }).await?;
    scene.conduct.lock().never_register.insert("spot-a10g".to_owned());
    scene.create_pods("gpu", 2, 1).await?;
    scene.until_running(2, Duration::from_secs(120)).await?;
    let nodes = scene.nodes_by_group().await?;
    ensure!(nodes.get("od-a10g") == Some(&2) && nodes.len() == 1, "expected two on-demand nodes, found {nodes:?}");
    let leaked = async |scene: &mut Scene| Ok(scene.instances("spot-a10g").await?.is_empty());
    scene.until("no machine of the group that never registers", Duration::from_secs(60), leaked).await?;
    let target = scene.target("spot-a10g").await?;
    ensure!(target == 0, "the target of a group without machines is {target}");
    let tried = scene.machines();
    ensure!(tried <= 4, "{tried} machines were paid for to get two");
    scene.nothing_further_is_bought().await
}

/// Spot has one machine to give and two are needed: the other one is bought on demand, and only that one.
async fn spot_first_then_on_demand(stage: Stage) -> Result<()> {
    let scarce = Event::Left { group: "spot-a10g", machines: 1 };
    let mut scene = stage.scene(Setup { world: World::default().with_event(scarce), ..Setup::default() }).await?;
    scene.create_pods("gpu", 2, 1).await?;
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("od-a10g", 1), ("spot-a10g", 1)]).await?;
    another_group_within(&scene, OTHER_GROUP)?;
    scene.nothing_further_is_bought().await
}

/// From the first purchase in spot to the first on demand.
fn another_group_within(scene: &Scene, limit: Duration) -> Result<()> {
    let increases = scene.journal.increases();
    let first = |group: &str| increases.iter().find(|increase| increase.group == group && increase.code == 0);
    let spot = first("spot-a10g").context("spot was never asked")?;
    let on_demand = first("od-a10g").context("on-demand was never asked")?;
    let took = on_demand.at.saturating_sub(spot.at);
    ensure!(spot.at <= on_demand.at && took < limit, "on-demand was asked {took:?} after spot, at {:?}", on_demand.at);
    Ok(())
}
