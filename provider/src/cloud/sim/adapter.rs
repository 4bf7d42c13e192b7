//! The embedded cloud behind the [`Cloud`] trait: reads the clock, keeps the scenario and the state file fresh, and
//! carries out slow and failing calls.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use async_trait::async_trait;

use crate::{
    cloud::{Cloud, CloudError, Kept, Launch, Launched, Listing, Look},
    fleet::group::{GroupId, InstanceId, Refusal},
    keeper::clock,
    timestamp::Timestamp,
};

use super::{
    conditions::Conditions,
    machines::{Machine, Machines},
    refusals,
    scenario::{Failing, Scenario},
    state,
};

/// Longest scenario read; a thousand groups take 200 kB.
const LONGEST_SCENARIO: u64 = 16 << 20;

/// The embedded cloud, ready to be called.
pub struct SimCloud {
    files: Files,
    /// Held for the length of one step, never across a wait.
    world: Mutex<World>,
}

/// Every machine of the cloud that keeps this state file, with the moments of its life: for whoever plays the kubelets
/// beside a running provider. Reads only; none while there is no file yet.
///
/// # Errors
/// A file that cannot be read, or something wrong in it.
pub fn look(scenario: &Path, state: &Path, now: Timestamp) -> anyhow::Result<Vec<Machine>> {
    let Some(mut machines) = state::read(state)? else { return Ok(Vec::new()) };
    machines.advance(&read_scenario(scenario)?, now);
    Ok(machines.all(now).cloned().collect())
}

struct Files {
    scenario: PathBuf,
    state: Option<PathBuf>,
}

struct World {
    scenario: Scenario,
    /// When the scenario file was last changed, as far as we have read it.
    read: Option<SystemTime>,
    machines: Machines,
}

impl SimCloud {
    /// Reads the scenario, and the state when there is one; otherwise the story begins now.
    ///
    /// # Errors
    /// A file that cannot be read, or something wrong in it: named with its line and the remedy.
    pub fn open(scenario: &Path, state: Option<&Path>) -> anyhow::Result<Self> {
        let files = Files { scenario: scenario.to_owned(), state: state.map(Path::to_owned) };
        let read = changed_at(scenario);
        let scenario = read_scenario(&files.scenario)?;
        let kept = files.state.as_deref().map(state::read).transpose()?.flatten();
        let machines = kept.unwrap_or_else(|| Machines::start(&scenario, clock()));
        if let Some(file) = &files.state {
            state::write(file, &machines)?;
        }
        Ok(Self { files, world: Mutex::new(World { scenario, read, machines }) })
    }

    /// The same for whoever only looks: nothing is written, and what is changed is forgotten.
    ///
    /// # Errors
    /// As for [`SimCloud::open`].
    pub fn glance(scenario: &Path, state: Option<&Path>) -> anyhow::Result<Self> {
        let kept = state.map(state::read).transpose()?.flatten();
        let mut cloud = Self::open(scenario, None)?;
        if let (Some(kept), Ok(world)) = (kept, cloud.world.get_mut()) {
            world.machines = kept;
        }
        Ok(cloud)
    }

    /// The node label of the GPU model, where the scenario names one.
    #[must_use]
    pub fn gpu_label(&self) -> Option<String> {
        self.world().scenario.gpu_label.clone()
    }

    /// One machine with the moments of its life, for whoever plays its kubelet; None when the cloud has none by that
    /// name any more.
    #[must_use]
    pub fn machine(&self, id: &str) -> Option<Machine> {
        let mut world = self.world();
        self.advance(&mut world, clock());
        world.machines.machine(id).cloned()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a changed scenario (a wrong one leaves the old one standing) and lets the script go on.
    fn advance(&self, world: &mut World, now: Timestamp) {
        let changed = changed_at(&self.files.scenario);
        if changed != world.read {
            world.read = changed;
            match read_scenario(&self.files.scenario) {
                Ok(scenario) => world.scenario = scenario,
                Err(why) => tracing::warn!("the scenario changed and is wrong, the old one stands: {why:#}"),
            }
        }
        let World { scenario, machines, .. } = world;
        if machines.advance(scenario, now) {
            self.keep(machines);
        }
    }

    /// A state that cannot be written costs the memory over a restart, not the call.
    fn keep(&self, machines: &Machines) {
        if let Some(file) = &self.files.state
            && let Err(why) = state::write(file, machines)
        {
            tracing::warn!("{why}");
        }
    }

    /// One call: what the script says about it, its effect, and how late its answer comes.
    async fn call<T>(
        &self,
        group: Option<&GroupId>,
        effect: impl FnOnce(&mut Machines, &Scenario, Timestamp) -> Result<T, Refusal>,
    ) -> Result<T, CloudError> {
        let (answer, slow) = self.take_effect(group, effect);
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        answer
    }

    fn take_effect<T>(
        &self,
        group: Option<&GroupId>,
        effect: impl FnOnce(&mut Machines, &Scenario, Timestamp) -> Result<T, Refusal>,
    ) -> (Result<T, CloudError>, Duration) {
        let now = clock();
        let mut world = self.world();
        self.advance(&mut world, now);
        let World { scenario, machines, .. } = &mut *world;
        let since_start = now.since(machines.started());
        let conditions = match group {
            Some(group) => Conditions::of_group(scenario, group, since_start),
            None => Conditions::of_account(scenario, since_start),
        };
        if let Some(refusal) = conditions.failing.and_then(refusals::scripted) {
            return (Err(CloudError::Refused(refusal)), conditions.slow);
        }
        if conditions.failing == Some(Failing::Unavailable) {
            return (Err(CloudError::Unknown("the scenario says: unavailable".into())), conditions.slow);
        }
        let answer = effect(machines, scenario, now).map_err(CloudError::Refused);
        if group.is_some() {
            self.keep(machines);
        }
        if conditions.failing == Some(Failing::Lost) {
            return (Err(CloudError::Unknown("the scenario says: the answer is lost".into())), conditions.slow);
        }
        (answer, conditions.slow)
    }
}

#[async_trait]
impl Cloud for SimCloud {
    async fn list(&self, _look: Look) -> Result<Listing, CloudError> {
        self.call(None, |machines, scenario, now| Ok(machines.list(scenario, now).into())).await
    }

    async fn launch(&self, launch: &Launch) -> Result<Launched, CloudError> {
        self.call(Some(&launch.group), |machines, scenario, now| machines.launch(scenario, launch, now)).await
    }

    async fn terminate(&self, group: &GroupId, instances: &[InstanceId]) -> Result<Vec<Kept>, CloudError> {
        self.call(Some(group), |machines, scenario, now| {
            machines.terminate(scenario, group, instances, now)?;
            Ok(Vec::new())
        })
        .await
    }
}

/// Reads a scenario file.
///
/// # Errors
/// A file that cannot be read, or the first thing that is wrong in it, with its line and the remedy.
pub fn read_scenario(file: &Path) -> anyhow::Result<Scenario> {
    let cannot = || format!("cannot read the scenario {}; check cloud.scenario", file.display());
    let mut text = String::new();
    let opened = File::open(file).with_context(cannot)?;
    opened.take(LONGEST_SCENARIO).read_to_string(&mut text).with_context(cannot)?;
    Ok(Scenario::parse(&text, file)?)
}

fn changed_at(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|about| about.modified()).ok()
}
