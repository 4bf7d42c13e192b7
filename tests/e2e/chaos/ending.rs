//! How it looks once a storm is over: what AWS has, what its groups want, what the provider says, what the cluster has and
//! what pods need are one and the same.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, bail};
use windlass_tests::rig::scene::Scene;

use super::STEP;

/// Waits until nothing differs and every pod runs, and fails with what still differs then; `meanwhile` goes on all the time.
pub(super) async fn until_settled(
    scene: &mut Scene,
    gpus: usize,
    within: Duration,
    mut meanwhile: impl AsyncFnMut(&mut Scene) -> Result<()>,
) -> Result<()> {
    let begun = scene.journal.now();
    loop {
        meanwhile(scene).await?;
        let Some(why) = unsettled(scene, gpus).await? else { return Ok(()) };
        if scene.journal.now().saturating_sub(begun) > within {
            bail!("not settled {within:?} after the storm: {why}");
        }
        scene.wait(STEP).await?;
    }
}

/// What is not as it should be.
async fn unsettled(scene: &mut Scene, gpus: usize) -> Result<Option<String>> {
    let pods = scene.pods().await?;
    let runs = |phase: Option<&str>| phase == Some("Running");
    let waiting = pods.iter().filter(|pod| !runs(pod.status.as_ref().and_then(|it| it.phase.as_deref())));
    let waiting: Vec<_> = waiting.filter_map(|pod| pod.metadata.name.clone()).collect();
    if !waiting.is_empty() {
        return Ok(Some(format!("{waiting:?} do not run")));
    }
    let mut machines = BTreeSet::new();
    let cloud = scene.aws.clone().context("no AWS")?;
    for group in cloud.with(|account, _| account.groups.keys().cloned().collect::<Vec<_>>()) {
        let (desired, held, leaving) = held(scene, &group)?;
        let Ok(target) = scene.target(&group).await else { return Ok(Some("the provider does not answer".to_owned())) };
        let known: BTreeSet<String> = scene.instances(&group).await?.into_iter().map(|it| it.id).collect();
        if desired as usize != held.len() || target != desired.cast_signed() || known != held || leaving > 0 {
            return Ok(Some(format!(
                "{group}: {desired} wanted, {held:?} there, {leaving} leaving; the provider says {target}, {known:?}"
            )));
        }
        machines.extend(held);
    }
    let nodes = scene.nodes().await?;
    let ids: BTreeSet<String> = nodes.iter().filter_map(|node| node.spec.as_ref()?.provider_id.clone()).collect();
    if ids != machines {
        return Ok(Some(format!("the machines are {machines:?}, the Nodes {ids:?}")));
    }
    let used: BTreeSet<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    if used.len() != nodes.len() || nodes.len() > gpus + 1 {
        return Ok(Some(format!("{} Nodes for {gpus} GPUs, pods on {used:?} alone", nodes.len())));
    }
    for page in ["/", "/decisions", "/metrics"] {
        let answer = scene.provider.get(page).await?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("{page} answered {}", answer.lines().next().unwrap_or_default());
        }
    }
    Ok(None)
}

/// The desired capacity of a group, its machines in service as provider ids, and how many are in another state.
fn held(scene: &Scene, group: &str) -> Result<(u32, BTreeSet<String>, usize)> {
    let cloud = scene.aws.as_ref().context("no AWS")?;
    Ok(cloud.group(group).with(|group, now| {
        let (held, leaving): (Vec<_>, Vec<_>) = group
            .machines
            .values()
            .filter(|it| it.state(now).is_some())
            .partition(|it| it.state(now) == Some("InService"));
        let id = |it: &windlass_tests::aws::Machine| format!("aws:///{}/{}", it.zone, it.id);
        (group.desired, held.into_iter().map(id).collect(), leaving.len())
    }))
}
