//! What every reader reads: one immutable value, published whole by the keeper. A read of it is a pointer copy, so no
//! answer ever waits for a cloud or for the writer.

use std::sync::Arc;

use crate::{
    cloud::Missing,
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
    /// What no group of the fleet can tell.
    pub troubles: Troubles,
    /// When this was published.
    pub at: Timestamp,
}

/// What is wrong with the cloud as a whole, or with groups that it does not list.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    /// Groups that are wanted by name and not there.
    pub missing: Arc<[Missing]>,
    /// Why the cloud cannot be listed; None while it can.
    pub failing: Option<Failing>,
}

/// The cloud cannot be listed: what is shown is from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Since the first listing that failed.
    pub since: Timestamp,
    /// What the last one failed with, in the cloud's words.
    pub why: Arc<str>,
}

impl Troubles {
    /// A listing failed.
    pub fn failed(&mut self, why: &str, now: Timestamp) {
        let since = self.failing.as_ref().map_or(now, |failing| failing.since);
        self.failing = Some(Failing { since, why: why.into() });
    }

    /// A listing succeeded. Says which groups are missing that were not before.
    pub fn listed(&mut self, missing: Vec<Missing>) -> Vec<Missing> {
        self.failing = None;
        let new = missing.iter().filter(|it| !self.missing.contains(it)).cloned().collect();
        if *self.missing != *missing {
            self.missing = missing.into();
        }
        new
    }
}

#[cfg(test)]
pub(crate) mod scenario;
