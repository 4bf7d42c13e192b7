//! Which group to grow: a question in, a [`Decision`] with its reasons out. No clock, no I/O, no state of its own.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{fleet::group::GroupId, timestamp::Timestamp};

pub mod bought;
pub mod packing;

/// What one pod asks for, as far as choosing needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodAsk {
    /// `metadata.uid`: the identity the purchase memory goes by. Empty for a pod that CA made up (capacity buffers,
    /// proactive scale-up): such a pod is never bound, so it is never remembered.
    pub uid: Arc<str>,
    /// `namespace/name`, for people.
    pub name: Arc<str>,
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

/// One option of a `BestOptions` request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The group that would grow.
    pub group: Option<GroupId>,
    /// By how many nodes, by CA's estimate.
    pub node_count: u32,
    /// The pods it would help.
    pub pods: Vec<Arc<PodAsk>>,
}

/// What became of one candidate, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The candidate.
    pub group: GroupId,
    /// CA's estimate of nodes.
    pub node_count: u32,
    /// How many pods it would help.
    pub pods: u32,
    /// The filter that dropped it; None for a survivor.
    pub dropped_by: Option<&'static str>,
    /// Each filter's word on it, in order: `(filter, why)`.
    pub reasons: Vec<(&'static str, String)>,
}

/// The answer to one question, with its reasons. Log line, counter, page and wire answer are renderings of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// When it was asked.
    pub at: Timestamp,
    /// Groups that passed, best first (CA takes the first it finds usable). Empty only for a veto.
    pub best: Vec<GroupId>,
    /// Every candidate, in the order of the request.
    pub candidates: Vec<Verdict>,
    /// Set when nothing is to be bought: why, and until when.
    pub veto: Option<Veto>,
}

/// A deliberate "buy nothing now".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Veto {
    /// A sentence for people.
    pub reason: String,
    /// When it ends at the latest.
    pub until: Timestamp,
}
