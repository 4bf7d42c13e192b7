//! Snapshots for tests: what the keeper would publish after the first listing of an embedded cloud.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::Snapshot;
use crate::{
    cloud::sim::{Machines, Scenario},
    fleet::{Fleet, listing::Reading, template::Dialect},
    timestamp::Timestamp,
};

/// The fleet of a scenario, just listed.
pub(crate) fn fleet(scenario: &str, now: Timestamp) -> Fleet {
    let scenario = Scenario::parse(scenario, Path::new("scenario.yaml")).unwrap();
    let machines = Machines::start(&scenario, now);
    let (mut fleet, dialect) = (Fleet::default(), Dialect::sim());
    let reading = Reading { begun: now, now, dialect: &dialect, overrides: &BTreeMap::new() };
    fleet.listed(machines.list(&scenario, now), reading);
    fleet
}

/// The same as a snapshot.
pub(crate) fn snapshot(scenario: &str, now: Timestamp) -> Snapshot {
    Snapshot { fleet: Arc::new(fleet(scenario, now)), synced_at: Some(now), at: now, ..Snapshot::default() }
}

/// Two groups of the same machine, spot and on-demand.
pub(crate) const TWINS: &str = "
seed: 1
groups:
  - {id: spot-a10g, min: 0, max: 8, instanceType: g5.xlarge, market: spot, region: r, zones: [zone-a, zone-b], price: 0.4, cpu: '4', memory: 16Gi, gpu: {model: nvidia-a10g, count: 1, memory: 24Gi}}
  - {id: od-<a10g>, min: 0, max: 4, instanceType: g5.xlarge, market: on-demand, region: r, zones: [zone-a], price: 1.0, cpu: '4', memory: 16Gi, gpu: {model: nvidia-a10g, count: 1, memory: 24Gi}}
";
