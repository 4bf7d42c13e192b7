//! The names of dcgm-exporter that dashboards (Grafana 12239) and adapter rules read, in its units: percent, MiB, MHz, millijoules. First those that it
//! shows unasked, then those that a counters CSV may ask for.
//!
//! A GPU that one container holds carries that container's labels on every series, as there. On a shared GPU `GPU_UTIL` and `FB_USED` have one
//! series per container with its measured part and one without a pod for the rest, so that `sum` over the GPU is the GPU's value and
//! `{pod!=""}` selects true shares. `FB_FREE`, `FB_RESERVED` and `FB_TOTAL`, by which people divide `FB_USED`, stand there beside each of them with the
//! GPU's value; every other series of a shared GPU stands once, without a pod. (dcgm-exporter repeats the GPU's whole value for each pod.) A MIG instance has `FB_FREE`, `FB_RESERVED` and `PROF_*` with `GPU_I_ID` and `GPU_I_PROFILE`, and one that is held
//! `FB_USED` and, where the driver measures it, `GPU_UTIL` in percent of the instance.

use super::Get::{Dcgm, DcgmBy, DcgmMemory, DcgmShared};
use super::Kind::{Counter, Gauge};
use super::gpm::{device, of_instance, ratio};
use super::{Family, GpuRow, Kind, count, flag, mebibytes};
use crate::gpu::MigInstance;

mod further;
mod xid;

pub(super) use further::FURTHER;

/// Names of 4.6 are aliases of the same fields: values keep their scale (`GPU_UTIL_RATIO` still counts to 100).
const fn row(
    [name, renamed]: [&'static str; 2],
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    gpu: fn(&GpuRow<'_>) -> Option<f64>,
) -> Family {
    Family { renamed: Some(renamed), ..kept(name, kind, unit, help, gpu) }
}

/// A name that 4.6 kept.
const fn kept(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    gpu: fn(&GpuRow<'_>) -> Option<f64>,
) -> Family {
    Family::new(name, kind, unit, help, Dcgm { gpu, instance: |_| None })
}

/// One of the profiling fields: of the GPU, or of a MIG instance in parts of that instance.
const fn profiling(
    [name, renamed]: [&'static str; 2],
    unit: &'static str,
    help: &'static str,
    gpu: fn(&GpuRow<'_>) -> Option<f64>,
    instance: fn(&MigInstance) -> Option<f64>,
) -> Family {
    Family { name, renamed: Some(renamed), kind: Gauge, unit, help, get: Dcgm { gpu, instance } }
}

/// What dcgm-exporter shows where nobody says otherwise.
pub(super) const FAMILIES: &[Family] = &[
    kept("DCGM_FI_DEV_SM_CLOCK", Gauge, "MHz", "SM clock frequency (in MHz).", |row| {
        row.gpu.gpu.sm_clock_hertz.map(|hertz| hertz / 1e6)
    }),
    kept("DCGM_FI_DEV_MEM_CLOCK", Gauge, "MHz", "Memory clock frequency (in MHz).", |row| {
        row.gpu.gpu.memory_clock_hertz.map(|hertz| hertz / 1e6)
    }),
    row(
        ["DCGM_FI_DEV_MEMORY_TEMP", "DCGM_FI_DEV_MEMORY_TEMP_CELSIUS"],
        Gauge,
        "celsius",
        "Memory temperature (in C).",
        |row| row.gpu.gpu.memory_temperature_celsius,
    ),
    row(["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS"], Gauge, "celsius", "GPU temperature (in C).", |row| {
        row.gpu.gpu.temperature_celsius
    }),
    row(["DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_BOARD_POWER_WATTS"], Gauge, "watts", "Power draw (in W).", |row| {
        row.gpu.gpu.power_watts
    }),
    kept(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        Counter,
        "millijoules",
        "Energy since the driver was loaded (in mJ).",
        |row| row.gpu.gpu.energy_joules.map(|joules| joules * 1e3),
    ),
    Family {
        name: "DCGM_FI_DEV_GPU_UTIL",
        renamed: Some("DCGM_FI_DEV_GPU_UTIL_RATIO"),
        kind: Gauge,
        unit: "percent",
        help: "GPU utilization (in %); on a shared GPU each container's measured part, and the rest without a pod; in a MIG instance of the instance.",
        get: DcgmShared { share: |row| row.share.utilization, rest: |row| row.gpu.unattributed_utilization },
    },
    kept(
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        Gauge,
        "percent",
        "Memory utilization (in %): time in which memory was read or written.",
        |row| row.gpu.gpu.memory_copy_utilization,
    ),
    kept("DCGM_FI_DEV_ENC_UTIL", Gauge, "percent", "Encoder utilization (in %).", |row| {
        row.gpu.gpu.encoder_utilization
    }),
    kept("DCGM_FI_DEV_DEC_UTIL", Gauge, "percent", "Decoder utilization (in %).", |row| {
        row.gpu.gpu.decoder_utilization
    }),
    Family {
        name: "DCGM_FI_DEV_FB_USED",
        renamed: None,
        kind: Gauge,
        unit: "MiB",
        help: "Frame buffer memory used (in MiB); on a shared GPU each container's part, and the rest without a pod.",
        get: DcgmShared {
            share: |row| row.share.memory_used.map(mebibytes),
            rest: |row| row.gpu.unattributed_memory.map(mebibytes),
        },
    },
    Family {
        name: "DCGM_FI_DEV_FB_FREE",
        renamed: None,
        kind: Gauge,
        unit: "MiB",
        help: "Frame buffer memory free (in MiB); the whole GPU's for each container that shares it.",
        get: DcgmMemory(|memory| memory.free),
    },
    Family {
        name: "DCGM_FI_DEV_FB_RESERVED",
        renamed: None,
        kind: Gauge,
        unit: "MiB",
        help: "Frame buffer memory kept by the driver (in MiB); the whole GPU's for each container that shares it.",
        get: DcgmMemory(|memory| memory.reserved),
    },
    Family {
        name: "DCGM_FI_DEV_XID_ERRORS",
        renamed: Some("DCGM_FI_DEV_XID_ERROR"),
        kind: Gauge,
        unit: "code",
        help: "Code of the last Xid error since the agent started, 0 before the first; err_code and err_msg say it again.",
        get: DcgmBy(xid::last),
    },
    kept("DCGM_FI_DEV_VGPU_LICENSE_STATUS", Gauge, "0 or 1", "Whether vGPU software is licensed here.", |row| {
        row.gpu.gpu.modes.license.map(|license| flag(license == Some(true)))
    }),
    row(
        ["DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "DCGM_FI_DEV_NVLINK_THROUGHPUT_TOTAL"],
        Gauge,
        "MB/s",
        "Megabytes per second over all NVLinks, both ways: a rate, though dcgm-exporter's own file has it as a counter.",
        |row| row.gpu.gpu.traffic.nvlink_bytes_per_second.map(|rate| (rate / 1_024_000.0).trunc()),
    ),
    row(
        ["DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "DCGM_FI_DEV_PCIE_REPLAY_TOTAL"],
        Counter,
        "packets",
        "Packets that PCIe had to send again.",
        |row| row.gpu.gpu.traffic.pcie_replays.map(count),
    ),
    row(
        ["DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL"],
        Counter,
        "rows",
        "Rows remapped for uncorrectable errors.",
        |row| row.gpu.gpu.health.remapped_uncorrectable.map(count),
    ),
    row(
        ["DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL"],
        Counter,
        "rows",
        "Rows remapped for correctable errors.",
        |row| row.gpu.gpu.health.remapped_correctable.map(count),
    ),
    row(
        ["DCGM_FI_DEV_ROW_REMAP_FAILURE", "DCGM_FI_DEV_ROW_REMAP_FAILED"],
        Gauge,
        "0 or 1",
        "Whether remapping of rows has failed.",
        |row| row.gpu.gpu.health.remap_failed.map(flag),
    ),
    profiling(
        ["DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO"],
        "ratio",
        "Part of the time in which any context was at work, 0 to 1 (Hopper and newer).",
        |row| ratio(row, |gpm| gpm.graphics),
        |instance| of_instance(instance, |gpm| gpm.graphics),
    ),
    profiling(
        ["DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_TENSOR_UTIL_RATIO"],
        "ratio",
        "Part of the time in which the tensor cores worked, 0 to 1 (Hopper and newer).",
        |row| ratio(row, |gpm| gpm.tensor),
        |instance| of_instance(instance, |gpm| gpm.tensor),
    ),
    profiling(
        ["DCGM_FI_PROF_DRAM_ACTIVE", "DCGM_FI_PROF_DRAM_UTIL_RATIO"],
        "ratio",
        "Part of the memory's bandwidth in use, 0 to 1 (Hopper and newer).",
        |row| ratio(row, |gpm| gpm.dram),
        |instance| of_instance(instance, |gpm| gpm.dram),
    ),
    kept(
        "DCGM_FI_PROF_PCIE_TX_BYTES",
        Gauge,
        "bytes/s",
        "Bytes per second that the GPU sent over PCIe (Hopper and newer).",
        |row| device(row, |gpm| gpm.pcie_sent),
    ),
    kept(
        "DCGM_FI_PROF_PCIE_RX_BYTES",
        Gauge,
        "bytes/s",
        "Bytes per second that the GPU received over PCIe (Hopper and newer).",
        |row| device(row, |gpm| gpm.pcie_received),
    ),
];
