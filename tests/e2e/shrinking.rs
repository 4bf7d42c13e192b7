//! Machines that nobody needs go, one by one and the right ones.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use windlass_tests::rig::scene::Setup;

use crate::{
    growth::{SOON, exactly},
    runner::{Stage, Story, story},
};

pub(crate) fn stories() -> Vec<Story> {
    vec![story!(scale_down_of_an_idle_node, on Every)]
}

/// One of two pods goes: its machine and no other is given back, the target falls by one, once; the Node disappears and
/// the other pod never notices. Then the last one goes, to zero.
async fn scale_down_of_an_idle_node(stage: Stage) -> Result<()> {
    let mut scene = stage.scene(Setup::default()).await?;
    scene.create_pods("gpu", 2, 1).await?;
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("spot-a10g", 2)]).await?;
    let idle = scene.node_of("gpu-0").await?.context("gpu-0 runs nowhere")?;
    let idle = idle.spec.and_then(|spec| spec.provider_id).context("a node without a providerID")?;
    scene.delete_pod("gpu-0").await?;
    scene.until("one Node", SOON, async |scene| Ok(scene.nodes().await?.len() == 1)).await?;
    let deletions = scene.journal.deletions();
    ensure!(deletions == [[idle.clone()]], "expected the deletion of {idle} alone, saw {deletions:?}");
    let target = scene.target("spot-a10g").await?;
    ensure!(target == 1, "the target is {target} after one of two machines went");
    scene.until_running(1, Duration::from_secs(1)).await?;
    scene.nothing_further_is_bought().await?;
    scene.delete_pods().await?;
    scene.until("no Node", SOON, async |scene| Ok(scene.nodes().await?.is_empty())).await?;
    let (target, left) = (scene.target("spot-a10g").await?, scene.instances("spot-a10g").await?);
    ensure!(target == 0 && left.is_empty(), "target {target} and {left:?} left at the end");
    ensure!(
        scene.journal.deletions().len() == 2,
        "machines were deleted more than once: {:?}",
        scene.journal.deletions()
    );
    Ok(())
}
