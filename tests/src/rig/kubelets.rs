//! Plays the kubelet, the device plugin and the cloud's node controller for every machine there is: those that the
//! provider lists, or those that AWS has. Nothing here knows what the provider decided, only what exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::transport::Channel;
use windlass_proto::externalgrpc::{
    Instance, NodeGroupNodesRequest, NodeGroupsRequest, cloud_provider_client::CloudProviderClient,
    instance_status::InstanceState,
};

use super::{
    aws,
    journal::Journal,
    world::{GPU_LABEL, World},
};
use crate::aws::AwsCloud;

/// How often machines and Nodes are compared.
const TICK: Duration = Duration::from_millis(300);
/// How often a kubelet renews its lease; the controller gives up after 40 s without.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// From a machine's end to the end of its Node, as a cloud's node controller takes.
const NODE_GOES: Duration = Duration::from_secs(2);

/// How machines behave.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// From running to a registered Node.
    pub registers_after: Duration,
    /// From the Node to its allocatable GPUs.
    pub devices_after: Duration,
    /// The GPU label comes with the GPUs instead of with the Node: a labeller's way, and a trap.
    pub label_late: bool,
    /// Groups whose machines run and never register.
    pub never_register: BTreeSet<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            registers_after: Duration::from_secs(2),
            devices_after: Duration::from_secs(3),
            label_late: false,
            never_register: BTreeSet::new(),
        }
    }
}

/// The behaviour of machines, shared with the scenario, which may change it at any time.
#[derive(Clone, Debug, Default)]
pub struct Conduct(Arc<Mutex<Behaviour>>);

impl Conduct {
    /// To be read or changed.
    pub fn lock(&self) -> MutexGuard<'_, Behaviour> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of one machine.
#[derive(Clone, Debug)]
struct Machine {
    group: String,
    zone: String,
    node: String,
    running_since: Instant,
    registered: Option<Instant>,
    devices: bool,
    renewed: Option<Instant>,
    gone: Option<Instant>,
}

/// Where machines are known.
pub enum Hosts {
    /// To the provider: the embedded cloud is part of it.
    Provider(CloudProviderClient<Channel>),
    /// To AWS.
    Aws(Arc<AwsCloud>),
}

/// Every kubelet of the cluster.
pub struct Kubelets {
    client: Client,
    hosts: Hosts,
    world: World,
    conduct: Conduct,
    journal: Arc<Journal>,
    machines: BTreeMap<String, Machine>,
}

impl Kubelets {
    /// For these machines.
    #[must_use]
    pub fn new(client: Client, hosts: Hosts, world: World, conduct: Conduct, journal: Arc<Journal>) -> Self {
        Self { client, hosts, world, conduct, journal, machines: BTreeMap::new() }
    }

    /// Goes on until it fails.
    ///
    /// # Errors
    /// When the apiserver refuses what a kubelet may do.
    pub async fn run(mut self) -> Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // No answer (the provider is being restarted) changes nothing: machines live on without it.
            if let Ok(listed) = self.listed().await {
                self.compare(&listed);
            }
            self.nodes().await?;
            self.pods().await?;
        }
    }

    /// Every instance of every group, by id, and whether it runs.
    async fn listed(&mut self) -> Result<BTreeMap<String, (String, bool)>> {
        let provider = match &mut self.hosts {
            Hosts::Aws(cloud) => return Ok(aws::hosts(cloud)),
            Hosts::Provider(provider) => provider,
        };
        let groups = provider.node_groups(NodeGroupsRequest {}).await?.into_inner().node_groups;
        let mut listed = BTreeMap::new();
        for group in groups {
            let request = NodeGroupNodesRequest { id: group.id.clone() };
            for instance in provider.node_group_nodes(request).await?.into_inner().instances {
                listed.insert(instance.id.clone(), (group.id.clone(), runs(&instance)));
            }
        }
        Ok(listed)
    }

    /// Takes in machines that run, and notes which are gone.
    fn compare(&mut self, listed: &BTreeMap<String, (String, bool)>) {
        for (id, (group, runs)) in listed {
            if !runs || self.machines.contains_key(id) {
                continue;
            }
            self.journal.act("machine-runs", json!({"group": group, "id": id}));
            let mut parts = id.rsplit('/');
            let node = parts.next().unwrap_or_default().to_owned();
            let zone = parts.next().unwrap_or_default().to_owned();
            let machine = Machine {
                group: group.clone(),
                zone,
                node,
                running_since: Instant::now(),
                registered: None,
                devices: false,
                renewed: None,
                gone: None,
            };
            self.machines.insert(id.clone(), machine);
        }
        for (id, machine) in &mut self.machines {
            if listed.contains_key(id) {
                machine.gone = None;
            } else if machine.gone.is_none() {
                machine.gone = Some(Instant::now());
                self.journal.act("machine-gone", json!({"group": machine.group, "id": id}));
            }
        }
    }

    /// Registers, equips, renews and removes Nodes.
    async fn nodes(&mut self) -> Result<()> {
        let behaviour = self.conduct.lock().clone();
        let mut machines = std::mem::take(&mut self.machines);
        let mut over = Vec::new();
        for (id, machine) in &mut machines {
            let never = behaviour.never_register.contains(&machine.group);
            let due = !never && machine.running_since.elapsed() >= behaviour.registers_after;
            match (machine.gone, machine.registered) {
                (Some(since), _) if since.elapsed() >= NODE_GOES => {
                    self.remove(machine).await?;
                    over.push(id.clone());
                }
                (Some(_), _) => {}
                (None, None) if due => self.register(id, machine, &behaviour).await?,
                (None, None) => {}
                (None, Some(since)) => {
                    if !machine.devices && since.elapsed() >= behaviour.devices_after {
                        self.equip(machine).await?;
                    }
                    if machine.renewed.is_none_or(|at| at.elapsed() >= HEARTBEAT) {
                        self.renew(machine).await?;
                    }
                }
            }
        }
        for id in over {
            machines.remove(&id);
        }
        self.machines = machines;
        Ok(())
    }

    /// POSTs the Node, with status, as a kubelet does; without GPUs, which only the device plugin knows of.
    async fn register(&self, id: &str, machine: &mut Machine, behaviour: &Behaviour) -> Result<()> {
        let group = self.world.group(&machine.group).context("the provider lists a group that the scenario lacks")?;
        let mut labels = group.labels(&machine.node, &machine.zone, self.world.region());
        if behaviour.label_late {
            labels.remove(GPU_LABEL);
        }
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": machine.node, "labels": labels},
            "spec": {"providerID": id, "taints": group.taints()},
            "status": {
                "capacity": group.resources(false), "allocatable": group.resources(false), "conditions": conditions(),
                "addresses": [{"type": "Hostname", "address": machine.node}, {"type": "InternalIP", "address": "127.0.0.1"}],
                "nodeInfo": {
                    "architecture": "amd64", "bootID": "b", "containerRuntimeVersion": "containerd://2.1.0",
                    "kernelVersion": "6.12.0", "kubeProxyVersion": "", "kubeletVersion": "v1.36.2", "machineID": "m",
                    "operatingSystem": "linux", "osImage": "rig", "systemUUID": "s",
                },
            },
        }))
        .context("writing a Node")?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await.context("registering a Node")?;
        machine.registered = Some(Instant::now());
        machine.devices = group.gpus == 0;
        self.renew(machine).await?;
        self.journal.act("node-registered", json!({"group": machine.group, "node": machine.node}));
        Ok(())
    }

    /// The device plugin has registered: GPUs become allocatable (and a late labeller has its turn).
    async fn equip(&self, machine: &mut Machine) -> Result<()> {
        let group = self.world.group(&machine.group).context("the provider lists a group that the scenario lacks")?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let labels = json!({"metadata": {"labels": group.labels(&machine.node, &machine.zone, self.world.region())}});
        nodes.patch(&machine.node, &PatchParams::default(), &Patch::Merge(labels)).await.context("labelling a Node")?;
        let status = json!({"status": {"capacity": group.resources(true), "allocatable": group.resources(true)}});
        let patched = nodes.patch_status(&machine.node, &PatchParams::default(), &Patch::Merge(status)).await;
        patched.context("adding GPUs to a Node")?;
        machine.devices = true;
        self.journal.act("gpu-ready", json!({"group": machine.group, "node": machine.node}));
        Ok(())
    }

    /// A kubelet's heartbeat.
    async fn renew(&self, machine: &mut Machine) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let time = time_now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": machine.node},
            "spec": {"holderIdentity": machine.node, "leaseDurationSeconds": 40, "renewTime": time},
        });
        let apply = PatchParams::apply("kubelet").force();
        leases.patch(&machine.node, &apply, &Patch::Apply(lease)).await.context("renewing a lease")?;
        machine.renewed = Some(Instant::now());
        Ok(())
    }

    /// What a cloud's node controller does once the machine is gone.
    async fn remove(&self, machine: &Machine) -> Result<()> {
        if machine.registered.is_some() {
            let nodes: Api<Node> = Api::all(self.client.clone());
            ignore_missing(nodes.delete(&machine.node, &DeleteParams::default()).await.map(drop))?;
            self.journal.act("node-gone", json!({"group": machine.group, "node": machine.node}));
        }
        Ok(())
    }

    /// Starts pods that are bound, and ends those that are to end or whose machine is gone.
    async fn pods(&self) -> Result<()> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let alive: BTreeSet<&str> =
            self.machines.values().filter(|machine| machine.gone.is_none()).map(|m| m.node.as_str()).collect();
        for pod in pods.list(&ListParams::default()).await.context("listing pods")? {
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { continue };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let here: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let pending = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending");
            let deleted = pod.metadata.deletion_timestamp.is_some();
            if deleted || !alive.contains(node) {
                if !deleted {
                    self.journal.act("pod-lost", json!({"pod": name, "node": node}));
                }
                let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                ignore_missing(here.delete(name, &at_once).await.map(drop))?;
            } else if pending {
                let status = json!({"status": running()});
                let patched = here.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
                ignore_missing(patched.map(drop))?;
                self.journal.act("pod-running", json!({"pod": name, "node": node}));
            }
        }
        Ok(())
    }
}

fn runs(instance: &Instance) -> bool {
    instance
        .status
        .as_ref()
        .is_some_and(|status| status.instance_state() == InstanceState::InstanceRunning && status.error_info.is_none())
}

/// What somebody else removed first is removed.
fn ignore_missing(result: kube::Result<()>) -> Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.context("changing what a kubelet owns"),
    }
}

/// The conditions of a healthy node.
fn conditions() -> Value {
    let now = time_now();
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Kubelet", "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now});
    json!([
        condition("Ready", "True"),
        condition("MemoryPressure", "False"),
        condition("DiskPressure", "False"),
        condition("PIDPressure", "False"),
        condition("NetworkUnavailable", "False"),
    ])
}

/// The status of a pod whose one container runs.
fn running() -> Value {
    let now = time_now();
    let state = json!({"running": {"startedAt": now}});
    json!({
        "phase": "Running", "startTime": now,
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        "containerStatuses": [{
            "name": "work", "ready": true, "restartCount": 0, "image": "work", "imageID": "work", "started": true, "state": state,
        }],
    })
}

/// Now, to the microsecond: what the apiserver's `MicroTime` reads.
fn time_now() -> String {
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
