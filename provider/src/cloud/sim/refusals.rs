//! The embedded cloud's ways of saying no, in the words of EC2's API (error codes as in its reference).

use crate::fleet::group::{GroupId, Refusal, RefusalClass};

use super::scenario::{Failing, Scenario};

pub(super) fn no_capacity(group: &GroupId, why: &str) -> Refusal {
    let message = format!("no {group} machine is free: {why}");
    Refusal { class: RefusalClass::NoCapacity, code: "InsufficientInstanceCapacity".into(), message }
}

pub(super) fn quota(whose: &str, most: u32) -> Refusal {
    let message = format!("the quota of {whose} is {most} machines, and all of them are in use");
    Refusal { class: RefusalClass::Quota, code: "InstanceLimitExceeded".into(), message }
}

pub(super) fn configuration(message: String) -> Refusal {
    Refusal { class: RefusalClass::Configuration, code: "ValidationError".into(), message }
}

pub(super) fn no_such_group(group: &GroupId, scenario: &Scenario) -> Refusal {
    let known: Vec<&str> = scenario.groups.keys().take(8).map(GroupId::as_str).collect();
    configuration(format!("group {group} does not exist; there are {}", known.join(", ")))
}

/// The refusal that a scripted failure answers; None for those that answer nothing at all.
pub(super) fn scripted(failing: Failing) -> Option<Refusal> {
    let (class, code, message) = match failing {
        Failing::Throttled => (RefusalClass::Throttled, "Throttling", "rate exceeded"),
        Failing::Permission => (RefusalClass::Permission, "AccessDenied", "not authorized to perform this call"),
        Failing::Configuration => {
            (RefusalClass::Configuration, "ValidationError", "the launch template names an image that does not exist")
        }
        Failing::Unavailable | Failing::Lost => return None,
    };
    Some(Refusal { class, code: code.into(), message: message.into() })
}
