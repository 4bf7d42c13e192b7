//! What an hour costs: of a node, found by its labels, and of a pod, at the cheapest rates the groups imply.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    fleet::{
        GroupView,
        group::Group,
        template::{Dialect, ZONE_LABEL},
    },
    timestamp::Timestamp,
};

/// What one GiB of memory costs against one CPU, in thousandths: the ratio of Google's published per-unit prices
/// (0.004446 against 0.033174 USD per hour for N1), close to what other clouds' machine types imply.
const MEMORY_PER_CPU_MILLI: u64 = 134;
const GIB: u64 = 1 << 30;

/// Where a price is from, the most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PriceSource {
    /// The operator's file.
    Override,
    /// The cloud's own record of its spot market.
    SpotHistory,
    /// The table that is shipped.
    Table,
    /// The embedded cloud's scenario.
    Scenario,
}

impl PriceSource {
    /// Its name in metrics and for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::SpotHistory => "spot-history",
            Self::Table => "table",
            Self::Scenario => "scenario",
        }
    }
}

/// Who says what a machine costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceOrigin {
    /// Where from.
    pub source: PriceSource,
    /// When it was true: when the cloud was asked, or the date of the table's row. None where that is not known.
    pub at: Option<Timestamp>,
    /// Millionths of a US dollar by zone, where zones have prices of their own.
    pub zones: BTreeMap<String, u64>,
}

/// Millionths of a US dollar per hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// One CPU.
    pub cpu: u64,
    /// One GiB of memory.
    pub memory: u64,
    /// One GPU.
    pub gpu: u64,
}

/// What a machine with these labels costs per hour, in millionths of a US dollar: that of the group with the same
/// instance type, market and, where the labels say it, zone; the first by name if several are. None when no priced
/// group is like it.
#[must_use]
pub fn node_price<'a>(
    labels: &BTreeMap<String, String>,
    groups: impl Iterator<Item = &'a Arc<GroupView>>,
) -> Option<u64> {
    let instance_type = labels.get("node.kubernetes.io/instance-type")?;
    let market = Dialect::market(labels);
    let zone = labels.get(ZONE_LABEL);
    let alike = |group: &Group| {
        group.shape.instance_type == *instance_type
            && market.is_none_or(|market| market == group.market)
            && zone.is_none_or(|zone| group.zones.contains(zone))
    };
    groups.filter(|view| alike(&view.group)).find_map(|view| in_zone(&view.group, zone))
}

/// The group's price in that zone, if it has one of its own there.
fn in_zone(group: &Group, zone: Option<&String>) -> Option<u64> {
    let own = zone.and_then(|zone| group.price_origin.as_ref()?.zones.get(zone).copied());
    own.or(group.price_micros)
}

/// The cheapest rates that the priced groups imply; None when no group has a price.
#[must_use]
pub fn rates<'a>(groups: impl Iterator<Item = &'a Arc<GroupView>> + Clone) -> Option<Rates> {
    let priced = groups.filter_map(|view| Some((&view.group, view.group.price_micros?)));
    let plain = priced.clone().filter(|(group, _)| group.shape.gpus.is_none());
    let cpu = plain.filter_map(|(group, price)| price.saturating_mul(1000).checked_div(cpu_equivalents(group))).min();
    let gpus = priced.clone().filter_map(|(group, price)| {
        let gpus = group.shape.gpus.as_ref()?;
        let rest = cpu.unwrap_or(0).saturating_mul(cpu_equivalents(group)) / 1000;
        price.saturating_sub(rest).checked_div(u64::from(gpus.count))
    });
    let (cpu, gpu) = (cpu.unwrap_or(0), gpus.min().unwrap_or(0));
    priced.clone().next().map(|_| Rates { cpu, memory: cpu * MEMORY_PER_CPU_MILLI / 1000, gpu })
}

/// A machine's CPU and memory in thousandths of a CPU's worth.
fn cpu_equivalents(group: &Group) -> u64 {
    group.shape.cpu_milli + (group.shape.memory / GIB).saturating_mul(MEMORY_PER_CPU_MILLI)
}

/// What a pod costs per hour, in millionths of a US dollar.
#[must_use]
pub fn pod_price(rates: Rates, cpu_milli: u64, memory: u64, gpus: u64) -> u64 {
    let memory = u128::from(memory) * u128::from(rates.memory) / u128::from(GIB);
    (rates.cpu.saturating_mul(cpu_milli) / 1000)
        .saturating_add(u64::try_from(memory).unwrap_or(u64::MAX))
        .saturating_add(rates.gpu.saturating_mul(gpus))
}

#[cfg(test)]
mod tests;
