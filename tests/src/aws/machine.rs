//! One EC2 instance of a group: the moments of its life, and what the Auto Scaling API calls it at each of them.

use std::time::Duration;

use super::moment::Moment;

/// How an instance is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Market {
    /// By the hour.
    #[default]
    OnDemand,
    /// Until AWS takes it back.
    Spot,
}

impl Market {
    /// As `LaunchInstances` spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
        }
    }
}

/// What a launch asks EC2 for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) zone: String,
    pub(super) instance_type: String,
    pub(super) market: Market,
}

/// An instance and the moments of its life, past and to come, in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `i-<17 hex digits>`.
    pub id: String,
    /// Its Availability Zone.
    pub zone: String,
    /// Its type.
    pub instance_type: String,
    /// Its market.
    pub market: Market,
    /// When it was launched.
    pub launched_at: u64,
    /// When it is done with `Pending`.
    pub started_at: u64,
    /// When the lifecycle hook at launch lets it go on; None without a hook.
    pub launch_hook_until: Option<u64>,
    /// Protected from scale-in.
    pub protected: bool,
    /// Put on standby.
    pub standby: bool,
    /// When its host goes away; before this the group knows nothing.
    pub host_ends_at: Option<u64>,
    /// When its group begins to end it.
    pub ends_at: Option<u64>,
    /// When the lifecycle hook at termination lets it go; None without a hook.
    pub end_hook_until: Option<u64>,
    /// When it is listed no more.
    pub gone_at: Option<u64>,
    /// A lifecycle state that a test wants to see.
    pub scripted: Option<String>,
}

impl Machine {
    /// Its node's `spec.providerID`.
    #[must_use]
    pub fn provider_id(&self) -> String {
        format!("aws:///{}/{}", self.zone, self.id)
    }

    /// One that is in service from now on.
    pub(super) fn new(id: String, offer: &Offer, now: Moment) -> Self {
        Self {
            id,
            zone: offer.zone.clone(),
            instance_type: offer.instance_type.clone(),
            market: offer.market,
            launched_at: now,
            started_at: now,
            launch_hook_until: None,
            protected: false,
            standby: false,
            host_ends_at: None,
            ends_at: None,
            end_hook_until: None,
            gone_at: None,
            scripted: None,
        }
    }

    /// The lifecycle state at this moment; None before the launch and once it is gone.
    #[must_use]
    pub fn state(&self, now: u64) -> Option<&str> {
        let reached = |moment: Option<u64>| moment.is_some_and(|moment| moment <= now);
        if now < self.launched_at || reached(self.gone_at) {
            return None;
        }
        Some(if reached(self.ends_at) {
            match self.end_hook_until {
                Some(until) if now < until => "Terminating:Wait",
                Some(_) => "Terminating:Proceed",
                None => "Terminating",
            }
        } else if let Some(scripted) = &self.scripted {
            scripted
        } else if now < self.started_at {
            "Pending"
        } else if self.launch_hook_until.is_some_and(|until| now < until) {
            "Pending:Wait"
        } else if self.standby {
            "Standby"
        } else {
            "InService"
        })
    }

    /// Whether the group counts it towards its desired capacity.
    pub(super) fn counts(&self, now: Moment) -> bool {
        !self.standby && self.state(now).is_some_and(|state| !state.starts_with("Terminating"))
    }

    /// Whether its host runs: a kubelet on it can speak.
    #[must_use]
    pub fn runs(&self, now: u64) -> bool {
        let ended = [self.host_ends_at, self.ends_at].into_iter().flatten().any(|end| end <= now);
        self.started_at <= now && !ended && self.state(now).is_some()
    }

    /// Ends it: its hook holds it as long as the group says, and then it takes its time.
    pub(super) fn end(&mut self, at: Moment, hook: Option<Duration>, shutdown: Duration) {
        self.ends_at = Some(at);
        self.end_hook_until = hook.map(|hook| at + millis(hook));
        self.gone_at = Some(self.end_hook_until.unwrap_or(at) + millis(shutdown));
    }
}

/// A span as moments count it.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_goes_through_its_states_in_order() {
        let offer = Offer { zone: "a".to_owned(), instance_type: "m5.large".to_owned(), market: Market::Spot };
        let mut machine = Machine::new("i-1".to_owned(), &offer, 10);
        machine.started_at = 20;
        machine.launch_hook_until = Some(30);
        machine.end(50, Some(Duration::from_millis(10)), Duration::from_millis(5));
        let states: Vec<_> = [5, 10, 20, 30, 50, 60, 65].map(|now| machine.state(now).unwrap_or("-")).into();
        assert_eq!(
            states,
            ["-", "Pending", "Pending:Wait", "InService", "Terminating:Wait", "Terminating:Proceed", "-"]
        );
        assert_eq!(
            [15, 25, 49, 50].map(|now| (machine.runs(now), machine.counts(now))),
            [(false, true), (true, true), (true, true), (false, false)]
        );
    }
}
