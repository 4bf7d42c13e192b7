//! One of the two programs dies in the middle of a purchase and comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use windlass_tests::rig::scene::{Scene, Setup};

use crate::{
    growth::{SOON, exactly},
    runner::{Stage, Story, story},
};

pub(crate) fn stories() -> Vec<Story> {
    vec![story!(provider_restarts_during_a_scale_up, on Every)]
}

/// The provider is killed right after it granted two machines: after its return they are neither lost nor doubled.
async fn provider_restarts_during_a_scale_up(stage: Stage) -> Result<()> {
    let mut scene = stage.scene(Setup::default()).await?;
    scene.create_pods("gpu", 2, 1).await?;
    until_bought(&mut scene, 2).await?;
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

/// Until this many machines were asked for and granted; pods that come one by one may be bought for one by one.
pub(crate) async fn until_bought(scene: &mut Scene, machines: i32) -> Result<()> {
    scene.until(&format!("{machines} bought"), SOON, async |scene| Ok(scene.bought(None) >= machines)).await
}
