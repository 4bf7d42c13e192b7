//! What an hour of an EC2 machine costs: the operator's file first, then the spot history that EC2 keeps by type and zone,
//! then the table that is shipped. Each price says where it is from and how old it is.

pub mod overrides;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_types::date_time::{DateTime, Format};
use serde::Deserialize;
use tokio::time;

use super::ec2::{Ec2, Page, Params};
use crate::{
    cloud::{CloudError, Listed},
    config::limits,
    fleet::{
        group::{Group, Market},
        prices::{PriceOrigin, PriceSource},
    },
    keeper::wall,
    timestamp::Timestamp,
};
use overrides::Overrides;

/// A spot price older than this is asked for again: AWS changes them a few times a day.
const FRESH: Duration = Duration::from_mins(10);
/// After a failure the history is asked again this much later.
const PATIENCE: Duration = Duration::from_mins(2);
/// Instance types in one question.
const TYPES: usize = 100;

/// The prices of one region.
pub(super) struct Prices {
    region: String,
    ec2: Ec2,
    /// The operator's file.
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

/// What is known so far.
#[derive(Default)]
struct Known {
    overrides: Overrides,
    /// Why the operator's file is not in force as it stands.
    wrong: Option<String>,
    /// Millionths of a dollar by (type, zone), and when they were read.
    spot: BTreeMap<(String, String), (u64, Timestamp)>,
    asked: BTreeSet<String>,
    ask_again: Timestamp,
    /// Why the history could not be asked.
    silent: Option<String>,
}

impl Prices {
    pub(super) fn new(ec2: Ec2, region: &str, file: Option<PathBuf>) -> Self {
        Self { region: region.to_owned(), ec2, file, known: Mutex::default() }
    }

    /// Puts a price on every group. The history is asked when it is old or a new type has come; while it does not
    /// answer, what was known before stands, and a listing waits no longer than [`limits::SPOT_PRICES`] for it.
    pub(super) async fn put_on(&self, listing: &mut [Listed], now: Timestamp) {
        self.read_file();
        let types: BTreeSet<String> = listing
            .iter()
            .filter(|it| it.group.market == Market::Spot && !it.group.shape.instance_type.is_empty())
            .map(|it| it.group.shape.instance_type.clone())
            .collect();
        if self.is_due(&types, now) {
            let answer = time::timeout(limits::SPOT_PRICES, self.history(&types)).await;
            self.learn(answer.unwrap_or_else(|_| Err(CloudError::Unknown("no answer in time".to_owned()))), types, now);
        }
        let known = self.known();
        for it in listing {
            let price = known.price(&it.group, &self.region);
            (it.group.price_micros, it.group.price_origin) = price.map_or((None, None), |it| (Some(it.0), Some(it.1)));
            it.group.warnings.extend(known.warnings(&it.group));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that is wrong, or away, leaves the one before it in force.
    fn read_file(&self) {
        let Some(file) = &self.file else { return };
        let read = overrides::read(file);
        let mut known = self.known();
        let before = known.wrong.take();
        match read {
            Ok(overrides) => known.overrides = overrides,
            Err(wrong) => {
                if before.as_ref() != Some(&wrong) {
                    tracing::warn!("cloud.priceOverrides: {wrong}; the last good file stands");
                }
                known.wrong = Some(wrong);
            }
        }
    }

    fn is_due(&self, types: &BTreeSet<String>, now: Timestamp) -> bool {
        let known = self.known();
        let news = known.silent.is_none() && !types.is_subset(&known.asked);
        !types.is_empty() && (news || now >= known.ask_again)
    }

    async fn history(&self, types: &BTreeSet<String>) -> Result<Vec<Item>, CloudError> {
        let types: Vec<_> = types.iter().map(String::as_str).collect();
        // From now on: the price in force, once for each type and zone.
        let secs = i64::try_from(wall().0 / 1000).unwrap_or_default();
        let now = DateTime::from_secs(secs).fmt(Format::DateTime).unwrap_or_default();
        let mut found = Vec::new();
        for types in types.chunks(TYPES) {
            let params = Params::default()
                .list("InstanceType", types.iter().copied())
                .list("ProductDescription", ["Linux/UNIX"])
                .with("StartTime", now.clone());
            found.extend(self.ec2.pages::<History>("DescribeSpotPriceHistory", &params).await?);
        }
        Ok(found)
    }

    fn learn(&self, answer: Result<Vec<Item>, CloudError>, types: BTreeSet<String>, now: Timestamp) {
        let mut known = self.known();
        match answer {
            Ok(items) => {
                let mut latest: BTreeMap<(String, String), (String, u64)> = BTreeMap::new();
                for item in items {
                    let Some(micros) = overrides::micros(&item.spot_price) else { continue };
                    let price = (item.timestamp, micros);
                    let kept = latest.entry((item.instance_type, item.availability_zone)).or_insert(price.clone());
                    *kept = price.max(kept.clone());
                }
                known.spot = latest.into_iter().map(|(key, (_, micros))| (key, (micros, now))).collect();
                (known.asked, known.ask_again, known.silent) = (types, now + FRESH, None);
            }
            Err(error) => {
                if known.silent.is_none() {
                    tracing::warn!("spot prices could not be read, older ones stand: {error}");
                }
                (known.ask_again, known.silent) = (now + PATIENCE, Some(error.to_string()));
            }
        }
    }
}

impl Known {
    fn price(&self, group: &Group, region: &str) -> Option<(u64, PriceOrigin)> {
        let origin = |source, at, zones| PriceOrigin { source, at, zones };
        let kind = group.shape.instance_type.as_str();
        let own = |zone: &String| Some((zone.clone(), self.overrides.price(kind, group.market, zone, region)?));
        let zones: BTreeMap<String, u64> = group.zones.iter().filter_map(own).collect();
        if !zones.is_empty() {
            return Some((mean(&zones)?, origin(PriceSource::Override, None, differing(zones))));
        }
        if group.market == Market::Spot {
            let spot = |zone: &String| self.spot.get(&(kind.to_owned(), zone.clone())).copied();
            let at = group.zones.iter().filter_map(|zone| Some(spot(zone)?.1)).min();
            let zones: BTreeMap<_, _> =
                group.zones.iter().filter_map(|zone| Some((zone.clone(), spot(zone)?.0))).collect();
            if let Some(micros) = mean(&zones) {
                return Some((micros, origin(PriceSource::SpotHistory, at, zones)));
            }
        }
        let (micros, at) = table::price(kind, region, group.market)?;
        Some((micros, origin(PriceSource::Table, Some(at), BTreeMap::new())))
    }

    fn warnings(&self, group: &Group) -> Option<String> {
        if let Some(wrong) = &self.wrong {
            return Some(format!("cloud.priceOverrides: {wrong}; the last good file stands"));
        }
        let silent = self.silent.as_ref().filter(|_| group.market == Market::Spot)?;
        Some(format!("spot prices cannot be read, older ones stand: {silent}"))
    }
}

/// Of all zones: a launch goes to any of them.
fn mean(zones: &BTreeMap<String, u64>) -> Option<u64> {
    let sum: u128 = zones.values().copied().map(u128::from).sum();
    u64::try_from(sum.checked_div(u128::try_from(zones.len()).ok()?)?).ok()
}

/// The same price everywhere is no price by zone.
fn differing(zones: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let first = zones.values().next().copied();
    if zones.values().all(|price| Some(*price) == first) { BTreeMap::new() } else { zones }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct History {
    #[serde(default)]
    spot_price_history_set: Items,
    next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Items {
    #[serde(default)]
    item: Vec<Item>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    instance_type: String,
    spot_price: String,
    timestamp: String,
    availability_zone: String,
}

impl Page for History {
    type Item = Item;

    fn split(self) -> (Vec<Item>, Option<String>) {
        (self.spot_price_history_set.item, self.next_token)
    }
}

#[cfg(test)]
mod tests;
