//! What every reader reads: one immutable value, published whole by the keeper. A read of it is a pointer copy, so no
//! answer ever waits for a cloud or for the writer.

use std::sync::Arc;

use crate::{
    expander::bought::Bought,
    fleet::{Fleet, offering::Offerings},
    timestamp::Timestamp,
};

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Groups, machines, intents.
    pub fleet: Arc<Fleet>,
    /// Which pods already have a machine on its way.
    pub bought: Arc<Bought>,
    /// What was refused lately.
    pub offerings: Arc<Offerings>,
    /// When the last good listing of the cloud began; None before the first.
    pub synced_at: Option<Timestamp>,
    /// When this was published.
    pub at: Timestamp,
}

#[cfg(test)]
pub(crate) mod scenario;
