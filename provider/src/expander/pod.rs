//! What one pod asks for, as far as choosing a group needs it.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

/// One pod: who it is, and what it needs. Pods of one Deployment or Job need the same and share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodAsk {
    /// `metadata.uid`: the identity the purchase memory goes by. Empty for a pod that CA made up (capacity buffers,
    /// proactive scale-up): such a pod is never bound, so it is never remembered.
    pub uid: Arc<str>,
    /// `namespace/name`, for people.
    pub name: Arc<str>,
    /// What it asks for.
    pub needs: Arc<Needs>,
}

/// What a pod asks for: sums over its containers, as the scheduler counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Needs {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
    /// Everything else by resource name, whole units: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`, …
    pub extended: BTreeMap<String, u64>,
    /// Required node labels (nodeSelector and single-valued required affinity), for GPU model and memory.
    pub selector: BTreeMap<String, String>,
    /// GPU memory it must have more of, in MiB: required affinity `nvidia.com/gpu.memory Gt …`.
    pub gpu_memory_over: Option<u64>,
}

impl Needs {
    /// Whether it asks for a device of the GPU kind: one of the vendors' resources, whole or a part of one.
    #[must_use]
    pub fn asks_gpu(&self) -> bool {
        self.extended.iter().any(|(name, asked)| *asked > 0 && is_gpu(name))
    }
}

/// Resource names of GPUs and their parts: `nvidia.com/gpu`, `nvidia.com/gpu.shared`, `nvidia.com/mig-…`, and what CA
/// knows of other vendors.
fn is_gpu(resource: &str) -> bool {
    let Some((vendor, name)) = resource.split_once('/') else { return false };
    match vendor {
        "nvidia.com" => name == "gpu" || name.starts_with("gpu.") || name.starts_with("mig-"),
        "amd.com" => name == "gpu",
        "gpu.intel.com" => true,
        "habana.ai" => name == "gaudi",
        "microsoft.com" => name == "directx",
        _ => false,
    }
}
