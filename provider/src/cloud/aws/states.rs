//! The life of a machine in an Auto Scaling group, in our three states.

use aws_sdk_autoscaling::types::Instance as AsgInstance;

use crate::fleet::group::{Instance, InstanceId, InstanceState};

/// The machine's lifecycle state as AWS writes it.
pub(super) fn lifecycle(of: &AsgInstance) -> &str {
    of.lifecycle_state.as_ref().map_or("", |state| state.as_str())
}

/// The machine's id, as its node's `spec.providerID` will have it.
pub(super) fn id(of: &AsgInstance) -> Option<InstanceId> {
    let (id, zone) = (of.instance_id.as_deref()?, of.availability_zone.as_deref()?);
    Some(format!("aws:///{zone}/{id}").into())
}

/// Whether the group's desired capacity counts a machine in this state.
pub(super) fn counts(lifecycle: &str) -> bool {
    matches!(state(lifecycle), Some(InstanceState::Creating | InstanceState::Running))
        && !matches!(lifecycle, "Standby" | "EnteringStandby")
}

/// None for a machine that rests in a warm pool and is no capacity yet.
pub(super) fn state(lifecycle: &str) -> Option<InstanceState> {
    match lifecycle {
        "Pending" | "Pending:Wait" | "Pending:Proceed" => Some(InstanceState::Creating),
        "InService" | "EnteringStandby" | "Standby" | "Quarantined" | "RootVolumeReplaced" => {
            Some(InstanceState::Running)
        }
        lifecycle if lifecycle.starts_with("ReplacingRootVolume") => Some(InstanceState::Running),
        lifecycle if lifecycle.starts_with("Warmed:") => None,
        // Terminating, its hooks, Terminated, Detaching, Detached: gone for this group, or soon.
        lifecycle if lifecycle.starts_with("Terminat") || lifecycle.starts_with("Detach") => {
            Some(InstanceState::Deleting)
        }
        // A state that AWS adds later: the machine is there, and nobody said that it goes.
        _ => Some(InstanceState::Running),
    }
}

/// A machine of the group; None for one in a warm pool. `replaces` says whether the group ends unhealthy machines:
/// then one is on its way out as soon as AWS calls it that.
pub(super) fn instance(of: &AsgInstance, replaces: bool) -> Option<Instance> {
    let id = id(of)?;
    let mut state = state(lifecycle(of))?;
    let unhealthy = of.health_status.as_deref().is_some_and(|health| health.eq_ignore_ascii_case("unhealthy"));
    if unhealthy && replaces && state == InstanceState::Running && counts(lifecycle(of)) {
        state = InstanceState::Deleting;
    }
    Some(Instance { id, state, zone: of.availability_zone.clone().unwrap_or_default(), token: None })
}

#[cfg(test)]
mod tests {
    use aws_sdk_autoscaling::types::LifecycleState;

    use super::*;

    fn shown(lifecycle: &str, health: &str, replaces: bool) -> Option<InstanceState> {
        let machine = AsgInstance::builder().instance_id("i-1").availability_zone("eu-west-1a");
        let machine = machine.lifecycle_state(LifecycleState::from(lifecycle)).health_status(health).build();
        instance(&machine, replaces).map(|it| it.state)
    }

    #[test]
    fn every_lifecycle_state_is_one_of_three_or_no_capacity() {
        use InstanceState::{Creating, Deleting, Running};
        for (lifecycle, state, counted) in [
            ("Pending", Some(Creating), true),
            ("Pending:Wait", Some(Creating), true),
            ("Pending:Proceed", Some(Creating), true),
            ("InService", Some(Running), true),
            ("ReplacingRootVolume:Wait", Some(Running), true),
            ("EnteringStandby", Some(Running), false),
            ("Standby", Some(Running), false),
            ("Terminating", Some(Deleting), false),
            ("Terminating:Wait", Some(Deleting), false),
            ("Terminating:Proceed", Some(Deleting), false),
            ("Terminated", Some(Deleting), false),
            ("Detaching", Some(Deleting), false),
            ("Detached", Some(Deleting), false),
            ("Warmed:Stopped", None, false),
            ("Warmed:Pending:Wait", None, false),
            ("Warmed:Terminating", None, false),
            ("SomethingNew", Some(Running), true),
        ] {
            assert_eq!(shown(lifecycle, "Healthy", true), state, "{lifecycle}");
            assert_eq!(counts(lifecycle), counted, "{lifecycle}");
        }
    }

    #[test]
    fn an_unhealthy_machine_is_on_its_way_out_when_the_group_replaces_it() {
        assert_eq!(shown("InService", "Unhealthy", true), Some(InstanceState::Deleting));
        assert_eq!(shown("InService", "UNHEALTHY", false), Some(InstanceState::Running));
        assert_eq!(shown("Pending", "Unhealthy", true), Some(InstanceState::Creating));
        assert_eq!(shown("Standby", "Unhealthy", true), Some(InstanceState::Running));
    }
}
