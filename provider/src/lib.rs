//! windlass-provider: the `externalgrpc` cloud provider and the gRPC expander of a stock cluster-autoscaler (CA).
//!
//! One writer, the [`keeper`], refreshes what the [`cloud`] holds, carries out what CA asks, and publishes an
//! immutable [`snapshot::Snapshot`]. Everything CA, Prometheus or a person reads is answered from that snapshot.

pub mod args;
pub mod cloud;
pub mod config;
pub mod decisions;
pub mod doctor;
pub mod expander;
pub mod fleet;
pub mod groups_table;
pub mod grpc;
pub mod http;
pub mod keeper;
pub mod metrics;
pub mod policy;
pub mod ready;
pub mod replay;
mod running;
pub mod snapshot;
pub mod timestamp;
pub mod unlabelled;
pub mod usage;
mod watch;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{decisions::Decisions, fleet::template::Dialect, metrics::Metrics, policy::Policies, ready::Ready};

pub use running::{Running, start};

/// What every door of the program looks at.
pub struct Shared {
    /// The way to the keeper, and the snapshot.
    pub keeper: keeper::Handle,
    /// How nodes are labelled.
    pub dialect: Arc<Dialect>,
    /// The operator's part in a decision.
    pub policies: Policies,
    /// The last decisions.
    pub decisions: Arc<Mutex<Decisions>>,
    /// Where things are counted.
    pub metrics: Arc<Metrics>,
    /// What the program still waits for.
    pub ready: Ready,
    /// GPU nodes without their label.
    pub unlabelled: unlabelled::Unlabelled,
    /// Which machine a node's name stands for; None where no agent is asked.
    pub names: Option<usage::names::Names>,
    /// Groups that a person has been warned about.
    warned: Mutex<BTreeSet<String>>,
}

impl Shared {
    /// Says something about a group in the log, once in the life of the process.
    pub(crate) fn warn_once(&self, group: &str, what: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(group.to_owned()) {
            tracing::warn!(group, "{what}");
        }
    }
}
