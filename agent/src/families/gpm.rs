//! What the units of a GPU, or of one MIG instance, did between two readings (GPM, Hopper and newer): ratios of that GPU or instance.
//! Without privileges and without the lock that profilers want.

use super::Get::Instance;
use super::Kind::Gauge;
use super::device::row;
use super::{Family, GpuRow, count};
use crate::gpu::{Gpm, MigInstance};

const fn instance(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    get: fn(&MigInstance) -> Option<f64>,
) -> Family {
    Family::new(name, Gauge, unit, help, Instance(get))
}

/// A counter of the GPU's units.
pub(super) fn device(row: &GpuRow<'_>, field: fn(&Gpm) -> Option<f64>) -> Option<f64> {
    row.gpu.gpu.gpm.as_ref().and_then(field)
}

/// The same as a part of 1.
pub(super) fn ratio(row: &GpuRow<'_>, field: fn(&Gpm) -> Option<f64>) -> Option<f64> {
    device(row, field).map(|percent| percent / 100.0)
}

/// A counter of a MIG instance's units as a part of 1.
pub(super) fn of_instance(instance: &MigInstance, field: fn(&Gpm) -> Option<f64>) -> Option<f64> {
    instance.gpm.as_ref().and_then(field).map(|percent| percent / 100.0)
}

pub(super) const FAMILIES: &[Family] = &[
    row("gpu_device_graphics_active_ratio", "ratio", "Time in which any context was at work (GPM).", |row| {
        ratio(row, |gpm| gpm.graphics)
    }),
    row("gpu_device_sm_active_ratio", "ratio", "Time in which an SM had a warp, averaged over the SMs (GPM).", |row| {
        ratio(row, |gpm| gpm.sm_active)
    }),
    row("gpu_device_sm_occupancy_ratio", "ratio", "Warps in flight, of those that fit (GPM).", |row| {
        ratio(row, |gpm| gpm.sm_occupancy)
    }),
    row("gpu_device_tensor_active_ratio", "ratio", "Time in which the tensor cores worked (GPM).", |row| {
        ratio(row, |gpm| gpm.tensor)
    }),
    row("gpu_device_dram_active_ratio", "ratio", "Part of the memory's bandwidth in use (GPM).", |row| {
        ratio(row, |gpm| gpm.dram)
    }),
    row("gpu_device_fp64_active_ratio", "ratio", "Time in which the FP64 pipes worked (GPM).", |row| {
        ratio(row, |gpm| gpm.fp64)
    }),
    row("gpu_device_fp32_active_ratio", "ratio", "Time in which the FP32 pipes worked (GPM).", |row| {
        ratio(row, |gpm| gpm.fp32)
    }),
    row("gpu_device_fp16_active_ratio", "ratio", "Time in which the FP16 pipes worked (GPM).", |row| {
        ratio(row, |gpm| gpm.fp16)
    }),
    row(
        "gpu_device_pcie_sent_bytes_per_second",
        "bytes/s",
        "Bytes per second that the GPU sent over PCIe, between the last two readings (GPM).",
        |row| device(row, |gpm| gpm.pcie_sent),
    ),
    row(
        "gpu_device_pcie_received_bytes_per_second",
        "bytes/s",
        "Bytes per second that the GPU received over PCIe, between the last two readings (GPM).",
        |row| device(row, |gpm| gpm.pcie_received),
    ),
    row(
        "gpu_device_nvlink_sent_bytes_per_second",
        "bytes/s",
        "Bytes per second that the GPU sent over NVLink, between the last two readings (GPM).",
        |row| device(row, |gpm| gpm.nvlink_sent),
    ),
    row(
        "gpu_device_nvlink_received_bytes_per_second",
        "bytes/s",
        "Bytes per second that the GPU received over NVLink, between the last two readings (GPM).",
        |row| device(row, |gpm| gpm.nvlink_received),
    ),
    instance("gpu_mig_memory_total_bytes", "bytes", "Memory of the MIG instance.", |instance| {
        instance.memory.map(|memory| count(memory.total))
    }),
    instance("gpu_mig_memory_used_bytes", "bytes", "Memory that programs hold in the MIG instance.", |instance| {
        instance.memory.map(|memory| count(memory.used))
    }),
    instance("gpu_mig_memory_free_bytes", "bytes", "Memory of the MIG instance that nobody holds.", |instance| {
        instance.memory.map(|memory| count(memory.free))
    }),
    instance(
        "gpu_mig_graphics_active_ratio",
        "ratio",
        "Time in which any context was at work, of the MIG instance (GPM).",
        |instance| of_instance(instance, |gpm| gpm.graphics),
    ),
    instance(
        "gpu_mig_sm_active_ratio",
        "ratio",
        "Time in which an SM had a warp, averaged over the SMs, of the MIG instance (GPM).",
        |instance| of_instance(instance, |gpm| gpm.sm_active),
    ),
    instance(
        "gpu_mig_sm_occupancy_ratio",
        "ratio",
        "Warps in flight, of those that fit, of the MIG instance (GPM).",
        |instance| of_instance(instance, |gpm| gpm.sm_occupancy),
    ),
    instance(
        "gpu_mig_tensor_active_ratio",
        "ratio",
        "Time in which the tensor cores worked, of the MIG instance (GPM).",
        |instance| of_instance(instance, |gpm| gpm.tensor),
    ),
    instance(
        "gpu_mig_dram_active_ratio",
        "ratio",
        "Part of the memory's bandwidth in use, of the MIG instance (GPM).",
        |instance| of_instance(instance, |gpm| gpm.dram),
    ),
    instance(
        "gpu_mig_fp64_active_ratio",
        "ratio",
        "Time in which the FP64 pipes worked, of the MIG instance (GPM).",
        |instance| of_instance(instance, |gpm| gpm.fp64),
    ),
    instance(
        "gpu_mig_fp32_active_ratio",
        "ratio",
        "Time in which the FP32 pipes worked, of the MIG instance (GPM).",
        |instance| of_instance(instance, |gpm| gpm.fp32),
    ),
    instance(
        "gpu_mig_fp16_active_ratio",
        "ratio",
        "Time in which the FP16 pipes worked, of the MIG instance (GPM).",
        |instance| of_instance(instance, |gpm| gpm.fp16),
    ),
];
