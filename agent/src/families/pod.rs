//! What each container has of each device: the series that people scale on.
//! Percentages go from 0 to 100 under the names that HPA, adapter and KEDA examples use.

use super::Family;
use super::Get::{Container, InstanceRest};
use super::Kind::{Counter, Gauge};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "gpu_utilization",
        renamed: None,
        kind: Gauge,
        unit: "percent",
        help: "Percent of the time of the GPU (or MIG instance) that the container used, averaged over the driver's samples; 0 for a holder that idles.",
        get: Container(|row| row.share.utilization),
    },
    Family {
        name: "gpu_memory_utilization",
        renamed: None,
        kind: Gauge,
        unit: "percent",
        help: "Percent of the memory of the GPU or MIG instance that the container holds.",
        get: Container(|row| row.share.memory_utilization()),
    },
    Family {
        name: "gpu_memory_used_bytes",
        renamed: None,
        kind: Gauge,
        unit: "bytes",
        help: "Memory of the GPU or MIG instance that the container holds.",
        get: Container(|row| row.share.memory_used.map(|bytes| bytes as f64)),
    },
    Family {
        name: "container_gpu_usage_seconds_total",
        renamed: None,
        kind: Counter,
        unit: "GPU-seconds",
        help: "GPU time that the container used: one second at 50 percent is half a GPU-second.",
        get: Container(|row| row.total.usage_seconds),
    },
    Family {
        name: "container_gpu_allocated_seconds_total",
        renamed: None,
        kind: Counter,
        unit: "seconds",
        help: "Time for which the device was given to the container, used or not.",
        get: Container(|row| row.total.allocated_seconds),
    },
    Family {
        name: "container_gpu_energy_joules_total",
        renamed: None,
        kind: Counter,
        unit: "joules",
        help: "Energy of the GPU that counts as the container's: all of an exclusive GPU's, a part by measured time of a shared one's.",
        get: Container(|row| row.total.energy_joules),
    },
    Family {
        name: "gpu_mig_unattributed_utilization_ratio",
        renamed: None,
        kind: Gauge,
        unit: "ratio",
        help: "Time of the MIG instance's SMs that no container is known to have used.",
        get: InstanceRest(|rest| rest.unattributed_utilization.map(|percent| percent / 100.0)),
    },
    Family {
        name: "gpu_mig_unattributed_memory_bytes",
        renamed: None,
        kind: Gauge,
        unit: "bytes",
        help: "Memory of the MIG instance that no container is known to hold.",
        get: InstanceRest(|rest| rest.unattributed_memory.map(|bytes| bytes as f64)),
    },
];
