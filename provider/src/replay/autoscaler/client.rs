//! CA's client of the provider: what it asks anew, what it remembers until the next Refresh, and what it makes of failures.

use std::collections::BTreeMap;

use prost::Message as _;
use windlass_proto::{
    core,
    expander::{BestOptionsRequest, BestOptionsResponse},
    externalgrpc::{
        ExternalGrpcNode, Instance, NodeGroup, NodeGroupAutoscalingOptionsRequest, NodeGroupDecreaseTargetSizeRequest,
        NodeGroupDeleteNodesRequest, NodeGroupForNodeRequest, NodeGroupIncreaseSizeRequest, NodeGroupNodesRequest,
        NodeGroupTargetSizeRequest, NodeGroupTemplateNodeInfoRequest, PricingNodePriceRequest, PricingPodPriceRequest,
    },
};

use super::{
    call::{Call, Failure, Provider, Reply},
    flags::{Era, Flags},
    options::Options,
};

/// `UNIMPLEMENTED`: the one code that means something to CA.
const UNIMPLEMENTED: i32 = 12;
/// Unknown: what a reply of the wrong kind counts as.
const UNKNOWN: i32 = 2;

/// Why a call gave nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It failed; CA goes on as its code does.
    Failed(Failure),
    /// The process would die of the answer.
    Crash(String),
}

pub(super) type Answer<T> = Result<T, Trouble>;

/// Failures become None; what kills the process stays.
pub(super) fn tolerate<T>(answer: Answer<T>) -> Answer<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Trouble::Failed(_)) => Ok(None),
        Err(crash) => Err(crash),
    }
}

/// What the client keeps between calls.
#[derive(Debug, Default)]
pub(super) struct Memory {
    groups: Option<Vec<NodeGroup>>,
    group_of: BTreeMap<(String, String), NodeGroup>,
    templates: BTreeMap<String, core::Node>,
    gpu_label: Option<String>,
    gpu_types: bool,
}

/// The client during one loop.
pub(super) struct Client<'a> {
    pub(super) provider: &'a mut dyn Provider,
    pub(super) memory: &'a mut Memory,
    pub(super) era: Era,
    pub(super) flags: &'a Flags,
}

fn odd(call: &str) -> Trouble {
    Trouble::Failed(Failure { code: UNKNOWN, message: format!("{call} was answered with another call's reply") })
}

/// Sends one call and takes the reply of its own kind.
macro_rules! ask {
    ($client:expr, $call:expr, $pattern:pat => $value:expr) => {
        match $client.provider.call(&$call) {
            Ok($pattern) => Ok($value),
            Ok(_) => Err(odd(stringify!($pattern))),
            Err(failure) => Err(Trouble::Failed(failure)),
        }
    };
}

impl Client<'_> {
    /// Forgets groups and memberships even when the call then fails.
    pub(super) fn refresh(&mut self) -> Answer<()> {
        self.memory.groups = None;
        self.memory.group_of.clear();
        self.memory.templates.clear();
        ask!(self, Call::Refresh, Reply::Refresh => ())
    }

    /// Asked once per loop; a failure is an empty list, asked again next time.
    pub(super) fn groups(&mut self) -> Vec<NodeGroup> {
        if let Some(groups) = &self.memory.groups {
            return groups.clone();
        }
        let Ok(response) = ask!(self, Call::NodeGroups, Reply::NodeGroups(response) => response) else {
            return Vec::new();
        };
        self.memory.groups = Some(response.node_groups.clone());
        response.node_groups
    }

    /// Remembered per node; that a node belongs to no group is never remembered.
    pub(super) fn group_of(&mut self, node: &ExternalGrpcNode) -> Answer<Option<NodeGroup>> {
        let key = (node.name.clone(), node.provider_id.clone());
        if let Some(group) = self.memory.group_of.get(&key) {
            return Ok(Some(group.clone()));
        }
        let call = Call::NodeGroupForNode(NodeGroupForNodeRequest { node: Some(node.clone()) });
        let response = ask!(self, call, Reply::NodeGroupForNode(response) => response)?;
        let group = response.node_group.filter(|group| !group.id.is_empty());
        if let Some(group) = &group {
            self.memory.group_of.insert(key, group.clone());
        }
        Ok(group)
    }

    pub(super) fn target_size(&mut self, group: &str) -> Answer<i64> {
        let call = Call::TargetSize(NodeGroupTargetSizeRequest { id: group.to_owned() });
        ask!(self, call, Reply::TargetSize(response) => i64::from(response.target_size))
    }

    /// Sizes of all groups, in their order; the first failure ends it.
    pub(super) fn target_sizes(&mut self) -> Answer<BTreeMap<String, i64>> {
        let groups = self.groups();
        groups.into_iter().map(|group| Ok((group.id.clone(), self.target_size(&group.id)?))).collect()
    }

    pub(super) fn nodes(&mut self, group: &str) -> Answer<Vec<Instance>> {
        let call = Call::Nodes(NodeGroupNodesRequest { id: group.to_owned() });
        ask!(self, call, Reply::Nodes(response) => response.instances)
    }

    /// A group's template. `holder` names the object that asks: CA's client remembers a template per object, and objects
    /// that came from different calls do not share it. None where the provider has no templates.
    pub(super) fn template(&mut self, holder: &str, group: &str) -> Answer<Option<core::Node>> {
        if let Some(node) = self.memory.templates.get(holder) {
            return Ok(Some(node.clone()));
        }
        let call = Call::TemplateNodeInfo(NodeGroupTemplateNodeInfoRequest { id: group.to_owned() });
        let response = match ask!(self, call, Reply::TemplateNodeInfo(response) => response) {
            Ok(response) => response,
            Err(Trouble::Failed(failure)) if failure.code == UNIMPLEMENTED && self.era > Era::V1_27 => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        let bytes = match self.era {
            Era::V1_27 | Era::V1_29 | Era::V1_33 => &response.node_info,
            Era::V1_34 if response.node_bytes.is_empty() => &response.node_info,
            Era::V1_34 | Era::V1_36 => &response.node_bytes,
        };
        if bytes.is_empty() {
            return Err(Trouble::Crash(format!("nil pointer: {group} answered OK with an empty template")));
        }
        let node = core::Node::decode(bytes.as_slice())
            .map_err(|error| Trouble::Failed(Failure { code: UNKNOWN, message: error.to_string() }))?;
        self.memory.templates.insert(holder.to_owned(), node.clone());
        Ok(Some(node))
    }

    /// Never remembered. None means: what the command line says.
    fn own_options(&mut self, group: &str) -> Answer<Option<Options>> {
        let defaults = Options::of(self.flags).to_message(self.era);
        let call =
            Call::GetOptions(NodeGroupAutoscalingOptionsRequest { id: group.to_owned(), defaults: Some(defaults) });
        match ask!(self, call, Reply::GetOptions(response) => response) {
            Ok(response) => response
                .node_group_autoscaling_options
                .map(|message| Options::read(&message, self.era, self.flags))
                .transpose()
                .map_err(Trouble::Crash),
            Err(Trouble::Failed(failure)) if failure.code == UNIMPLEMENTED && self.era > Era::V1_27 => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    pub(super) fn options(&mut self, group: &str) -> Answer<Options> {
        Ok(self.own_options(group)?.unwrap_or_else(|| Options::of(self.flags)))
    }

    /// Remembered for ever after the first success; empty on failure.
    pub(super) fn gpu_label(&mut self) -> String {
        if self.memory.gpu_label.is_none() {
            self.memory.gpu_label = ask!(self, Call::GpuLabel, Reply::GpuLabel(response) => response.label).ok();
        }
        self.memory.gpu_label.clone().unwrap_or_default()
    }

    /// Only metric labels come of it.
    pub(super) fn gpu_types(&mut self) {
        if !self.memory.gpu_types {
            let answer = ask!(self, Call::GetAvailableGpuTypes, Reply::GetAvailableGpuTypes(_) => ());
            self.memory.gpu_types = answer.is_ok();
        }
    }

    pub(super) fn increase(&mut self, group: &str, delta: i64) -> Answer<()> {
        let delta = i32::try_from(delta).unwrap_or(i32::MAX);
        let call = Call::IncreaseSize(NodeGroupIncreaseSizeRequest { delta, id: group.to_owned() });
        ask!(self, call, Reply::IncreaseSize => ())
    }

    pub(super) fn decrease(&mut self, group: &str, delta: i64) -> Answer<()> {
        let delta = i32::try_from(delta).unwrap_or(i32::MIN);
        let call = Call::DecreaseTargetSize(NodeGroupDecreaseTargetSizeRequest { delta, id: group.to_owned() });
        ask!(self, call, Reply::DecreaseTargetSize => ())
    }

    pub(super) fn delete(&mut self, group: &str, nodes: Vec<ExternalGrpcNode>) -> Answer<()> {
        let call = Call::DeleteNodes(NodeGroupDeleteNodesRequest { nodes, id: group.to_owned() });
        ask!(self, call, Reply::DeleteNodes => ())
    }

    pub(super) fn node_price(&mut self, request: PricingNodePriceRequest) -> Answer<f64> {
        ask!(self, Call::PricingNodePrice(request), Reply::PricingNodePrice(response) => response.price)
    }

    pub(super) fn pod_price(&mut self, request: PricingPodPriceRequest) -> Answer<f64> {
        ask!(self, Call::PricingPodPrice(request), Reply::PricingPodPrice(response) => response.price)
    }

    pub(super) fn best_options(&mut self, request: BestOptionsRequest) -> Answer<BestOptionsResponse> {
        ask!(self, Call::BestOptions(request), Reply::BestOptions(response) => response)
    }
}
