//! The names of dcgm-exporter that dashboards (Grafana 12239) and adapter rules read, in its units: percent, MiB, MHz, millijoules.
//!
//! A GPU that one container holds carries that container's labels on every series, as there. On a shared GPU `GPU_UTIL` and `FB_USED` have one
//! series per container with its measured part and one without a pod for the rest, so that `sum` over the GPU is the GPU's value and
//! `{pod!=""}` selects true shares; every other series of a shared GPU stands once, without a pod. (dcgm-exporter repeats the GPU's whole
//! value for each pod.) A MIG instance that is held has `FB_USED`, `FB_FREE` and `FB_RESERVED` with `GPU_I_ID` and `GPU_I_PROFILE`.

use super::Get::{Dcgm, DcgmShared};
use super::Kind::{Counter, Gauge};
use super::{Family, GpuRow, Kind};

const MIB: f64 = 1_048_576.0;

fn mebibytes(bytes: u64) -> f64 {
    (bytes as f64 / MIB).round()
}

/// Names of 4.6 are aliases of the same fields: values keep their scale (`GPU_UTIL_RATIO` still counts to 100).
const fn row(
    name: [&'static str; 2],
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    gpu: fn(&GpuRow<'_>) -> Option<f64>,
) -> Family {
    let [name, renamed] = name;
    Family { name, renamed: Some(renamed), kind, unit, help, get: Dcgm { gpu, instance: |_| None } }
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "DCGM_FI_DEV_GPU_UTIL",
        renamed: Some("DCGM_FI_DEV_GPU_UTIL_RATIO"),
        kind: Gauge,
        unit: "percent",
        help: "GPU utilization (in %); on a shared GPU each container's measured part, and the rest without a pod.",
        get: DcgmShared { share: |row| row.share.utilization, rest: |row| row.gpu.unattributed_utilization },
    },
    row(
        ["DCGM_FI_DEV_MEM_COPY_UTIL", "DCGM_FI_DEV_MEM_COPY_UTIL"],
        Gauge,
        "percent",
        "Memory utilization (in %): time in which memory was read or written.",
        |row| row.gpu.gpu.memory_copy_utilization,
    ),
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
        help: "Frame buffer memory free (in MiB).",
        get: Dcgm {
            gpu: |row| row.gpu.gpu.memory.map(|memory| mebibytes(memory.free)),
            instance: |instance| instance.memory.map(|memory| mebibytes(memory.free)),
        },
    },
    Family {
        name: "DCGM_FI_DEV_FB_RESERVED",
        renamed: None,
        kind: Gauge,
        unit: "MiB",
        help: "Frame buffer memory kept by the driver (in MiB).",
        get: Dcgm {
            gpu: |row| row.gpu.gpu.memory.map(|memory| mebibytes(memory.reserved)),
            instance: |instance| instance.memory.map(|memory| mebibytes(memory.reserved)),
        },
    },
    row(["DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_BOARD_POWER_WATTS"], Gauge, "watts", "Power draw (in W).", |row| {
        row.gpu.gpu.power_watts
    }),
    row(
        ["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"],
        Counter,
        "millijoules",
        "Energy since the driver was loaded (in mJ).",
        |row| row.gpu.gpu.energy_joules.map(|joules| joules * 1e3),
    ),
    row(["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS"], Gauge, "celsius", "GPU temperature (in C).", |row| {
        row.gpu.gpu.temperature_celsius
    }),
    row(["DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_SM_CLOCK"], Gauge, "MHz", "SM clock frequency (in MHz).", |row| {
        row.gpu.gpu.sm_clock_hertz.map(|hertz| hertz / 1e6)
    }),
    row(["DCGM_FI_DEV_MEM_CLOCK", "DCGM_FI_DEV_MEM_CLOCK"], Gauge, "MHz", "Memory clock frequency (in MHz).", |row| {
        row.gpu.gpu.memory_clock_hertz.map(|hertz| hertz / 1e6)
    }),
];
