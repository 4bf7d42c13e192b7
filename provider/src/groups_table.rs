//! What was discovered, as a table for a terminal and as JSON for programs: one row per group, and under it every warning.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::{
    cloud::Missing,
    expander::plural,
    fleet::{
        GroupView,
        group::{Gpus, Market},
        offering::Shunned,
        prices::PriceSource,
    },
    http::status::words::{price, span},
    snapshot::Snapshot,
    timestamp::Timestamp,
};

/// Between two columns.
const GAP: &str = "   ";

/// An element of the JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Element<'a> {
    Group(Box<Row<'a>>),
    /// A group that the configuration names and the cloud does not have.
    Missing {
        id: &'a str,
        missing: bool,
        warnings: [&'a str; 1],
    },
}

impl<'a> From<&'a Missing> for Element<'a> {
    fn from(Missing { group, why }: &'a Missing) -> Self {
        Self::Missing { id: group.as_str(), missing: true, warnings: [why] }
    }
}

/// One group, as it is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    market: Market,
    instance_type: &'a str,
    region: &'a str,
    zones: &'a [String],
    gpus: Option<&'a Gpus>,
    price: Option<Price>,
    min: u32,
    live: u32,
    target: u32,
    max: u32,
    /// Why it is left alone now, and for how long.
    left_alone: Option<LeftAlone>,
    /// Zones that refused lately.
    refusing: BTreeMap<&'a str, LeftAlone>,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeftAlone {
    why: String,
    /// Milliseconds since 1970.
    until: Timestamp,
}

impl From<Shunned> for LeftAlone {
    fn from(Shunned { why, until }: Shunned) -> Self {
        Self { why, until }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Price {
    dollars_per_hour: f64,
    source: Option<PriceSource>,
    /// When it was true, in milliseconds since 1970.
    at: Option<Timestamp>,
    zones: BTreeMap<String, f64>,
}

/// As JSON: an array, in order of id, and then what is missing.
#[must_use]
pub fn json(of: &Snapshot) -> String {
    let rows = of.fleet.groups().map(|view| Element::Group(Box::new(row(view, of))));
    let rows: Vec<_> = rows.chain(of.troubles.missing.iter().map(Element::from)).collect();
    // Names, numbers and texts: nothing in it can fail to be written.
    serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n"
}

fn row<'a>(view: &'a GroupView, of: &'a Snapshot) -> Row<'a> {
    let group = &view.group;
    let dollars = |micros: u64| micros as f64 / 1e6;
    let origin = group.price_origin.as_ref();
    let price = group.price_micros.map(|micros| Price {
        dollars_per_hour: dollars(micros),
        source: origin.map(|origin| origin.source),
        at: origin.and_then(|origin| origin.at),
        zones: origin.iter().flat_map(|it| &it.zones).map(|(zone, micros)| (zone.clone(), dollars(*micros))).collect(),
    });
    Row {
        id: group.id.as_str(),
        market: group.market,
        instance_type: &group.shape.instance_type,
        region: &group.region,
        zones: &group.zones,
        gpus: group.shape.gpus.as_ref(),
        price,
        min: group.min,
        live: view.live(),
        target: view.target,
        max: group.max,
        left_alone: of.offerings.shunned(group, of.at).map(Into::into),
        refusing: of.offerings.refusing(group, of.at).map(|(zone, why)| (zone, why.into())).collect(),
        warnings: &group.warnings,
    }
}

/// For people.
#[must_use]
pub fn text(of: &Snapshot) -> String {
    let heads = ["GROUP", "MARKET", "TYPE", "GPUS", "ZONES", "MIN", "LIVE", "TARGET", "MAX", "PER HOUR", "PRICE FROM"];
    let mut table = vec![heads.map(ToOwned::to_owned)];
    table.extend(of.fleet.groups().map(|view| cells(view, of.at)));
    let widths: Vec<usize> =
        (0..heads.len()).map(|at| table.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let mut lines = table.iter().map(|row| line(row, &widths));
    let mut out = lines.next().unwrap_or_default();
    let (mut warnings, mut groups) = (0_u32, 0_u32);
    for (view, line) in of.fleet.groups().zip(lines) {
        groups += 1;
        out.push_str(&line);
        for note in notes(view, of) {
            warnings += 1;
            let _ = writeln!(out, "  ! {note}");
        }
    }
    for Missing { group, why } in of.troubles.missing.iter() {
        warnings += 1;
        let _ = writeln!(out, "{group}\n  ! {why}");
    }
    if groups == 0 && warnings == 0 {
        return "No groups. The cloud has none for this provider: check the tags that make a group belong to it; \
                `windlass-provider doctor` says which are missing.\n"
            .to_owned();
    }
    let _ = writeln!(
        out,
        "\n{}, {}",
        plural(groups, "group"),
        plural(warnings, "thing to look at").replace("thing to look ats", "things to look at")
    );
    out
}

fn cells(view: &GroupView, now: Timestamp) -> [String; 11] {
    let group = &view.group;
    let market = match group.market {
        Market::Spot => "spot",
        Market::OnDemand => "on-demand",
    };
    let gpus =
        group.shape.gpus.as_ref().map_or("none".to_owned(), |gpus| {
            format!("{} × {}, {} GiB", gpus.count, gpus.model, gpus.memory_mib / 1024)
        });
    let (sum, says) = price(group, now);
    let unknown = |text: String| if text.is_empty() { "unknown".to_owned() } else { text };
    [
        group.id.to_string(),
        market.to_owned(),
        unknown(group.shape.instance_type.clone()),
        gpus,
        zones(&group.zones),
        group.min.to_string(),
        view.live().to_string(),
        view.target.to_string(),
        group.max.to_string(),
        unknown(sum),
        says,
    ]
}

/// `us-east-1a b c`: what all zones begin with is said once.
pub(crate) fn zones(zones: &[String]) -> String {
    let Some(first) = zones.first() else { return "none".to_owned() };
    let stem = first.strip_suffix(|_: char| true).unwrap_or_default();
    let rest = |zone: &String| zone.strip_prefix(stem).filter(|rest| rest.chars().count() == 1).map(ToOwned::to_owned);
    match zones.iter().map(rest).collect::<Option<Vec<_>>>() {
        Some(letters) => format!("{stem}{}", letters.join(" ")),
        None => zones.join(" "),
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
}

/// What a person should know of a group: what keeps it from being grown, then its warnings.
fn notes(view: &GroupView, of: &Snapshot) -> Vec<String> {
    let left = |until: Timestamp| span(until.since(of.at));
    let mut notes: Vec<String> = match of.offerings.shunned(&view.group, of.at) {
        Some(it) => vec![format!("left alone for {}: {}", left(it.until), it.why)],
        None => {
            let zone = |(zone, it): (&str, Shunned)| format!("{zone} is asked last for {}: {}", left(it.until), it.why);
            of.offerings.refusing(&view.group, of.at).map(zone).collect()
        }
    };
    notes.extend(view.group.warnings.iter().cloned());
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_zones_have_in_common_is_said_once() {
        let check = |names: &[&str], expected: &str| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            assert_eq!(zones(&names), expected);
        };
        check(&["us-east-1a", "us-east-1b"], "us-east-1a b");
        check(&["zoné", "zone"], "zoné e");
        check(&["", "a"], " a");
        check(&["us-east-1a"], "us-east-1a");
        check(&["us-east-1-bos-1a", "us-east-1a"], "us-east-1-bos-1a us-east-1a");
        check(&["zone-a", "b"], "zone-a b");
        check(&[], "none");
    }

    #[test]
    fn a_cloud_without_groups_is_told_where_to_look() {
        assert!(text(&Snapshot::default()).contains("check the tags"));
        assert_eq!(json(&Snapshot::default()), "[]\n");
    }
}
