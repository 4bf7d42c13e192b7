//! One scenario's stage: a control plane, our provider, the relays before it, the kubelets of its machines and an
//! autoscaler, with the few acts and waits that scenarios are made of.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};
use tonic::transport::Channel;
use windlass_proto::externalgrpc::{
    Instance, NodeGroupNodesRequest, NodeGroupTargetSizeRequest, cloud_provider_client::CloudProviderClient,
};

use super::{
    autoscaler::{Autoscaler, Driver, Surroundings},
    binaries::Binaries,
    journal::Journal,
    kubelets::{Conduct, Kubelets},
    plane::Plane,
    provider::Provider,
    relay::{Certified, CloudProvider, Expander, Faults, Relay, Upstream, unix_channel},
    world::{GPU, World},
};

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
}

impl Default for Setup {
    fn default() -> Self {
        Self { world: World::default(), settings: json!({}), expanders: "grpc".to_owned(), frequent_loops: None }
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
    /// The machines there can be.
    pub world: World,
    asks: CloudProviderClient<Channel>,
}

impl Scene {
    /// Builds the stage in `dir`: the plane, the provider, the kubelets; the autoscaler last.
    ///
    /// # Errors
    /// Says what did not start.
    pub async fn start(programs: &Programs, driver: &Driver, setup: Setup, dir: &Path) -> Result<Self> {
        let journal = Arc::new(Journal::new(&dir.join("journal.jsonl"))?);
        let mut provider = Provider::new(&programs.provider, dir, &setup.world, &setup.settings)?;
        let (plane, started) = tokio::join!(Plane::start(&programs.binaries, dir), provider.start());
        let (plane, ()) = (plane?, started?);
        let mut tasks = JoinSet::new();
        let conduct = Conduct::default();
        let certified = Certified::new()?;
        let expander_roots = dir.join("relay-ca.crt");
        std::fs::write(&expander_roots, &certified.certificate).context("writing the relay's certificate")?;
        let to_provider = Upstream::Unix(provider.socket.clone());
        let to_expander = Upstream::Tls(provider.expander, provider.expander_roots());
        let before = Relay::start(CloudProvider, to_provider, None, journal.clone(), &mut tasks).await?;
        let beside = Relay::start(Expander, to_expander, Some(&certified), journal.clone(), &mut tasks).await?;
        let (client, socket) = (plane.client.clone(), provider.socket.clone());
        let kubelets = Kubelets::new(client, socket, setup.world.clone(), conduct.clone(), journal.clone())?;
        tasks.spawn(kubelets.run());
        let kubeconfig = match driver {
            Driver::Real(_) => plane.autoscaler_kubeconfig().await?,
            Driver::Model => plane.kubeconfig.clone(),
        };
        let surroundings = Surroundings {
            kubeconfig,
            provider: before.address,
            expander: beside.address,
            expander_roots,
            expanders: setup.expanders,
            frequent_loops: setup.frequent_loops,
            dir: dir.to_owned(),
            journal: journal.clone(),
        };
        let autoscaler = Some(Autoscaler::start(driver, &surroundings)?);
        let asks = CloudProviderClient::new(unix_channel(provider.socket.clone())?);
        let scene = Self {
            autoscaler,
            driver: driver.clone(),
            surroundings,
            tasks,
            provider,
            plane,
            journal,
            conduct,
            provider_faults: before.faults,
            expander_faults: beside.faults,
            world: setup.world,
            asks,
        };
        // Pods that come before the autoscaler has seen the cluster once would hide what a loop costs.
        let mut scene = scene;
        scene
            .until("the autoscaler's first loop", Duration::from_secs(60), async |s| {
                Ok(!s.journal.calls("Refresh").is_empty())
            })
            .await?;
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

    /// Creates `count` pods of that many GPUs each (none: half a CPU), named `<name>-<n>`.
    ///
    /// # Errors
    /// When the apiserver refuses them.
    pub async fn create_pods(&self, name: &str, count: u32, gpus: u32) -> Result<()> {
        let pods = self.pods_api();
        for n in 0..count {
            let mut limits = json!({"cpu": "500m", "memory": "256Mi"});
            if gpus > 0 {
                limits[GPU] = json!(gpus.to_string());
            }
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {
                    "name": format!("{name}-{n}"),
                    // A bare pod has nobody to make it anew; without this no node with one on it is ever given back.
                    "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"},
                },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "work", "image": "work", "resources": {"limits": limits, "requests": limits}}],
                    "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
                },
            }))
            .context("writing a pod")?;
            pods.create(&PostParams::default(), &pod).await.context("creating a pod")?;
        }
        self.journal.act("pods-created", json!({"name": name, "count": count, "gpus": gpus}));
        Ok(())
    }

    /// Deletes every pod.
    ///
    /// # Errors
    /// When the apiserver refuses.
    pub async fn delete_pods(&self) -> Result<()> {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.pods_api().delete_collection(&at_once, &ListParams::default()).await.context("deleting the pods")?;
        self.journal.act("pods-deleted", json!({}));
        Ok(())
    }

    /// Waits until this many pods run and none waits.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub async fn until_running(&mut self, count: usize, within: Duration) -> Result<()> {
        self.until(&format!("{count} pods Running"), within, async |scene| {
            let pods = scene.pods_api().list(&ListParams::default()).await.context("listing pods")?;
            let runs = |pod: &&Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            Ok(pods.items.len() == count && pods.items.iter().filter(runs).count() == count)
        })
        .await
    }

    /// Every Node.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let nodes: Api<Node> = Api::all(self.plane.client.clone());
        Ok(nodes.list(&ListParams::default()).await.context("listing nodes")?.items)
    }

    /// How many Nodes each group has.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub async fn nodes_by_group(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for node in self.nodes().await? {
            let group = node.metadata.labels.unwrap_or_default().remove("rig/group").unwrap_or_default();
            *counts.entry(group).or_default() += 1;
        }
        Ok(counts)
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

    /// A client for the provider itself, past the relay.
    #[must_use]
    pub fn asks(&self) -> CloudProviderClient<Channel> {
        self.asks.clone()
    }

    /// The pod's node, if it has one.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub async fn node_of(&self, pod: &str) -> Result<Option<Node>> {
        let pod = self.pods_api().get(pod).await.context("reading a pod")?;
        let Some(name) = pod.spec.and_then(|spec| spec.node_name) else { return Ok(None) };
        Ok(self.nodes().await?.into_iter().find(|node| node.metadata.name.as_deref() == Some(&name)))
    }

    /// Deletes one pod.
    ///
    /// # Errors
    /// When the apiserver refuses.
    pub async fn delete_pod(&self, pod: &str) -> Result<()> {
        self.pods_api().delete(pod, &DeleteParams::default()).await.context("deleting a pod")?;
        self.journal.act("pod-deleted", json!({"pod": pod}));
        Ok(())
    }

    fn pods_api(&self) -> Api<Pod> {
        Api::namespaced(self.plane.client.clone(), "default")
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

impl Drop for Scene {
    fn drop(&mut self) {
        // For whoever asks why it failed; the journal itself holds everything.
        let _ = std::fs::write(self.surroundings.dir.join("story.txt"), self.journal.story());
    }
}
