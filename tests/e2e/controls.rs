//! Three cases in which CA buys the same pods a machine twice. With the purchase memory it does not; the controls run
//! without it and pass only if it does, which shows that the rig can see a double.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use windlass_proto::expander::BestOptionsResponse;
use windlass_tests::rig::scene::{Scene, Setup};

use crate::{
    growth::SOON,
    restarts::until_bought,
    runner::{Stage, Story, story},
};

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story!(options_answered, by Since35, on SimAndAws),
        story!(control_options_answered_doubles, by Since35),
        story!(label_late, on SimAndAwsDesired),
        story!(control_label_late_doubles),
        story!(autoscaler_restarts_during_a_scale_up, by Since35, on SimAndAwsDesired),
        story!(control_autoscaler_restart_doubles, by Since35),
        story!(partly_covered_demand_buys_the_difference, on SimAndAws),
    ]
}

/// Rig R1: from CA 1.35 on, any options make a booting node count as broken.
async fn options_answered(stage: Stage) -> Result<()> {
    two_machines(options(stage, true).await?).await
}

async fn control_options_answered_doubles(stage: Stage) -> Result<()> {
    more_than_two(options(stage, false).await?).await
}

async fn options(stage: Stage, memory: bool) -> Result<Scene> {
    let mut setup = with_memory(memory);
    for id in ["spot-a10g", "od-a10g"] {
        if let Some(group) = setup.world.group_mut(id) {
            group.options = json!({"scaleDownUnneededTime": "8s"});
        }
    }
    let scene = stage.scene(setup).await?;
    scene.create_pods("gpu", 2, 1).await?;
    Ok(scene)
}

/// Rig R2: a GPU node that registers without its label counts as a ready machine without GPUs.
async fn label_late(stage: Stage) -> Result<()> {
    two_machines(late(stage, true).await?).await
}

async fn control_label_late_doubles(stage: Stage) -> Result<()> {
    more_than_two(late(stage, false).await?).await
}

async fn late(stage: Stage, memory: bool) -> Result<Scene> {
    let scene = stage.scene(with_memory(memory)).await?;
    scene.conduct.lock().label_late = true;
    scene.create_pods("gpu", 2, 1).await?;
    Ok(scene)
}

/// Rig R11: CA forgets what it bought when it restarts.
async fn autoscaler_restarts_during_a_scale_up(stage: Stage) -> Result<()> {
    two_machines(restarted(stage, true).await?).await
}

async fn control_autoscaler_restart_doubles(stage: Stage) -> Result<()> {
    more_than_two(restarted(stage, false).await?).await
}

async fn restarted(stage: Stage, memory: bool) -> Result<Scene> {
    let mut scene = stage.scene(with_memory(memory)).await?;
    scene.create_pods("gpu", 2, 1).await?;
    until_bought(&mut scene, 2).await?;
    scene.kill_autoscaler();
    scene.wait(Duration::from_secs(2)).await?;
    scene.start_autoscaler()?;
    Ok(scene)
}

/// Rig R12: one pod has its machine on the way, the autoscaler forgot it, and a second pod arrives: it asks for two, and
/// one is launched.
async fn partly_covered_demand_buys_the_difference(stage: Stage) -> Result<()> {
    let mut scene = stage.scene(with_memory(true)).await?;
    scene.create_pods("first", 1, 1).await?;
    until_bought(&mut scene, 1).await?;
    scene.kill_autoscaler();
    scene.create_pods("second", 1, 1).await?;
    scene.start_autoscaler()?;
    scene.until_running(2, SOON).await?;
    let machines = scene.machines();
    ensure!(machines == 2, "{machines} machines for two pods");
    scene.nothing_further_is_bought().await
}

fn with_memory(enabled: bool) -> Setup {
    Setup { settings: json!({"purchaseMemory": {"enabled": enabled}}), ..Setup::default() }
}

/// The pods run on two machines because a third was asked for and refused.
async fn two_machines(mut scene: Scene) -> Result<()> {
    scene.until_running(2, SOON).await?;
    let machines = scene.machines();
    ensure!(machines == 2, "{machines} machines for two pods");
    let vetoed = |answer: Option<BestOptionsResponse>| answer.is_some_and(|answer| answer.options.is_empty());
    let vetoes = scene.journal.questions().into_iter().filter(|(_, answer)| vetoed(answer.clone())).count();
    ensure!(vetoes > 0, "the memory was never asked: this run shows nothing");
    scene.nothing_further_is_bought().await
}

/// A third machine is bought for two pods.
async fn more_than_two(mut scene: Scene) -> Result<()> {
    scene.until("a third machine bought", Duration::from_secs(60), async |scene| Ok(scene.bought(None) > 2)).await
}
