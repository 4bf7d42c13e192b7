//! One scenario's stage: a control plane, our provider, the relays before it, the kubelets of its machines and an
//! autoscaler, with the few acts and waits that scenarios are made of.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};
use tonic::transport::Channel;
use windlass_proto::externalgrpc::{
    Instance, NodeGroupNodesRequest, NodeGroupTargetSizeRequest, cloud_provider_client::CloudProviderClient,
};

use super::{
    autoscaler::{Autoscaler, Driver, Surroundings},
    aws,
    binaries::Binaries,
    certificates::{Certified, Mutual},
    journal::Journal,
    kubelets::{Conduct, Hosts, Kubelets},
    plane::Plane,
    provider::{Cloud, Door, Provider},
    relay::{self, Faults},
    world::{On, World},
};
use crate::{aws::AwsCloud, port::Port};

mod cluster;

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long nothing further may be bought after a scenario has what it wants.
const QUIET: Duration = Duration::from_secs(15);

/// What a scenario is built from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The machines.
    pub world: World,
    /// Top-level keys of the provider's configuration that differ from the rig's own.
    pub settings: Value,
    /// `--expander` of the autoscaler.
    pub expanders: String,
    /// `--frequent-loops-enabled`; None leaves the default.
    pub frequent_loops: Option<bool>,
    /// `--scan-interval`, in whole seconds; a scenario's loops are quicker than CA's own by default, so that it is over soon.
    pub scan_interval: Duration,
    /// `--max-node-group-backoff-duration`; None leaves the default.
    pub max_backoff: Option<Duration>,
    /// No relay: the autoscaler speaks to the provider itself, over TCP with mutual TLS, and the journal knows none of it.
    pub direct: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            world: World::default(),
            settings: json!({}),
            expanders: "grpc".to_owned(),
            frequent_loops: None,
            scan_interval: Duration::from_secs(1),
            max_backoff: None,
            direct: false,
        }
    }
}

/// The programs that every scenario uses.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The control plane.
    pub binaries: Binaries,
    /// Our provider.
    pub provider: PathBuf,
}

/// A running stage. Dropping it ends everything on it.
pub struct Scene {
    autoscaler: Option<Autoscaler>,
    driver: Driver,
    surroundings: Surroundings,
    tasks: JoinSet<Result<()>>,
    /// Our provider.
    pub provider: Provider,
    /// The control plane.
    pub plane: Plane,
    /// What happened so far.
    pub journal: Arc<Journal>,
    /// How machines behave.
    pub conduct: Conduct,
    /// What the provider's relay breaks.
    pub provider_faults: Faults,
    /// What the expander's relay breaks.
    pub expander_faults: Faults,
    /// AWS, where the scenario is told there.
    pub aws: Option<Arc<AwsCloud>>,
    asks: CloudProviderClient<Channel>,
}

impl Scene {
    /// Builds the stage in `dir`: the plane, the provider, the kubelets; the autoscaler last.
    ///
    /// # Errors
    /// Says what did not start.
    pub async fn start(programs: &Programs, driver: &Driver, setup: Setup, dir: &Path) -> Result<Self> {
        let journal = Arc::new(Journal::new(&dir.join("journal.jsonl"))?);
        let door = match setup.direct {
            true => Door::Mutual(Arc::new(Port::hold()?), Mutual::new(dir)?),
            false => Door::Unix(dir.join("provider.sock")),
        };
        let aws = match setup.world.on {
            On::Sim => None,
            On::Aws(_) => Some(aws::account(&setup.world)?),
        };
        let cloud = match (setup.world.on, &aws) {
            (On::Aws(buying), Some(cloud)) => Cloud::Aws(aws::settings(cloud, &setup.world, buying)),
            _ => Cloud::Sim(&setup.world),
        };
        let mut provider = Provider::new(&programs.provider, dir, door, cloud, &setup.settings)?;
        let (plane, ()) = tokio::try_join!(Plane::start(&programs.binaries, dir), provider.start())?;
        let (mut tasks, conduct) = (JoinSet::new(), Conduct::default());
        let to_provider = provider.door.channel()?;
        let hosts = match &aws {
            Some(cloud) => Hosts::Aws(cloud.clone()),
            None => Hosts::Provider(CloudProviderClient::new(to_provider.clone())),
        };
        if let Some(cloud) = &aws {
            aws::lift(&setup.world, cloud, &mut tasks);
        }
        let kubelets =
            Kubelets::new(plane.client.clone(), hosts, setup.world.clone(), conduct.clone(), journal.clone());
        tasks.spawn(kubelets.run());
        let kubeconfig = match driver {
            Driver::Real(_) => plane.autoscaler_kubeconfig().await?,
            Driver::Model => plane.kubeconfig.clone(),
        };
        let mut surroundings = Surroundings {
            kubeconfig,
            provider: provider.door.clone(),
            expander: provider.expander.address(),
            expander_roots: provider.expander_roots(),
            expanders: setup.expanders,
            frequent_loops: setup.frequent_loops,
            scan_interval: setup.scan_interval,
            max_backoff: setup.max_backoff,
            dir: dir.to_owned(),
            journal: journal.clone(),
        };
        let faults = match setup.direct {
            true => Default::default(),
            false => relays(&provider, &mut surroundings, &mut tasks).await?,
        };
        let mut scene = Self {
            autoscaler: Some(Autoscaler::start(driver, &surroundings)?),
            driver: driver.clone(),
            surroundings,
            tasks,
            provider,
            plane,
            journal,
            conduct,
            provider_faults: faults.0,
            expander_faults: faults.1,
            aws,
            asks: CloudProviderClient::new(to_provider),
        };
        if !setup.direct {
            // Pods that come before the autoscaler has seen the cluster once would hide what a loop costs.
            let looped = async |scene: &mut Self| Ok(!scene.journal.calls("Refresh").is_empty());
            scene.until("the autoscaler's first loop", Duration::from_secs(60), looped).await?;
        }
        Ok(scene)
    }

    /// Waits until `reached` holds.
    ///
    /// # Errors
    /// When it does not hold in time, when it fails, or when a part of the stage ends.
    pub async fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut reached: impl AsyncFnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.alive()?;
            if reached(self).await? {
                self.journal.act("reached", json!({"what": what}));
                return Ok(());
            }
            if begun.elapsed() > within {
                bail!("not within {within:?}: {what}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets time pass, and fails when a part of the stage ends.
    ///
    /// # Errors
    /// Names the part that ended.
    pub async fn wait(&mut self, time: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.alive()?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Fails when a further machine is bought within 15 s.
    ///
    /// # Errors
    /// Names what was bought.
    pub async fn nothing_further_is_bought(&mut self) -> Result<()> {
        let before = (self.journal.increases().len(), self.machines());
        self.wait(QUIET).await?;
        let (bought, machines) = (self.journal.increases(), self.machines());
        ensure!(
            bought.iter().skip(before.0).all(|increase| increase.code != 0) && machines == before.1,
            "bought again although nothing was missing: {:?}, {} machines instead of {}",
            bought.get(before.0..),
            machines,
            before.1,
        );
        self.autoscaler.as_ref().map_or(Ok(()), Autoscaler::had_every_right)
    }

    /// The group's target, as the provider says.
    ///
    /// # Errors
    /// When the provider does not answer.
    pub async fn target(&mut self, group: &str) -> Result<i32> {
        let request = NodeGroupTargetSizeRequest { id: group.to_owned() };
        let answer = self.asks.node_group_target_size(request).await.context("asking for a target")?;
        Ok(answer.into_inner().target_size)
    }

    /// The group's instances, as the provider lists them.
    ///
    /// # Errors
    /// When the provider does not answer.
    pub async fn instances(&mut self, group: &str) -> Result<Vec<Instance>> {
        let request = NodeGroupNodesRequest { id: group.to_owned() };
        Ok(self.asks.node_group_nodes(request).await.context("asking for instances")?.into_inner().instances)
    }

    /// How many machines have run so far, in all.
    #[must_use]
    pub fn machines(&self) -> usize {
        self.journal.acts("machine-runs").len()
    }

    /// Nodes asked for and granted so far, in all or of one group.
    #[must_use]
    pub fn bought(&self, group: Option<&str>) -> i32 {
        let granted = self.journal.increases().into_iter().filter(|increase| increase.code == 0);
        granted.filter(|increase| group.is_none_or(|group| group == increase.group)).map(|i| i.delta).sum()
    }

    /// Kills the autoscaler, as a crash would.
    pub fn kill_autoscaler(&mut self) {
        self.autoscaler = None;
        self.journal.act("autoscaler-killed", json!({}));
    }

    /// Starts the autoscaler again; it remembers nothing.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_autoscaler(&mut self) -> Result<()> {
        self.autoscaler = Some(Autoscaler::start(&self.driver, &self.surroundings)?);
        Ok(())
    }

    /// Kills the provider, as a crash would.
    pub fn kill_provider(&mut self) {
        self.provider.kill();
        self.journal.act("provider-killed", json!({}));
    }

    /// Starts the provider again, on what its state file and the cloud remember.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_provider(&mut self) -> Result<()> {
        self.provider.start().await?;
        self.journal.act("provider-started", json!({}));
        Ok(())
    }

    /// Starts the provider again and does not wait for it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn launch_provider(&mut self) -> Result<()> {
        self.provider.launch()?;
        self.journal.act("provider-started", json!({}));
        Ok(())
    }

    /// A client for the provider itself, past the relay.
    #[must_use]
    pub fn asks(&self) -> CloudProviderClient<Channel> {
        self.asks.clone()
    }

    fn alive(&mut self) -> Result<()> {
        self.plane.alive()?;
        self.provider.alive()?;
        self.autoscaler.as_mut().map_or(Ok(()), Autoscaler::alive)?;
        match self.tasks.try_join_next() {
            Some(Ok(Err(error))) => Err(error.context("a part of the stage ended")),
            Some(other) => bail!("a part of the stage ended: {other:?}"),
            None => Ok(()),
        }
    }
}

/// Puts a relay before the provider and one before its expander, and sends the autoscaler to them.
async fn relays(
    provider: &Provider,
    surroundings: &mut Surroundings,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<(Faults, Faults)> {
    let journal = &surroundings.journal;
    let certified = Certified::new()?;
    let roots = surroundings.dir.join("relay-ca.crt");
    std::fs::write(&roots, &certified.certificate).context("writing the relay's certificate")?;
    let socket = surroundings.dir.join("relay.sock");
    let of_provider = relay::before_provider(&socket, provider.door.channel()?, journal.clone(), tasks)?;
    let to_expander = provider.expander_channel()?;
    let (address, of_expander) = relay::before_expander(&certified, to_expander, journal.clone(), tasks).await?;
    surroundings.provider = Door::Unix(socket);
    surroundings.expander = address;
    surroundings.expander_roots = roots;
    Ok((of_provider, of_expander))
}

impl Drop for Scene {
    fn drop(&mut self) {
        // For whoever asks why it failed; the journal itself holds everything.
        let _ = std::fs::write(self.surroundings.dir.join("story.txt"), self.journal.story());
    }
}
