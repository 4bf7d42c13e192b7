//! What a counters CSV may ask for besides the fields that dcgm-exporter shows unasked.

use super::{kept, profiling, row, xid};
use crate::families::Get::{Dcgm, DcgmBy, DcgmMemory};
use crate::families::Kind::{Counter, Gauge};
use crate::families::gpm::{device, of_instance, ratio};
use crate::families::{Family, GpuRow, Kind, Sample, count, flag};
use crate::gpu::{ClockEvent, Gpu, Memory};

/// Nanoseconds for which a reason held clocks down.
fn violation(gpu: &Gpu, reason: &str) -> Option<f64> {
    let throttled = gpu.throttled.iter().find(|throttled| throttled.reason == reason)?;
    Some((throttled.seconds * 1e9).round())
}

/// Reasons for low clocks as dcgm-exporter calls them, by their bit.
const CLOCK_EVENTS: [&str; 9] = [
    "gpu_idle",
    "clocks_setting",
    "power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display_clocks",
];

/// Counts by reason, of those that ever held clocks down.
fn clock_events(row: &GpuRow<'_>, count: fn(ClockEvent) -> u64) -> impl Iterator<Item = ((&'static str, String), f64)> {
    let events = row.gpu.gpu.clock_events.unwrap_or_default().into_iter().zip(CLOCK_EVENTS);
    let counted = events.map(move |(event, reason)| (("clock_event", reason.to_owned()), count(event) as f64));
    counted.filter(|(_, count)| *count > 0.0)
}

/// Readings in the window, by reason; where there was none a 0 without a reason, as in dcgm-exporter.
fn recent_clock_events(row: &GpuRow<'_>) -> Vec<Sample> {
    let counts = clock_events(row, |event| event.recent.into());
    let mut found: Vec<Sample> = counts.map(|(reason, count)| (vec![xid::window(), reason], count)).collect();
    if found.is_empty() && row.gpu.gpu.clock_events.is_some() {
        found.push((vec![xid::window()], 0.0));
    }
    found
}

/// A count of dcgm-exporter's own.
const fn own(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    get: fn(&GpuRow<'_>) -> Vec<Sample>,
) -> Family {
    Family::new(name, kind, unit, help, DcgmBy(get))
}

/// The rows.
pub(in crate::families) const FURTHER: &[Family] = &[
    profiling(
        ["DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_SM_UTIL_RATIO"],
        "ratio",
        "Part of the time in which an SM had a warp, averaged over the SMs, 0 to 1 (Hopper and newer).",
        |row| ratio(row, |gpm| gpm.sm_active),
        |instance| of_instance(instance, |gpm| gpm.sm_active),
    ),
    profiling(
        ["DCGM_FI_PROF_SM_OCCUPANCY", "DCGM_FI_PROF_SM_OCCUPANCY_RATIO"],
        "ratio",
        "Warps in flight, of those that fit, 0 to 1 (Hopper and newer).",
        |row| ratio(row, |gpm| gpm.sm_occupancy),
        |instance| of_instance(instance, |gpm| gpm.sm_occupancy),
    ),
    profiling(
        ["DCGM_FI_PROF_PIPE_FP64_ACTIVE", "DCGM_FI_PROF_FP64_UTIL_RATIO"],
        "ratio",
        "Part of the time in which the FP64 pipes worked, 0 to 1 (Hopper and newer).",
        |row| ratio(row, |gpm| gpm.fp64),
        |instance| of_instance(instance, |gpm| gpm.fp64),
    ),
    profiling(
        ["DCGM_FI_PROF_PIPE_FP32_ACTIVE", "DCGM_FI_PROF_FP32_UTIL_RATIO"],
        "ratio",
        "Part of the time in which the FP32 pipes worked, 0 to 1 (Hopper and newer).",
        |row| ratio(row, |gpm| gpm.fp32),
        |instance| of_instance(instance, |gpm| gpm.fp32),
    ),
    profiling(
        ["DCGM_FI_PROF_PIPE_FP16_ACTIVE", "DCGM_FI_PROF_FP16_UTIL_RATIO"],
        "ratio",
        "Part of the time in which the FP16 pipes worked, 0 to 1 (Hopper and newer).",
        |row| ratio(row, |gpm| gpm.fp16),
        |instance| of_instance(instance, |gpm| gpm.fp16),
    ),
    kept(
        "DCGM_FI_PROF_NVLINK_TX_BYTES",
        Gauge,
        "bytes/s",
        "Bytes per second sent over NVLink (Hopper and newer).",
        |row| device(row, |gpm| gpm.nvlink_sent),
    ),
    kept(
        "DCGM_FI_PROF_NVLINK_RX_BYTES",
        Gauge,
        "bytes/s",
        "Bytes per second received over NVLink (Hopper and newer).",
        |row| device(row, |gpm| gpm.nvlink_received),
    ),
    Family {
        name: "DCGM_FI_DEV_FB_TOTAL",
        renamed: None,
        kind: Gauge,
        unit: "MiB",
        help: "Frame buffer memory (in MiB); the whole GPU's for each container that shares it.",
        get: DcgmMemory(|memory| memory.total),
    },
    Family {
        name: "DCGM_FI_DEV_FB_USED_PERCENT",
        renamed: Some("DCGM_FI_DEV_FB_USED_RATIO"),
        kind: Gauge,
        unit: "ratio",
        help: "Part of the frame buffer in use, of what is not reserved, 0 to 1.",
        get: Dcgm { gpu: |row| used(row.gpu.gpu.memory), instance: |instance| used(instance.memory) },
    },
    row(
        ["DCGM_FI_DEV_POWER_USAGE_INSTANT", "DCGM_FI_DEV_BOARD_POWER_RAW_WATTS"],
        Gauge,
        "watts",
        "Power draw of the moment (in W).",
        |row| row.gpu.gpu.power_instant_watts,
    ),
    row(
        ["DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS"],
        Gauge,
        "watts",
        "Power limit that the board keeps to (in W).",
        |row| row.gpu.gpu.power_limit_watts,
    ),
    kept("DCGM_FI_DEV_VIDEO_CLOCK", Gauge, "MHz", "Clock of the video engines (in MHz).", |row| {
        row.gpu.gpu.video_clock_hertz.map(|hertz| hertz / 1e6)
    }),
    kept("DCGM_FI_DEV_MIG_MODE", Gauge, "0 or 1", "Whether MIG is on.", |row| {
        row.gpu.gpu.up.then(|| flag(row.gpu.gpu.mig.is_some()))
    }),
    kept("DCGM_FI_DEV_POWER_VIOLATION", Counter, "nanoseconds", "Time held down by the power limit (in ns).", |row| {
        violation(&row.gpu.gpu, "sw_power_cap")
    }),
    kept("DCGM_FI_DEV_THERMAL_VIOLATION", Counter, "nanoseconds", "Time held down by heat (in ns).", |row| {
        violation(&row.gpu.gpu, "thermal")
    }),
    kept("DCGM_FI_DEV_SYNC_BOOST_VIOLATION", Counter, "nanoseconds", "Time held down by sync boost (in ns).", |row| {
        violation(&row.gpu.gpu, "sync_boost")
    }),
    kept(
        "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION",
        Counter,
        "nanoseconds",
        "Time held down by the board's limit (in ns).",
        |row| violation(&row.gpu.gpu, "board_limit"),
    ),
    kept("DCGM_FI_DEV_LOW_UTIL_VIOLATION", Counter, "nanoseconds", "Time held down by low use (in ns).", |row| {
        violation(&row.gpu.gpu, "low_utilization")
    }),
    kept(
        "DCGM_FI_DEV_RELIABILITY_VIOLATION",
        Counter,
        "nanoseconds",
        "Time held down by reliability (in ns).",
        |row| violation(&row.gpu.gpu, "reliability"),
    ),
    kept("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", Counter, "errors", "Single-bit errors since the driver was loaded.", |row| {
        row.gpu.gpu.health.ecc_volatile.corrected.map(count)
    }),
    kept("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", Counter, "errors", "Double-bit errors since the driver was loaded.", |row| {
        row.gpu.gpu.health.ecc_volatile.uncorrected.map(count)
    }),
    kept("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", Counter, "errors", "Single-bit errors in the GPU's life.", |row| {
        row.gpu.gpu.health.ecc_aggregate.corrected.map(count)
    }),
    kept("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", Counter, "errors", "Double-bit errors in the GPU's life.", |row| {
        row.gpu.gpu.health.ecc_aggregate.uncorrected.map(count)
    }),
    row(
        ["DCGM_FI_DEV_RETIRED_SBE", "DCGM_FI_DEV_PAGE_RETIRED_SBE_TOTAL"],
        Counter,
        "pages",
        "Pages retired for single-bit errors.",
        |row| row.gpu.gpu.health.retired_single_bit.map(count),
    ),
    row(
        ["DCGM_FI_DEV_RETIRED_DBE", "DCGM_FI_DEV_PAGE_RETIRED_DBE_TOTAL"],
        Counter,
        "pages",
        "Pages retired for double-bit errors.",
        |row| row.gpu.gpu.health.retired_double_bit.map(count),
    ),
    row(
        ["DCGM_FI_DEV_RETIRED_PENDING", "DCGM_FI_DEV_PAGE_RETIRED_PENDING"],
        Gauge,
        "0 or 1",
        "Whether a page waits to be retired.",
        |row| row.gpu.gpu.health.retired_pending.map(flag),
    ),
    kept("DCGM_FI_DEV_ROW_REMAP_PENDING", Gauge, "0 or 1", "Whether a row waits to be remapped.", |row| {
        row.gpu.gpu.health.remap_pending.map(flag)
    }),
    row(
        ["DCGM_FI_DEV_VIRTUAL_MODE", "DCGM_FI_DEV_GPU_VIRTUAL_MODE"],
        Gauge,
        "0 to 4",
        "0 bare metal, 1 passed through to a virtual machine, 2 a virtual GPU, 3 and 4 host of virtual GPUs.",
        |row| row.gpu.gpu.modes.virtualization.map(f64::from),
    ),
    kept("DCGM_FI_DEV_CC_MODE", Gauge, "0 or 1", "Whether the machine computes confidentially.", |row| {
        row.gpu.gpu.modes.confidential.map(|mode| f64::from(mode.min(1)))
    }),
    own(
        "DCGM_EXP_XID_ERRORS_COUNT",
        Gauge,
        "errors",
        "Xid errors of the last five minutes, by code; 0 without a code when there was none.",
        xid::recent,
    ),
    own("DCGM_EXP_XID_ERRORS_TOTAL", Counter, "errors", "Xid errors since the agent started, by code.", xid::total),
    own(
        "DCGM_EXP_CLOCK_EVENTS_COUNT",
        Gauge,
        "readings",
        "Readings of the last five minutes in which a reason held clocks down; 0 without a reason when there was none.",
        recent_clock_events,
    ),
    own(
        "DCGM_EXP_CLOCK_EVENTS_TOTAL",
        Counter,
        "events",
        "How often a reason began to hold clocks down since the agent started.",
        |row| clock_events(row, |event| event.begun).map(|(reason, count)| (vec![reason], count)).collect(),
    ),
];

fn used(memory: Option<Memory>) -> Option<f64> {
    let memory = memory?;
    let usable = memory.total.saturating_sub(memory.reserved);
    (usable > 0).then(|| memory.used as f64 / usable as f64)
}
