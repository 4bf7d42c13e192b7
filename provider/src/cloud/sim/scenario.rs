//! A scenario: the groups of the embedded cloud and the script of what happens to them. Read from YAML; whatever is
//! wrong in it is refused with the file, the line, the key and what to write instead.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::fleet::group::{Group, GroupId};

mod check;
mod written;

/// The groups and the script. Made by [`Scenario::parse`], which leaves nothing inconsistent.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The same seed tells the same story.
    pub seed: u64,
    /// The node label that carries the GPU model; None leaves the provider's default.
    pub gpu_label: Option<String>,
    /// Never empty.
    pub groups: BTreeMap<GroupId, SimGroup>,
    /// In order of time.
    pub events: Vec<Event>,
}

impl Scenario {
    /// Reads a scenario; `file` is only named in errors.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn parse(text: &str, file: &std::path::Path) -> Result<Self, ScenarioError> {
        check::checked(written::read(text, file)?, file)
    }
}

/// A group and how its machines behave.
#[derive(Clone, Debug, PartialEq)]
pub struct SimGroup {
    /// As any cloud would describe it.
    pub group: Group,
    /// How long the stages of a machine's life take.
    pub spans: Spans,
    /// Most machines a zone gives; a zone that is not named gives as many as are asked.
    pub capacity: BTreeMap<String, u32>,
    /// Machines that are there, registered and ready, when the story begins.
    pub initial: u32,
}

/// How long the stages of a machine's life take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// From the launch until the cloud calls it running.
    pub pending: Duration,
    /// From running until its kubelet registers the Node.
    pub boot: Duration,
    /// From registration until the device plugin makes the GPUs allocatable.
    pub device: Duration,
    /// Up to this much is added to `boot`, and again to `device`, machine by machine.
    pub jitter: Duration,
    /// From the end of a machine until the cloud lists it no more.
    pub shutdown: Duration,
}

/// One line of the script.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Since the cloud's start.
    pub at: Duration,
    /// How long it holds; None means until another event says otherwise.
    pub lasts: Option<Duration>,
    /// None means every group and the account as a whole.
    pub group: Option<GroupId>,
    /// What happens.
    pub happening: Happening,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// No new machine in any zone (or again, when false).
    StockOut(bool),
    /// Most machines each zone named here gives from now on.
    Capacity(BTreeMap<String, u32>),
    /// Most machines at a time: of the group, or of the account when no group is named.
    Quota(u32),
    /// Machines are taken back after a notice; which ones, the seed decides.
    Interrupt {
        /// How many.
        instances: u32,
        /// From the notice to the end.
        notice: Duration,
    },
    /// Machines launched from now on never become Nodes (or do again, when false).
    NeverRegister(bool),
    /// Every call takes effect at once and is answered this much later.
    SlowCalls(Duration),
    /// Every call fails.
    FailCalls(Failing),
}

/// How a scripted call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Failing {
    /// "Too many calls"; nothing was done.
    Throttled,
    /// "Not allowed"; nothing was done.
    Permission,
    /// "This cannot be made as it is written"; nothing was done.
    Configuration,
    /// No answer; nothing was done.
    Unavailable,
    /// No answer, although the call took effect.
    Lost,
}

/// What is wrong with a scenario, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {what}", .file.display())]
pub struct ScenarioError {
    /// The file, as it was named to us.
    pub file: PathBuf,
    /// From 1; 0 when the place is not known.
    pub line: u64,
    /// From 1; 0 when the place is not known.
    pub column: u64,
    /// The key, what is wrong with it and the remedy.
    pub what: String,
}
