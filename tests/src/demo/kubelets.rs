//! The machines' part: they boot, register as Nodes, show their GPUs, and are gone when the cloud takes them back.

use std::{collections::BTreeMap, path::PathBuf};

use prost::Message as _;
use windlass_proto::{core, externalgrpc::NodeGroupTemplateNodeInfoRequest};
use windlass_provider::{
    cloud::sim::{self, Machine},
    fleet::group::InstanceId,
    replay::{
        autoscaler::{Call, Provider as _, Reply},
        cluster::{Cluster, NodeView},
    },
    timestamp::Timestamp,
};

use crate::caller::Caller;

/// What a look at the machines showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The cloud made a machine.
    Booting {
        /// Its short name.
        machine: String,
        /// Its group.
        group: String,
        /// Its zone.
        zone: String,
    },
    /// Its kubelet registered.
    Registered {
        /// The Node.
        node: String,
        /// Whether GPUs are still to come.
        waits_for_gpus: bool,
    },
    /// Its device plugin showed the GPUs.
    GpusReady {
        /// The Node.
        node: String,
    },
    /// Machine and Node are gone.
    Gone {
        /// The Node.
        node: String,
    },
}

/// Every machine's kubelet and device plugin.
#[derive(Debug)]
pub(super) struct Kubelets {
    scenario: PathBuf,
    state: PathBuf,
    seen: BTreeMap<InstanceId, Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// As it registered, with its GPUs; None before.
    node: Option<NodeView>,
    gpus_ready: bool,
}

impl Kubelets {
    /// For the machines of this scenario, as the cloud's state file shows them.
    #[must_use]
    pub(super) fn new(scenario: PathBuf, state: PathBuf) -> Self {
        Self { scenario, state, seen: BTreeMap::new() }
    }

    /// Lets every machine do what its time has come for, and tells what happened.
    ///
    /// # Errors
    /// When the cloud's files cannot be read, or a group has no template.
    pub(super) fn step(
        &mut self,
        cluster: &mut Cluster,
        caller: &mut Caller,
        now: Timestamp,
    ) -> anyhow::Result<Vec<News>> {
        let machines = sim::look(&self.scenario, &self.state, now)?;
        let mut news = Vec::new();
        for machine in &machines {
            self.live(machine, cluster, caller, (now, &mut news))?;
        }
        let gone = |id: &InstanceId| !machines.iter().any(|machine| machine.id == *id && !ended(machine, now));
        let ends: Vec<InstanceId> = self.seen.keys().filter(|id| gone(id)).cloned().collect();
        for id in ends {
            let name = self.seen.remove(&id).and_then(|seen| seen.node).map(|node| node.name);
            if let Some(node) = name.filter(|name| cluster.remove_node(name).is_some()) {
                news.push(News::Gone { node });
            }
        }
        Ok(news)
    }

    fn live(
        &mut self,
        machine: &Machine,
        cluster: &mut Cluster,
        caller: &mut Caller,
        (now, news): (Timestamp, &mut Vec<News>),
    ) -> anyhow::Result<()> {
        if ended(machine, now) {
            return Ok(());
        }
        let name = short(&machine.id);
        let seen = self.seen.entry(machine.id.clone()).or_insert_with(|| {
            let (group, zone) = (machine.group.to_string(), machine.zone.clone());
            news.push(News::Booting { machine: name.clone(), group, zone });
            Seen::default()
        });
        if seen.node.is_none() && machine.registered(now) {
            let template = template(caller, machine.group.as_str())?;
            let node = NodeView::from_template(&template, &name, machine.id.as_str(), now);
            cluster.add_node(node.clone().without_devices());
            seen.node = Some(node);
            news.push(News::Registered { node: name.clone(), waits_for_gpus: machine.gpus_at.is_some() });
        }
        if let Some(node) = seen.node.as_ref().filter(|_| !seen.gpus_ready && machine.gpus_allocatable(now)) {
            if let Some(registered) = cluster.nodes.get_mut(&name) {
                registered.capacity.clone_from(&node.capacity);
                registered.allocatable.clone_from(&node.allocatable);
            }
            seen.gpus_ready = true;
            news.push(News::GpusReady { node: name });
        }
        Ok(())
    }
}

fn ended(machine: &Machine, now: Timestamp) -> bool {
    machine.ends_at.is_some_and(|at| at <= now)
}

/// `i-000001` of `sim:///us-east-1a/i-000001`.
fn short(id: &InstanceId) -> String {
    id.as_str().rsplit('/').next().unwrap_or_default().to_owned()
}

/// What a new machine of the group looks like, from the provider itself.
fn template(caller: &mut Caller, group: &str) -> anyhow::Result<core::Node> {
    let call = Call::TemplateNodeInfo(NodeGroupTemplateNodeInfoRequest { id: group.to_owned() });
    match caller.call(&call)? {
        Reply::TemplateNodeInfo(reply) => Ok(core::Node::decode(reply.node_bytes.as_slice())?),
        other => anyhow::bail!("the provider answered a template's request with {other:?}"),
    }
}
