//! Everything goes wrong at once: pods come and go, AWS refuses, throttles, hangs and loses answers, takes machines back and
//! lags; both programs are killed. Then the storm ends, and nothing of it may be left: no machine, no wish, no pod.

mod ending;
mod storm;
mod watch;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_tests::rig::{
    scene::{Scene, Setup},
    world::World,
};

use self::{ending::until_settled, storm::Storm, watch::Watch};
use crate::runner::{Stage, Story, story};

/// How often the storm acts and looks.
const STEP: Duration = Duration::from_millis(250);
/// Most machines of a group.
const MAX: u32 = 6;
/// Until what was wanted last is there, and no more. A call to AWS that hangs is given up after 25 s and made again.
const SETTLES: Duration = Duration::from_secs(150);

pub(crate) fn stories() -> Vec<Story> {
    vec![story!(chaos_leaves_nothing_behind, on Aws), story!(chaos_buys_nothing_twice, on Aws)]
}

/// After the storm the pods run on machines that are all known, wanted and used; after the pods there is no machine.
async fn chaos_leaves_nothing_behind(stage: Stage) -> Result<()> {
    let (lasts, seed) = stage.chaos;
    let mut scene = stage.scene(setup()).await?;
    scene.journal.act("chaos", json!({"seed": seed, "seconds": lasts.as_secs()}));
    weather(&mut scene, &stage).await.with_context(|| format!("the storm of --seed {seed}, {lasts:?} long"))
}

async fn weather(scene: &mut Scene, stage: &Stage) -> Result<()> {
    let (lasts, seed) = stage.chaos;
    let mut storm = Storm::new(scene, seed, true)?;
    let mut watch = Watch::default();
    let end = scene.journal.now() + lasts;
    while scene.journal.now() < end {
        storm.step(scene).await?;
        watch.look(scene, storm.struck())?;
        scene.wait(STEP).await?;
    }
    storm.calm(scene)?;
    storm.want(3);
    let calm = scene.journal.now();
    settle(scene, &mut storm, &mut watch, 3).await?;
    stage.measure("the end of the storm until everything is as wanted", scene.journal.now().saturating_sub(calm));
    storm.want(0);
    let none = scene.journal.now();
    settle(scene, &mut storm, &mut watch, 0).await?;
    stage.measure("the last pod until the last machine is gone", scene.journal.now().saturating_sub(none));
    println!("{}", watch.summary(scene, storm.counts()));
    Ok(())
}

/// Round by round: pods come, and whatever fails, hangs or dies until they run, each has got one machine and no other was
/// paid for; then they go.
async fn chaos_buys_nothing_twice(stage: Stage) -> Result<()> {
    let (lasts, seed) = stage.chaos;
    let mut scene = stage.scene(setup()).await?;
    scene.journal.act("chaos", json!({"seed": seed, "seconds": lasts.as_secs()}));
    let mut storm = Storm::new(&scene, seed, false)?;
    let mut watch = Watch::default();
    let end = scene.journal.now() + lasts;
    while scene.journal.now() < end {
        round(&mut scene, &mut storm, &mut watch).await.with_context(|| format!("--seed {seed}"))?;
    }
    println!("{}", watch.summary(&scene, storm.counts()));
    Ok(())
}

async fn round(scene: &mut Scene, storm: &mut Storm, watch: &mut Watch) -> Result<()> {
    let (before, pods) = (scene.machines(), storm.some_pods());
    storm.want(pods);
    scene.journal.act("round", json!({"pods": pods}));
    let begun = scene.journal.now();
    while !scene.all_run(pods).await? {
        storm.step(scene).await?;
        watch.look(scene, storm.struck())?;
        let took = scene.journal.now().saturating_sub(begun);
        ensure!(took < SETTLES * 2, "{pods} pods do not run after {took:?}");
        scene.wait(STEP).await?;
    }
    storm.calm(scene)?;
    settle(scene, storm, watch, pods).await?;
    let machines = scene.machines() - before;
    ensure!(machines == pods, "{machines} machines were paid for to run {pods} pods");
    storm.want(0);
    settle(scene, storm, watch, 0).await
}

/// The pods are kept as they are wanted, as their controller would, while the loop comes to rest.
async fn settle(scene: &mut Scene, storm: &mut Storm, watch: &mut Watch, gpus: usize) -> Result<()> {
    until_settled(scene, gpus, SETTLES, async |scene| {
        storm.keep_pods(scene).await?;
        watch.look(scene, storm.struck())
    })
    .await
}

/// Two spot groups and one on demand in two zones, a queue for warnings, and memories short enough to be over in time.
fn setup() -> Setup {
    let mut world = World { zones: 2, queue: true, ..World::default() };
    if let Some(mut other) = world.group("spot-a10g").cloned() {
        (other.id, other.instance_type) = ("spot-big-a10g", "g5.2xlarge");
        world.groups.push(other);
    }
    world.groups.iter_mut().for_each(|group| group.max = MAX);
    let settings = json!({
        "offerings": {"initialBackoff": "5s", "maxBackoff": "15s"},
        "unregistered": {"reapAfter": "40s"},
    });
    Setup { world, settings, max_backoff: Some(Duration::from_secs(20)), ..Setup::default() }
}
