//! Scaling activities: what a group did and why it could not, in the sentences that AWS writes.

use serde_json::{Value, json};

use super::{
    machine::{Machine, Offer},
    moment::{Moment, written},
};

/// Longest status message, as the API's model has it.
const MESSAGE: usize = 255;
/// Activities that are kept of one group.
pub(super) const KEPT: usize = 1000;

/// One scaling activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Unique.
    pub id: String,
    /// `Launching a new EC2 instance: i-…`
    pub description: String,
    /// Why the group did it.
    pub cause: String,
    /// When it began, in milliseconds since 1970.
    pub started_at: u64,
    /// When it ends, or ended.
    pub ended_at: u64,
    /// Its zone.
    pub zone: String,
    /// `Failed`, with this; else it ends well.
    pub failure: Option<String>,
}

impl Activity {
    /// A launch that goes well.
    pub(super) fn launching(number: u64, machine: &Machine) -> Self {
        let in_service = machine.launch_hook_until.unwrap_or(machine.started_at);
        let what = format!("Launching a new EC2 instance: {}", machine.id);
        Self::new(number, (what, &machine.zone), (machine.launched_at, in_service))
    }

    /// An end.
    pub(super) fn ending(number: u64, machine: &Machine, now: Moment) -> Self {
        let what = format!("Terminating EC2 instance: {}", machine.id);
        Self::new(number, (what, &machine.zone), (now, machine.gone_at.unwrap_or(now)))
    }

    /// A launch that failed.
    pub(super) fn failed(number: u64, offer: &Offer, refusal: &(String, String), now: Moment) -> Self {
        let mut activity = Self::new(number, ("Launching a new EC2 instance".to_owned(), &offer.zone), (now, now));
        let (code, sentence) = refusal;
        let market = if offer.market.name() == "spot" { "Spot" } else { "On-Demand" };
        let message =
            format!("Could not launch {market} Instances. {code} - {sentence} Launching EC2 instance failed.");
        activity.failure = Some(message.chars().take(MESSAGE).collect());
        activity
    }

    fn new(number: u64, what: (String, &str), span: (Moment, Moment)) -> Self {
        let at = written(span.0);
        Self {
            id: format!("00000000-0000-4000-8000-{number:012x}"),
            description: what.0,
            cause: format!(
                "At {at} an instance was started in response to a difference between desired and actual capacity."
            ),
            started_at: span.0,
            ended_at: span.1,
            zone: what.1.to_owned(),
            failure: None,
        }
    }

    /// As the API describes it.
    pub(super) fn described(&self, group: &str, now: Moment) -> Value {
        let over = self.ended_at <= now;
        let status = match (&self.failure, over) {
            (Some(_), _) => "Failed",
            (None, true) => "Successful",
            (None, false) if self.description.starts_with("Launching") => "PreInService",
            (None, false) => "InProgress",
        };
        json!({
            "ActivityId": self.id, "AutoScalingGroupName": group, "Description": self.description, "Cause": self.cause,
            "StartTime": written(self.started_at), "EndTime": over.then(|| written(self.ended_at)), "StatusCode": status,
            "StatusMessage": self.failure, "Progress": if over { 100 } else { 30 },
            "Details": json!({"Subnet ID": format!("subnet-{}", self.zone), "Availability Zone": self.zone}).to_string(),
        })
    }
}
