//! What tells that a GPU is held down, wears out or wants to be reset, and what goes over its links.
//! Counts are the driver's own where it keeps them; what a generation of GPUs does not have is absent.

use super::Kind::{Counter, Gauge};
use super::device::{by, counter, row};
use super::{By, Family, GpuRow, count, flag};
use crate::gpu::{Health, Xid};

fn state(row: &GpuRow<'_>, field: fn(&Health) -> Option<&'static str>) -> By {
    field(&row.gpu.gpu.health).map(|word| (word.into(), 1.0)).into_iter().collect()
}

fn word(code: Option<u32>, words: &[&'static str]) -> By {
    code.and_then(|code| words.get(code as usize)).map(|word| ((*word).into(), 1.0)).into_iter().collect()
}

fn xids(row: &GpuRow<'_>, value: fn(&Xid) -> f64) -> By {
    row.gpu.gpu.xids.iter().map(|xid| (xid.code.to_string().into(), value(xid))).collect()
}

pub(super) const FAMILIES: &[Family] = &[
    by(
        ("gpu_device_throttle_seconds_total", "reason"),
        Counter,
        "seconds",
        "Time for which a reason held clocks down: the driver's own counter where it has one, else added up at each reading.",
        |row| row.gpu.gpu.throttled.iter().map(|held| (held.reason.into(), held.seconds)).collect(),
    ),
    by(
        ("gpu_device_xid_errors_total", "xid"),
        Counter,
        "errors",
        "Xid errors since the agent started, by code.",
        |row| xids(row, |xid| count(xid.count)),
    ),
    by(
        ("gpu_device_xid_last_timestamp_seconds", "xid"),
        Gauge,
        "seconds",
        "Time of the last Xid error of that code, since 1970.",
        |row| xids(row, |xid| xid.last),
    ),
    counter(
        "gpu_device_ecc_corrected_errors_total",
        "errors",
        "Memory errors put right since the driver was loaded.",
        |row| row.gpu.gpu.health.ecc_volatile.corrected.map(count),
    ),
    counter(
        "gpu_device_ecc_uncorrected_errors_total",
        "errors",
        "Memory errors that could not be put right, since the driver was loaded.",
        |row| row.gpu.gpu.health.ecc_volatile.uncorrected.map(count),
    ),
    counter(
        "gpu_device_ecc_lifetime_corrected_errors_total",
        "errors",
        "Memory errors put right in the GPU's life.",
        |row| row.gpu.gpu.health.ecc_aggregate.corrected.map(count),
    ),
    counter(
        "gpu_device_ecc_lifetime_uncorrected_errors_total",
        "errors",
        "Memory errors that could not be put right, in the GPU's life.",
        |row| row.gpu.gpu.health.ecc_aggregate.uncorrected.map(count),
    ),
    counter(
        "gpu_device_remapped_rows_correctable_total",
        "rows",
        "Memory rows replaced because of errors that were put right (Ampere and newer).",
        |row| row.gpu.gpu.health.remapped_correctable.map(count),
    ),
    counter(
        "gpu_device_remapped_rows_uncorrectable_total",
        "rows",
        "Memory rows replaced because of errors that were not put right (Ampere and newer).",
        |row| row.gpu.gpu.health.remapped_uncorrectable.map(count),
    ),
    row("gpu_device_row_remap_pending", "0 or 1", "1 while a memory row waits for a reset to be replaced.", |row| {
        row.gpu.gpu.health.remap_pending.map(flag)
    }),
    row(
        "gpu_device_row_remap_failed",
        "0 or 1",
        "1 when a memory row could not be replaced: replace the GPU.",
        |row| row.gpu.gpu.health.remap_failed.map(flag),
    ),
    counter(
        "gpu_device_retired_pages_single_bit_total",
        "pages",
        "Memory pages retired because of repeated single-bit errors (before Ampere).",
        |row| row.gpu.gpu.health.retired_single_bit.map(count),
    ),
    counter(
        "gpu_device_retired_pages_double_bit_total",
        "pages",
        "Memory pages retired because of a double-bit error (before Ampere).",
        |row| row.gpu.gpu.health.retired_double_bit.map(count),
    ),
    row(
        "gpu_device_retired_pages_pending",
        "0 or 1",
        "1 while a memory page waits for a reboot to be retired.",
        |row| row.gpu.gpu.health.retired_pending.map(flag),
    ),
    by(
        ("gpu_device_recovery_action_info", "state"),
        Gauge,
        "1",
        "What the driver wants done with the GPU: none, gpu_reset, node_reboot, drain_p2p or drain_and_reset.",
        |row| state(row, |health| health.recovery_action),
    ),
    by(
        ("gpu_device_fabric_state_info", "state"),
        Gauge,
        "1",
        "State of the GPU on the NVLink fabric: not_started, in_progress, completed or failed; absent without a fabric.",
        |row| state(row, |health| health.fabric_state),
    ),
    by(
        ("gpu_device_virtualization_info", "state"),
        Gauge,
        "1",
        "Whether the GPU is virtual: none, passthrough, vgpu, host_vgpu or host_vsga.",
        |row| word(row.gpu.gpu.modes.virtualization, &["none", "passthrough", "vgpu", "host_vgpu", "host_vsga"]),
    ),
    by(
        ("gpu_device_confidential_compute_info", "state"),
        Gauge,
        "1",
        "Whether the machine computes confidentially: off, on or devtools (on, with developer tools let in); absent where it cannot.",
        |row| word(row.gpu.gpu.modes.confidential, &["off", "on", "devtools"]),
    ),
    row("gpu_device_vgpu_licensed", "0 or 1", "Whether vGPU software is licensed here; absent where none is.", |row| {
        row.gpu.gpu.modes.license.flatten().map(flag)
    }),
    counter("gpu_device_pcie_sent_bytes_total", "bytes", "Bytes that the GPU sent over PCIe.", |row| {
        row.gpu.gpu.traffic.pcie_sent_bytes
    }),
    counter("gpu_device_pcie_received_bytes_total", "bytes", "Bytes that the GPU received over PCIe.", |row| {
        row.gpu.gpu.traffic.pcie_received_bytes
    }),
    counter("gpu_device_pcie_replays_total", "packets", "Packets that PCIe had to send again.", |row| {
        row.gpu.gpu.traffic.pcie_replays.map(count)
    }),
    counter("gpu_device_nvlink_sent_bytes_total", "bytes", "Payload that the GPU sent over all its NVLinks.", |row| {
        row.gpu.gpu.traffic.nvlink_sent_bytes
    }),
    counter(
        "gpu_device_nvlink_received_bytes_total",
        "bytes",
        "Payload that the GPU received over all its NVLinks.",
        |row| row.gpu.gpu.traffic.nvlink_received_bytes,
    ),
];
