//! One of the two programs dies in the middle of a purchase and comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use windlass_tests::rig::scene::{Scene, Setup};

use crate::{
    growth::{SOON, exactly},
    runner::{Stage, Story, story},
};

pub(crate) fn stories() -> Vec<Story> {
    vec![story!(provider_restarts_during_a_scale_up)]
}

/// The provider is killed right after it granted two machines: after its return they are neither lost nor doubled.
async fn provider_restarts_during_a_scale_up(stage: Stage) -> Result<()> {
    let mut scene = stage.scene(Setup::default()).await?;
    scene.create_pods("gpu", 2, 1).await?;
    until_bought(&mut scene).await?;
    scene.kill_provider();
    scene.wait(Duration::from_secs(4)).await?;
    scene.start_provider().await?;
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("spot-a10g", 2)]).await?;
    scene.nothing_further_is_bought().await?;
    // The autoscaler read what it trusts when it started: the provider that came back must still be the one it knows.
    scene.create_pods("third", 1, 1).await?;
    scene.until_running(3, SOON).await?;
    exactly(&mut scene, &[("spot-a10g", 3)]).await?;
    let (_, answer) = scene.journal.questions().pop().context("the expander was never asked")?;
    ensure!(answer.is_some(), "the expander was not heard any more after the restart");
    Ok(())
}

/// Until the first purchase was granted.
pub(crate) async fn until_bought(scene: &mut Scene) -> Result<()> {
    scene.until("the first purchase", SOON, async |scene| Ok(scene.bought(None) > 0)).await
}
