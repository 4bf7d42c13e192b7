//! What each GPU says about itself, in base units.
//! What nobody owns has its own rows, so that a sum over containers never contains it by accident.

use std::time::Duration;

use super::Get::{Gpu, GpuBy};
use super::Kind::{Counter, Gauge};
use super::{By, Family, GpuRow, Kind, flag};
use crate::gpu::Memory;

pub(super) const fn row(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    get: fn(&GpuRow<'_>) -> Option<f64>,
) -> Family {
    Family::new(name, Gauge, unit, help, Gpu(get))
}

pub(super) const fn counter(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    get: fn(&GpuRow<'_>) -> Option<f64>,
) -> Family {
    Family::new(name, Counter, unit, help, Gpu(get))
}

pub(super) const fn by(
    (name, label): (&'static str, &'static str),
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    get: fn(&GpuRow<'_>) -> By,
) -> Family {
    Family::new(name, kind, unit, help, GpuBy { label, get })
}

fn age(row: &GpuRow<'_>) -> Option<f64> {
    row.gpu.gpu.sample_age.or(row.gpu.gpu.up.then_some(Duration::ZERO)).map(|age| age.as_secs_f64())
}

fn memory(row: &GpuRow<'_>, field: fn(Memory) -> u64) -> Option<f64> {
    row.gpu.gpu.memory.map(|memory| field(memory) as f64)
}

pub(super) const FAMILIES: &[Family] = &[
    row("gpu_device_up", "0 or 1", "1 while the GPU answers, 0 when it is lost or needs a reset.", |row| {
        Some(flag(row.gpu.gpu.up))
    }),
    by(
        ("gpu_device_down_info", "state"),
        Gauge,
        "1",
        "Why the GPU is not up: lost (the driver says so), hangs (a call has not come back) or silent; absent while it is.",
        |row| row.gpu.gpu.down().map(|state| (state.into(), 1.0)).into_iter().collect(),
    ),
    row(
        "gpu_device_last_sample_timestamp_seconds",
        "seconds",
        "Time of the last good reading of the GPU, since 1970.",
        |row| Some(row.time - age(row)?),
    ),
    row(
        "gpu_device_last_sample_age_seconds",
        "seconds",
        "Age of the last good reading of the GPU: 0 while it is up.",
        age,
    ),
    row(
        "gpu_device_utilization_ratio",
        "ratio",
        "Part of the time in which a kernel ran, averaged over the driver's samples since the last reading.",
        |row| row.gpu.gpu.utilization.map(|percent| percent / 100.0),
    ),
    row(
        "gpu_device_utilization_max_ratio",
        "ratio",
        "Highest of the driver's samples of that since the last reading.",
        |row| row.gpu.gpu.utilization_max.map(|percent| percent / 100.0),
    ),
    counter(
        "gpu_device_busy_seconds_total",
        "GPU-seconds",
        "Time in which a kernel ran, since the agent started: its rate is the utilization over any window.",
        |row| row.total.busy_seconds,
    ),
    row(
        "gpu_device_memory_copy_utilization_ratio",
        "ratio",
        "Part of the time in which memory was read or written.",
        |row| row.gpu.gpu.memory_copy_utilization.map(|percent| percent / 100.0),
    ),
    row("gpu_device_encoder_utilization_ratio", "ratio", "Use of the video encoder.", |row| {
        row.gpu.gpu.encoder_utilization.map(|percent| percent / 100.0)
    }),
    row("gpu_device_decoder_utilization_ratio", "ratio", "Use of the video decoder.", |row| {
        row.gpu.gpu.decoder_utilization.map(|percent| percent / 100.0)
    }),
    row("gpu_device_memory_total_bytes", "bytes", "Memory installed on the GPU.", |row| {
        memory(row, |memory| memory.total)
    }),
    row("gpu_device_memory_used_bytes", "bytes", "Memory that programs hold, without what the driver keeps.", |row| {
        memory(row, |memory| memory.used)
    }),
    row("gpu_device_memory_free_bytes", "bytes", "Memory that nobody holds.", |row| memory(row, |memory| memory.free)),
    row("gpu_device_memory_reserved_bytes", "bytes", "Memory that the driver and firmware keep.", |row| {
        memory(row, |memory| memory.reserved)
    }),
    row("gpu_device_power_watts", "watts", "Power that the board draws, as nvidia-smi shows it.", |row| {
        row.gpu.gpu.power_watts
    }),
    row("gpu_device_power_average_watts", "watts", "Power that the board draws, averaged by the driver.", |row| {
        row.gpu.gpu.power_average_watts
    }),
    row("gpu_device_power_instant_watts", "watts", "Power that the board draws at the moment of the reading.", |row| {
        row.gpu.gpu.power_instant_watts
    }),
    row("gpu_device_power_limit_watts", "watts", "Power limit that the board keeps to.", |row| {
        row.gpu.gpu.power_limit_watts
    }),
    counter("gpu_device_energy_joules_total", "joules", "Energy since the driver was loaded.", |row| {
        row.gpu.gpu.energy_joules
    }),
    row("gpu_device_temperature_celsius", "celsius", "Temperature of the die.", |row| row.gpu.gpu.temperature_celsius),
    row("gpu_device_memory_temperature_celsius", "celsius", "Temperature of the memory.", |row| {
        row.gpu.gpu.memory_temperature_celsius
    }),
    row("gpu_device_sm_clock_hertz", "hertz", "Clock of the streaming multiprocessors.", |row| {
        row.gpu.gpu.sm_clock_hertz
    }),
    row("gpu_device_memory_clock_hertz", "hertz", "Clock of the GPU's memory.", |row| row.gpu.gpu.memory_clock_hertz),
    row("gpu_device_video_clock_hertz", "hertz", "Clock of the video engines.", |row| row.gpu.gpu.video_clock_hertz),
    row("gpu_device_processes", "processes", "Processes with a compute, graphics or MPS context on the GPU.", |row| {
        row.gpu.gpu.processes.as_ref().map(|processes| processes.len() as f64)
    }),
    row("gpu_device_mig_instances", "instances", "MIG instances of the GPU; absent when MIG is off.", |row| {
        row.gpu.gpu.mig.as_ref().map(|instances| instances.len() as f64)
    }),
    row("gpu_device_holders", "containers", "Containers that hold the GPU or a part of it.", |row| {
        Some(row.gpu.holders as f64)
    }),
    row(
        "gpu_device_unattributed_utilization_ratio",
        "ratio",
        "Part of the GPU's time that no container is known to have used: the node's own processes and those without a name.",
        |row| row.gpu.unattributed_utilization.map(|percent| percent / 100.0),
    ),
    row("gpu_device_unattributed_memory_bytes", "bytes", "Memory that no container is known to hold.", |row| {
        row.gpu.unattributed_memory.map(|bytes| bytes as f64)
    }),
    counter(
        "gpu_device_unattributed_usage_seconds_total",
        "GPU-seconds",
        "GPU time that no container is known to have used.",
        |row| row.total.unattributed_seconds,
    ),
    counter(
        "gpu_device_unattributed_energy_joules_total",
        "joules",
        "Energy that counts as no container's, idling included.",
        |row| row.total.unattributed_joules,
    ),
];
