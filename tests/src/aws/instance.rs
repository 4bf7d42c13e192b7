//! What EC2's instance metadata says of one machine of a faked group.

use std::time::Duration;

use serde_json::json;

use super::{AwsCloud, Machine, Market, machine::millis, moment::written};
use crate::metadata::{Cloud, Metadata};

/// The service on that machine.
///
/// # Errors
/// When it cannot listen.
pub fn metadata(machine: &Machine) -> anyhow::Result<Metadata> {
    let metadata = Metadata::start(Cloud::Ec2)?;
    metadata.set("instance-life-cycle", Some(if machine.market == Market::Spot { "spot" } else { "on-demand" }));
    metadata.set("instance-id", Some(&machine.id));
    metadata.set("placement/availability-zone", Some(&machine.zone));
    metadata.set("autoscaling/target-lifecycle-state", Some("InService"));
    Ok(metadata)
}

/// EC2 says there that it takes the machine back after `notice`.
pub fn take_back(cloud: &AwsCloud, metadata: &Metadata, notice: Duration) {
    let ends_at = cloud.with(|_, now| now) + millis(notice);
    let action = json!({"action": "terminate", "time": written(ends_at)});
    metadata.set("spot/instance-action", Some(&action.to_string()));
}
