//! What the agent says about itself: whether its sources answer, how old its knowledge is, what failed.
//! Each row's getter gives label pairs and values.

use super::Kind::{Counter, Gauge};
use super::{Family, Get, Kind, Own, Sample, flag};
use crate::exposition::Dropped;
use crate::live::Reload;

pub(super) const fn row(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    get: fn(&Own<'_>) -> Vec<Sample>,
) -> Family {
    Family::new(name, kind, unit, help, Get::Own(get))
}

fn one(value: f64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

fn maybe(value: Option<f64>) -> Vec<Sample> {
    value.map(one).unwrap_or_default()
}

pub(super) const FAMILIES: &[Family] = &[
    row("windlass_agent_build_info", Gauge, "1", "Version of the agent.", |own| {
        vec![(vec![("version", own.version.into())], 1.0)]
    }),
    row("windlass_agent_driver_info", Gauge, "1", "Version of the NVIDIA driver.", |own| {
        own.driver_version.map(|version| (vec![("version", version.into())], 1.0)).into_iter().collect()
    }),
    row(
        "windlass_agent_nvml_up",
        Gauge,
        "0 or 1",
        "1 while NVML answers, 0 while there is no driver, library or access.",
        |own| one(flag(own.nvml_absence.is_none())),
    ),
    row(
        "windlass_agent_nvml_absence_info",
        Gauge,
        "1",
        "Why NVML does not answer, in a word; absent when it does.",
        |own| own.nvml_absence.map(|cause| (vec![("cause", cause.into())], 1.0)).into_iter().collect(),
    ),
    row(
        "windlass_agent_nvml_errors_total",
        Counter,
        "calls",
        "NVML calls that failed; a call that a device does not support counts once for that device.",
        |own| {
            let sample = |&(call, cause, count): &(&str, &str, u64)| {
                (vec![("call", call.to_owned()), ("cause", cause.to_owned())], count as f64)
            };
            own.nvml_failures.iter().map(sample).collect()
        },
    ),
    row("windlass_agent_nvml_calls_total", Counter, "calls", "NVML calls made, by call.", |own| {
        let sample = |&(call, count, _): &(&str, u64, f64)| (vec![("call", call.to_owned())], count as f64);
        own.nvml_calls.iter().map(sample).collect()
    }),
    row("windlass_agent_nvml_call_seconds_total", Counter, "seconds", "Time that NVML calls took, by call.", |own| {
        let sample = |&(call, _, seconds): &(&str, u64, f64)| (vec![("call", call.to_owned())], seconds);
        own.nvml_calls.iter().map(sample).collect()
    }),
    row("windlass_agent_ticks_total", Counter, "ticks", "Passes over the GPUs since the start.", |own| {
        one(own.ticks as f64)
    }),
    row(
        "windlass_agent_tick_duration_seconds",
        Gauge,
        "seconds",
        "Time that the last pass took, the driver's answers included.",
        |own| one(own.tick_seconds),
    ),
    row(
        "windlass_agent_last_reading_timestamp_seconds",
        Gauge,
        "seconds",
        "Time of the last good reading, since 1970.",
        |own| maybe(own.last_reading),
    ),
    row(
        "windlass_agent_kubelet_up",
        Gauge,
        "0 or 1",
        "1 when the kubelet's last answer was good; absent without a kubelet.",
        |own| maybe(own.kubelet_up.map(flag)),
    ),
    row(
        "windlass_agent_pods_api_up",
        Gauge,
        "0 or 1",
        "1 when the kubelet's Pods API, which tells uids and labels, answered last; absent where the kubelet has none.",
        |own| maybe(own.pods_api_up.map(flag)),
    ),
    row("windlass_agent_kubelet_errors_total", Counter, "calls", "Calls to the kubelet that failed.", |own| {
        maybe(own.kubelet_up.map(|_| own.kubelet_failures as f64))
    }),
    row(
        "windlass_agent_pods_age_seconds",
        Gauge,
        "seconds",
        "Age of the map from devices to containers that is in use.",
        |own| maybe(own.pods_age),
    ),
    row(
        "windlass_agent_pods_last_success_timestamp_seconds",
        Gauge,
        "seconds",
        "Time of the kubelet's last good answer, since 1970.",
        |own| maybe(own.kubelet_last_success),
    ),
    row("windlass_agent_containers", Gauge, "containers", "Containers that hold a GPU or a part of one.", |own| {
        one(own.containers as f64)
    }),
    row(
        "windlass_agent_unknown_device_ids",
        Gauge,
        "ids",
        "Device ids from the kubelet in forms that the agent does not know.",
        |own| one(own.unknown_ids as f64),
    ),
    row(
        "windlass_agent_unknown_processes",
        Gauge,
        "processes",
        "Processes that use a GPU and could not be named; without hostPID all are.",
        |own| one(own.unknown_processes as f64),
    ),
    row("windlass_agent_series", Gauge, "series", "Series on the page before this one.", |own| one(own.series as f64)),
    row("windlass_agent_series_dropped_total", Counter, "series", "Series left off the page, by cause.", |own| {
        let sample = |cause: &str, count: u64| (vec![("cause", cause.to_owned())], count as f64);
        let Dropped { max_series, long_label } = own.series_dropped;
        vec![sample("max_series", max_series), sample("label_too_long", long_label)]
    }),
    row(
        "windlass_agent_config_last_reload_successful",
        Gauge,
        "0 or 1",
        "1 when what a file of settings says is in force, 0 when it was changed and is wrong.",
        |own| each(own, |reload| flag(reload.ok)),
    ),
    row(
        "windlass_agent_config_last_reload_success_timestamp_seconds",
        Gauge,
        "seconds",
        "Time at which a file of settings was last taken over, since 1970.",
        |own| each(own, |reload| reload.unix),
    ),
];

fn each(own: &Own<'_>, value: fn(&Reload) -> f64) -> Vec<Sample> {
    let sample = |(flag, reload): (&&str, &Reload)| {
        let name = flag.trim_start_matches('-').to_owned();
        (vec![("file", name)], value(reload))
    };
    own.reloads.iter().map(sample).collect()
}
