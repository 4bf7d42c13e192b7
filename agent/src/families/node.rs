//! What the cloud says about the node: its market, its group's intention, and the notices that stand. Off-cloud there is none of it.
//! And what a batch system says: its jobs.

use std::sync::Arc;

use super::Kind::{Counter, Gauge};
use super::own::row;
use super::{Family, Own, Sample, flag};
use crate::jobs::Jobs;
use crate::notices::{Notice, Seen};

/// A value for each notice, with its labels.
fn notices(own: &Own<'_>, value: fn(&Notice) -> Option<f64>) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    for notice in own.seen.iter().flat_map(|seen| &seen.notices) {
        let labels = vec![
            ("kind", notice.kind.word().to_owned()),
            ("action", (*notice.action).to_owned()),
            ("node", own.node.to_owned()),
        ];
        // Several events with one action are one series: the soonest, which comes first.
        if let Some(value) = value(notice).filter(|_| samples.iter().all(|(found, _)| *found != labels)) {
            samples.push((labels, value));
        }
    }
    samples
}

/// A value that exists only on a cloud.
fn cloud(own: &Own<'_>, value: fn(&Seen) -> Option<f64>) -> Vec<Sample> {
    let Some(seen) = own.seen else { return Vec::new() };
    let Some(cloud) = seen.cloud else { return Vec::new() };
    value(seen).map(|value| (vec![("cloud", cloud.word().to_owned())], value)).into_iter().collect()
}

pub(super) const FAMILIES: &[Family] = &[
    row("gpu_node_notice", Gauge, "1", "1 for each notice of the cloud that stands, by kind and action.", |own| {
        notices(own, |_| Some(1.0))
    }),
    row(
        "gpu_node_notice_timestamp_seconds",
        Gauge,
        "seconds",
        "When the notice was given or first seen, since 1970.",
        |own| notices(own, |notice| Some(notice.at)),
    ),
    row(
        "gpu_node_notice_deadline_timestamp_seconds",
        Gauge,
        "seconds",
        "When the machine goes, since 1970; absent where the cloud does not say.",
        |own| notices(own, |notice| notice.deadline),
    ),
    row(
        "gpu_node_market_info",
        Gauge,
        "1",
        "How the machine is paid for, as the cloud says: spot, on-demand, capacity-block, preemptible.",
        |own| {
            let market = own.seen.and_then(|seen| Some((seen.cloud?, seen.market.as_deref()?)));
            let labels = market.map(|(cloud, market)| {
                vec![("cloud", cloud.word().to_owned()), ("market", market.to_owned()), ("node", own.node.to_owned())]
            });
            labels.map(|labels| (labels, 1.0)).into_iter().collect()
        },
    ),
    row(
        "gpu_node_lifecycle_info",
        Gauge,
        "1",
        "State in which the machine's Auto Scaling group wants it, as the instance metadata says.",
        |own| {
            let state = own.seen.and_then(|seen| seen.lifecycle.as_deref());
            let labels = |state: &str| vec![("state", state.to_owned()), ("node", own.node.to_owned())];
            state.map(|state| (labels(state), 1.0)).into_iter().collect()
        },
    ),
    row(
        "gpu_device_hpc_job_info",
        Gauge,
        "1",
        "A batch system's job on the GPU, or in its GPU instance, as the files of --hpc-job-mapping-dir say.",
        |own| {
            let sample = |((gpu, instance), job): ((u32, Option<u32>), &Arc<str>)| {
                let instance = instance.map_or_else(String::new, |id| id.to_string());
                let labels = vec![
                    ("gpu", gpu.to_string()),
                    ("gpu_instance", instance),
                    ("hpc_job", (**job).to_owned()),
                    ("node", own.node.to_owned()),
                ];
                (labels, 1.0)
            };
            own.jobs.into_iter().flat_map(Jobs::iter).map(sample).collect()
        },
    ),
    row(
        "windlass_agent_hpc_jobs_up",
        Gauge,
        "0 or 1",
        "1 while the folder of --hpc-job-mapping-dir can be read; absent without one.",
        |own| {
            let readable = own.jobs.and_then(|jobs| jobs.readable);
            readable.map(|readable| (Vec::new(), flag(readable))).into_iter().collect()
        },
    ),
    row(
        "windlass_agent_metadata_up",
        Gauge,
        "0 or 1",
        "1 when the instance metadata service's last answer was good; absent off-cloud.",
        |own| cloud(own, |seen| seen.up.map(flag)),
    ),
    row(
        "windlass_agent_metadata_last_success_timestamp_seconds",
        Gauge,
        "seconds",
        "Time of the instance metadata service's last good answer, since 1970.",
        |own| cloud(own, |seen| seen.last_success),
    ),
    row(
        "windlass_agent_metadata_errors_total",
        Counter,
        "calls",
        "Questions to the instance metadata service that failed.",
        |own| cloud(own, |seen| Some(seen.failures as f64)),
    ),
];
