//! The expander fails in every way that a network knows: a scale-up is never lost by it, and never doubled.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use tonic::{Code, codegen::Bytes};
use windlass_proto::expander::{BestOptionsResponse, Option as Choice};
use windlass_tests::rig::{
    relay::Fault,
    scene::{Scene, Setup},
};

use crate::{
    growth::SOON,
    runner::{Stage, Story, story},
};

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story!(expander_down, on SimAndAws),
        story!(expander_slow),
        story!(expander_empty, on SimAndAwsDesired),
        story!(expander_wrong_ids),
    ]
}

/// No expander: least-waste, the next in the chain, decides.
async fn expander_down(stage: Stage) -> Result<()> {
    falls_to_the_next(stage, Fault::Fail(Code::Unavailable)).await
}

/// An answer after 6 s is none: CA waits for 5 s and goes on.
async fn expander_slow(stage: Stage) -> Result<()> {
    falls_to_the_next(stage, Fault::Slow(Duration::from_secs(6))).await
}

/// Groups that nobody has: dropped, and all options pass.
async fn expander_wrong_ids(stage: Stage) -> Result<()> {
    let nobody = Choice { node_group_id: "nobody-has-this".to_owned(), ..Choice::default() };
    falls_to_the_next(stage, answer(vec![nobody])).await
}

/// An empty answer means "buy nothing": nothing is bought while it lasts, and everything right after.
async fn expander_empty(stage: Stage) -> Result<()> {
    let mut scene = chained(&stage).await?;
    scene.expander_faults.set("BestOptions", answer(Vec::new()));
    scene.create_pods("gpu", 2, 1).await?;
    scene.until("an empty answer", SOON, async |scene| Ok(scene.journal.questions().len() >= 3)).await?;
    ensure!(scene.bought(None) == 0, "bought {} machines against an empty answer", scene.bought(None));
    scene.expander_faults.clear();
    two_nodes(&mut scene).await
}

async fn falls_to_the_next(stage: Stage, fault: Fault) -> Result<()> {
    let mut scene = chained(&stage).await?;
    scene.expander_faults.set("BestOptions", fault);
    scene.create_pods("gpu", 2, 1).await?;
    two_nodes(&mut scene).await?;
    let first = scene.journal.increases().into_iter().next().context("nothing was bought")?;
    let asked = scene.journal.acts("pods-created").first().map(|(at, _)| *at).context("no pods")?;
    let took = first.at.saturating_sub(asked);
    ensure!(took < Duration::from_secs(20), "the scale-up hung for {took:?}");
    Ok(())
}

/// Both pods run, on two GPU nodes of whichever group, and no third is bought.
async fn two_nodes(scene: &mut Scene) -> Result<()> {
    scene.until_running(2, SOON).await?;
    let nodes = scene.nodes_by_group().await?;
    let gpu_nodes: usize = nodes.iter().filter(|(group, _)| group.ends_with("a10g")).map(|(_, count)| count).sum();
    ensure!(gpu_nodes == 2 && scene.machines() == 2, "expected two GPU nodes, found {nodes:?}");
    scene.nothing_further_is_bought().await
}

/// A scene whose autoscaler asks the expander first and least-waste next.
async fn chained(stage: &Stage) -> Result<Scene> {
    stage.scene(Setup { expanders: "grpc,least-waste".to_owned(), ..Setup::default() }).await
}

fn answer(options: Vec<Choice>) -> Fault {
    Fault::Answer(Bytes::from(BestOptionsResponse { options }.encode_to_vec()))
}
