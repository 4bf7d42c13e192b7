//! What a scrape reads from the snapshot: one row per metric, rendered anew each time, so that a group that is gone
//! leaves no series behind and nothing that was not read is shown as zero.

use std::fmt::Write as _;

use crate::{
    decisions::Counts,
    expander::Policy,
    fleet::{
        GroupView,
        group::{InstanceState, Market},
    },
    metrics::Described,
    snapshot::Snapshot,
    timestamp::Timestamp,
    unlabelled,
};

/// The metric by which `doctor` knows what a running provider has seen.
pub const UNLABELLED: &str = "windlass_provider_unlabelled_gpu_nodes";

/// What the rows are read from.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The fleet and its memories.
    pub snapshot: &'a Snapshot,
    /// The operator's part.
    pub policy: &'a Policy,
    /// What all decisions came to.
    pub counts: &'a Counts,
    /// GPU nodes without their label, by group.
    pub unlabelled: &'a unlabelled::Counts,
    /// For what ends at a time.
    pub now: Timestamp,
}

/// One metric.
pub struct Row {
    /// What it is.
    pub described: Described,
    /// Calls `put(labels, value)` for each series.
    read: Read,
}

type Put<'a> = &'a mut dyn FnMut(&[(&str, &str)], f64);

type Labels = &'static [&'static str];
type Read = fn(View<'_>, Put<'_>);

const fn gauge(name: &'static str, labels: Labels, help: &'static str, read: Read) -> Row {
    Row { described: Described { name, kind: "gauge", labels, help }, read }
}

const fn counter(name: &'static str, labels: Labels, help: &'static str, read: Read) -> Row {
    Row { described: Described { name, kind: "counter", labels, help }, read }
}

/// Every metric that is read from the snapshot, in the order of the exposition.
pub const ROWS: &[Row] = &[
    gauge("windlass_provider_build_info", &["version"], "1, with the version of the program.", |_, put| {
        put(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    }),
    gauge(
        "windlass_provider_last_sync_timestamp_seconds",
        &[],
        "When the last good listing of the cloud began; absent before the first.",
        |view, put| {
            if let Some(at) = view.snapshot.synced_at {
                put(&[], seconds(at));
            }
        },
    ),
    gauge(
        "windlass_provider_snapshot_timestamp_seconds",
        &[],
        "When the snapshot that answers every read was published.",
        |view, put| {
            put(&[], seconds(view.snapshot.at));
        },
    ),
    gauge(
        "windlass_provider_group_info",
        &["group", "market", "instance_type", "region", "gpu_model"],
        "1, with what a group's machines are.",
        |view, put| {
            for it in view.snapshot.fleet.groups() {
                let (group, shape) = (&it.group, &it.group.shape);
                let gpu_model = shape.gpus.as_ref().map_or("", |gpus| &gpus.model);
                let labels = [
                    ("market", market(group.market)),
                    ("instance_type", &shape.instance_type),
                    ("region", &group.region),
                    ("gpu_model", gpu_model),
                ];
                put(&[[("group", group.id.as_str())].as_slice(), &labels].concat(), 1.0);
            }
        },
    ),
    gauge("windlass_provider_group_min_machines", &["group"], "Fewest machines of a group.", |view, put| {
        each_group(view, put, |it| it.group.min);
    }),
    gauge("windlass_provider_group_max_machines", &["group"], "Most machines of a group.", |view, put| {
        each_group(view, put, |it| it.group.max);
    }),
    gauge(
        "windlass_provider_group_target_machines",
        &["group"],
        "What the autoscaler is told: live machines and what is on its way.",
        |view, put| {
            each_group(view, put, |it| it.target);
        },
    ),
    gauge(
        "windlass_provider_group_machines",
        &["group", "state"],
        "Machines that the cloud lists, by state.",
        |view, put| {
            for it in view.snapshot.fleet.groups() {
                for (state, label) in STATES {
                    let count = it.instances.iter().filter(|instance| instance.state == state).count();
                    put(&[("group", it.group.id.as_str()), ("state", label)], count as f64);
                }
            }
        },
    ),
    gauge(
        "windlass_provider_group_awaited_machines",
        &["group"],
        "Machines that were asked for and have neither come nor been refused.",
        |view, put| {
            each_group(view, put, GroupView::waiting);
        },
    ),
    gauge(
        "windlass_provider_group_refused_machines",
        &["group"],
        "Machines that were refused, as long as the autoscaler is shown them.",
        |view, put| {
            each_group(view, put, GroupView::refused);
        },
    ),
    gauge(
        "windlass_provider_group_gpus",
        &["group"],
        "GPUs that a pod can ask for on one machine of a group; absent where it has none.",
        |view, put| {
            for it in view.snapshot.fleet.groups() {
                if let Some(gpus) = &it.group.shape.gpus {
                    put(&[("group", it.group.id.as_str())], f64::from(gpus.count));
                }
            }
        },
    ),
    gauge(
        "windlass_provider_group_price_dollars_per_hour",
        &["group", "source"],
        "Price of one machine, the mean of its zones, by who says so (override, spot-history, table, scenario); absent where nobody does.",
        |view, put| {
            for it in view.snapshot.fleet.groups() {
                if let Some(micros) = it.group.price_micros {
                    let source = it.group.price_origin.as_ref().map_or("", |origin| origin.source.name());
                    put(&[("group", it.group.id.as_str()), ("source", source)], micros as f64 / 1e6);
                }
            }
        },
    ),
    gauge(
        "windlass_provider_group_zone_price_dollars_per_hour",
        &["group", "zone"],
        "Price of one machine in a zone, where zones have prices of their own.",
        |view, put| {
            for it in view.snapshot.fleet.groups() {
                for (zone, micros) in it.group.price_origin.iter().flat_map(|origin| &origin.zones) {
                    put(&[("group", it.group.id.as_str()), ("zone", zone)], *micros as f64 / 1e6);
                }
            }
        },
    ),
    gauge(
        "windlass_provider_group_price_timestamp_seconds",
        &["group"],
        "When the price was true: when the cloud was asked, or the date in the table; absent where that is not known.",
        |view, put| {
            for it in view.snapshot.fleet.groups() {
                if let Some(at) = it.group.price_origin.as_ref().and_then(|origin| origin.at) {
                    put(&[("group", it.group.id.as_str())], seconds(at));
                }
            }
        },
    ),
    gauge(
        "windlass_provider_group_warnings",
        &["group"],
        "Things about a group that a person should look at; the page shows them. A group that is named in the configuration and not there has 1.",
        |view, put| {
            each_group(view, put, |it| u32::try_from(it.group.warnings.len()).unwrap_or(u32::MAX));
            for it in view.snapshot.troubles.missing.iter() {
                put(&[("group", it.group.as_str())], 1.0);
            }
        },
    ),
    gauge(
        UNLABELLED,
        &["group"],
        "Nodes of a GPU group that the autoscaler showed without the GPU label: it may buy a second machine for each.",
        |view, put| {
            for it in view.snapshot.fleet.groups().filter(|it| it.group.shape.gpus.is_some()) {
                let count = view.unlabelled.get(&it.group.id).copied().unwrap_or(0);
                put(&[("group", it.group.id.as_str())], f64::from(count));
            }
        },
    ),
    gauge(
        "windlass_provider_group_shunned_until_timestamp_seconds",
        &["group"],
        "Until when a group is left alone after a refusal; absent where it is not.",
        |view, put| {
            for it in view.snapshot.fleet.groups() {
                if let Some(shunned) = view.snapshot.offerings.shunned(&it.group, view.now) {
                    put(&[("group", it.group.id.as_str())], seconds(shunned.until));
                }
            }
        },
    ),
    gauge(
        "windlass_provider_covered_pods",
        &[],
        "Pods that have a machine on its way and buy no second one.",
        |view, put| {
            put(&[], view.snapshot.bought.covered_pods(view.now) as f64);
        },
    ),
    gauge(
        "windlass_provider_priority_list_warnings",
        &[],
        "Things about the priority list that a person should look at.",
        |view, put| {
            put(&[], view.policy.warnings.len() as f64);
        },
    ),
    counter(
        "windlass_provider_decisions_total",
        &["decided_by"],
        "Questions answered with a group, by the filter that decided (`only`: nothing to choose from).",
        |view, put| {
            for (filter, count) in &view.counts.chosen {
                put(&[("decided_by", filter)], *count as f64);
            }
        },
    ),
    counter(
        "windlass_provider_vetoes_total",
        &[],
        "Questions answered empty because each pod has a machine on its way.",
        |view, put| {
            put(&[], view.counts.vetoed as f64);
        },
    ),
    counter(
        "windlass_provider_dropped_candidates_total",
        &["filter"],
        "Candidates dropped, by filter.",
        |view, put| {
            for (filter, count) in &view.counts.dropped {
                put(&[("filter", filter)], *count as f64);
            }
        },
    ),
    counter(
        "windlass_provider_decision_failures_total",
        &[],
        "Questions that could not be answered; the autoscaler then keeps every option.",
        |view, put| {
            put(&[], view.counts.failed as f64);
        },
    ),
    counter("windlass_provider_decision_seconds_total", &[], "Time spent on all decisions together.", |view, put| {
        put(&[], view.counts.took.as_secs_f64());
    }),
];

const STATES: [(InstanceState, &str); 3] =
    [(InstanceState::Creating, "creating"), (InstanceState::Running, "running"), (InstanceState::Deleting, "deleting")];

fn each_group(view: View<'_>, put: Put<'_>, value: fn(&GroupView) -> u32) {
    for it in view.snapshot.fleet.groups() {
        put(&[("group", it.group.id.as_str())], f64::from(value(it)));
    }
}

fn market(market: Market) -> &'static str {
    match market {
        Market::Spot => "spot",
        Market::OnDemand => "on-demand",
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1000.0
}

/// All rows in the Prometheus text format. A metric without a series is left out.
#[must_use]
pub fn render(view: View<'_>) -> String {
    let mut text = String::new();
    for row in ROWS {
        let Described { name, kind, help, .. } = row.described;
        let mut started = false;
        let mut put = |labels: &[(&str, &str)], value: f64| {
            if !started {
                started = true;
                let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            }
            text.push_str(name);
            for (place, (label, value)) in labels.iter().enumerate() {
                let _ = write!(text, "{}{label}=\"{}\"", if place == 0 { '{' } else { ',' }, escaped(value));
            }
            let _ = writeln!(text, "{}{value}", if labels.is_empty() { " " } else { "} " });
        };
        (row.read)(view, &mut put);
    }
    text
}

/// A label value may hold anything but these three unescaped.
fn escaped(value: &str) -> std::borrow::Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_keeps_the_naming_rules() {
        let table = crate::metrics::table();
        for Described { name, kind, help, .. } in &table {
            assert!(name.starts_with("windlass_provider_"), "{name}");
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
        let mut names: Vec<_> = table.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table.len(), "two metrics of one name");
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
        assert_eq!(escaped("ünïcode, plain"), "ünïcode, plain");
    }

    #[test]
    fn what_was_not_read_is_absent() {
        let (snapshot, policy, counts) = (Snapshot::default(), Policy::default(), Counts::default());
        let text = render(View {
            snapshot: &snapshot,
            policy: &policy,
            counts: &counts,
            unlabelled: &unlabelled::Counts::new(),
            now: Timestamp(0),
        });
        assert!(!text.contains("last_sync"), "{text}");
        assert!(
            text.contains("# TYPE windlass_provider_vetoes_total counter\nwindlass_provider_vetoes_total 0\n"),
            "{text}"
        );
    }
}
