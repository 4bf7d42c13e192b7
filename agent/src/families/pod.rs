//! What each container has of each device: the series that people scale on.
//! Percentages go from 0 to 100 under the names that HPA, adapter and KEDA examples use.

use super::Family;
use super::Get::{Container, InstanceRest};
use super::Kind::{Counter, Gauge};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        "gpu_utilization",
        Gauge,
        "percent",
        "Percent of the time of the GPU (or MIG instance) that the container used, averaged over the driver's samples; 0 for a holder that idles.",
        Container(|row| row.share.utilization),
    ),
    Family::new(
        "gpu_memory_utilization",
        Gauge,
        "percent",
        "Percent of the memory of the GPU or MIG instance that the container holds.",
        Container(|row| row.share.memory_utilization()),
    ),
    Family::new(
        "gpu_memory_used_bytes",
        Gauge,
        "bytes",
        "Memory of the GPU or MIG instance that the container holds.",
        Container(|row| row.share.memory_used.map(|bytes| bytes as f64)),
    ),
    Family::new(
        "container_gpu_usage_seconds_total",
        Counter,
        "GPU-seconds",
        "GPU time that the container used: one second at 50 percent is half a GPU-second.",
        Container(|row| row.total.usage_seconds),
    ),
    Family::new(
        "container_gpu_allocated_seconds_total",
        Counter,
        "seconds",
        "Time for which the device was given to the container, used or not.",
        Container(|row| row.total.allocated_seconds),
    ),
    Family::new(
        "container_gpu_energy_joules_total",
        Counter,
        "joules",
        "Energy of the GPU that counts as the container's: all of an exclusive GPU's, a part by measured time of a shared one's.",
        Container(|row| row.total.energy_joules),
    ),
    Family::new(
        "gpu_mig_unattributed_utilization_ratio",
        Gauge,
        "ratio",
        "Time of the MIG instance's SMs that no container is known to have used.",
        InstanceRest(|rest| rest.unattributed_utilization.map(|percent| percent / 100.0)),
    ),
    Family::new(
        "gpu_mig_unattributed_memory_bytes",
        Gauge,
        "bytes",
        "Memory of the MIG instance that no container is known to hold.",
        InstanceRest(|rest| rest.unattributed_memory.map(|bytes| bytes as f64)),
    ),
];
