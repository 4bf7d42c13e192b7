//! From the words on the wire to ours and back.

use std::collections::BTreeMap;

use prost_types::Timestamp as Time;
use windlass_proto::externalgrpc as wire;

use crate::{
    config::limits,
    fleet::{
        GroupView, InstanceView,
        group::{InstanceState, Refusal, RefusalClass},
        intents::Placeholder,
        ledger::{Denied, Named},
    },
};

/// CA marks nodes that it made up for machines without one: the value says why.
const FAKE: &str = "k8s.io/cluster-autoscaler/fake-node-reason";

/// CA's class for "no such machine to be had".
const OUT_OF_RESOURCES: i32 = 1;
/// CA's class for everything else.
const OTHER: i32 = 99;

pub(super) fn group(view: &GroupView) -> wire::NodeGroup {
    let debug = format!(
        "target {} ({} live, {} on the way, {} refused)",
        view.target,
        view.live(),
        view.waiting(),
        view.refused()
    );
    wire::NodeGroup {
        id: view.group.id.to_string(),
        min_size: int(view.group.min),
        max_size: int(view.group.max),
        debug,
    }
}

/// As CA counts.
pub(super) fn int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Whether CA made this node up.
pub(super) fn is_fake(node: &wire::ExternalGrpcNode) -> bool {
    node.annotations.contains_key(FAKE)
}

/// The nodes of a DeleteNodes request.
pub(super) fn named(nodes: Vec<wire::ExternalGrpcNode>) -> Result<Vec<Named>, Denied> {
    let named = nodes.into_iter().map(|node| match node.provider_id.is_empty() {
        true => Err(Denied::NoProviderId(node.name)),
        false => Ok(Named { fake: is_fake(&node), id: node.provider_id }),
    });
    named.collect()
}

/// Every machine of a group and every placeholder, as CA is to see them.
pub(super) fn instances(view: &GroupView) -> Vec<wire::Instance> {
    view.instances.iter().map(machine).chain(view.placeholders().map(placeholder)).collect()
}

fn machine(instance: &InstanceView) -> wire::Instance {
    let state = match instance.state {
        _ if !instance.is_live() => State::InstanceDeleting,
        InstanceState::Creating => State::InstanceCreating,
        InstanceState::Running => State::InstanceRunning,
        InstanceState::Deleting => State::InstanceDeleting,
    };
    shown(instance.id.to_string(), state, None)
}

fn placeholder(place: Placeholder) -> wire::Instance {
    shown(place.id.to_string(), State::InstanceCreating, place.refusal.map(error_info))
}

use wire::instance_status::InstanceState as State;

fn shown(id: String, state: State, error_info: Option<wire::InstanceErrorInfo>) -> wire::Instance {
    let status = wire::InstanceStatus { instance_state: state.into(), error_info };
    wire::Instance { id, status: Some(status) }
}

fn error_info(refusal: Refusal) -> wire::InstanceErrorInfo {
    let instance_error_class = match refusal.class {
        RefusalClass::NoCapacity | RefusalClass::Quota => OUT_OF_RESOURCES,
        RefusalClass::Configuration | RefusalClass::Permission | RefusalClass::Throttled => OTHER,
    };
    // CA takes an instance without a code for one that is merely slow.
    let error_code = if refusal.code.is_empty() { "refused".to_owned() } else { refusal.code };
    let mut error_message = refusal.message;
    error_message.truncate(error_message.floor_char_boundary(limits::REFUSAL));
    wire::InstanceErrorInfo { error_code, error_message, instance_error_class }
}

/// Hours from one time to another; None when either is absent or they stand in the wrong order.
pub(super) fn hours(start: Option<Time>, end: Option<Time>) -> Option<f64> {
    let seconds = |time: Time| time.seconds as f64 + f64::from(time.nanos) / 1e9;
    let hours = (seconds(end?) - seconds(start?)) / 3600.0;
    (hours >= 0.0).then_some(hours)
}

/// US dollars.
pub(super) fn dollars(micros_per_hour: u64, hours: f64) -> f64 {
    micros_per_hour as f64 / 1e6 * hours
}

/// A node's labels in order.
pub(super) fn labels(node: wire::ExternalGrpcNode) -> BTreeMap<String, String> {
    node.labels.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sentence_of_the_clouds_is_cut_between_two_letters() {
        for (message, length) in [("é".repeat(150), 300), (format!("a{}", "é".repeat(5_000)), 399)] {
            let refusal = Refusal { class: RefusalClass::Quota, code: String::new(), message: message.clone() };
            let info = error_info(refusal);
            assert!(message.starts_with(&info.error_message));
            assert_eq!((info.error_message.len(), info.error_code.as_str()), (length, "refused"));
        }
    }
}
