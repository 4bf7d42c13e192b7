//! The one door to a cloud: three verbs in our words. Adapters stay plain; deadlines, retries and metrics are
//! decorators around them.

#[cfg(feature = "aws")]
pub mod aws;
pub mod metered;
pub mod patient;
pub mod sim;

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;

use crate::{
    fleet::group::{Group, GroupId, Instance, InstanceId, Refusal},
    timestamp::Timestamp,
};

/// What a listing is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Now.
    pub now: Timestamp,
    /// CA begins a loop and waits for it: a cloud that is asked more seldom than it is listed is asked now, for what is
    /// under way.
    pub awaited: bool,
}

/// A group and every machine in it, as one listing saw them.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The group as it is configured now.
    pub group: Group,
    /// Every machine that is alive or on its way out; none is left out.
    pub instances: Vec<Instance>,
    /// What the cloud itself goes on trying to bring; None where it keeps no such orders.
    pub standing: Option<Standing>,
}

impl Listed {
    /// A group of a cloud that keeps no standing orders.
    #[must_use]
    pub fn new(group: Group, instances: Vec<Instance>) -> Self {
        Self { group, instances, standing: None }
    }
}

/// What one listing saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Every group this provider is responsible for, whole.
    pub groups: Vec<Listed>,
    /// Groups that the configuration names and the cloud does not have.
    pub missing: Vec<Missing>,
}

impl Listing {
    /// Adds the groups that have settings of their own and are not there: a name that is misspelt would do nothing, unseen.
    pub fn look_for<'a>(&mut self, settings: impl Iterator<Item = &'a String>) {
        let known: BTreeSet<&str> = self.groups.iter().map(|it| it.group.id.as_str()).collect();
        let told = |id: &str| self.missing.iter().any(|it| it.group.as_str() == id);
        let why = |id: &str| {
            format!(
                "groups.{id} has settings, and the cloud has no such group of ours: mend the name, or take the settings away"
            )
        };
        let missing = settings.filter(|id| !known.contains(id.as_str()) && !told(id));
        let missing: Vec<_> = missing.map(|id| Missing { group: id.as_str().into(), why: why(id) }).collect();
        self.missing.extend(missing);
    }
}

impl From<Vec<Listed>> for Listing {
    fn from(groups: Vec<Listed>) -> Self {
        Self { groups, missing: Vec::new() }
    }
}

/// A group that is wanted by name and not there. The autoscaler is not told of it: nothing is known of its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The name in the configuration.
    pub group: GroupId,
    /// What is wrong, and what to mend.
    pub why: String,
}

/// A cloud's standing order for a group: it was told how many machines there are to be, and goes on trying.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Machines it wants beyond those it lists.
    pub open: u32,
    /// Why what is open will not come soon; None while it may. It may still come later.
    pub refusal: Option<Refusal>,
    /// Places that refused since the last listing.
    pub zones: Vec<(String, Refusal)>,
}

/// A request for new machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Where.
    pub group: GroupId,
    /// How many; at least one.
    pub count: u32,
    /// Makes the request safe to repeat: the same token never launches twice.
    pub token: String,
    /// The group's zones, in the order in which they are to be asked; the same whenever the launch is repeated.
    pub zones: Vec<String>,
    /// It may have been asked for before, by this process or the last.
    pub again: bool,
    /// For a cloud that is told how many machines there are to be: what there is to reckon with.
    pub wanted: Wanted,
}

impl Launch {
    /// A launch that leaves the order of the zones to the cloud.
    #[must_use]
    pub fn new(group: GroupId, count: u32, token: String) -> Self {
        Self { group, count, token, zones: Vec::new(), again: false, wanted: Wanted::default() }
    }
}

/// What a whole group is to come to, as of the moment it was asked: enough to raise it absolutely, and as often as one
/// likes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Machines that were there already, or are on their way out.
    pub known: Arc<BTreeSet<InstanceId>>,
    /// Those of them that are to stay.
    pub live: Arc<BTreeSet<InstanceId>>,
    /// Machines to come beyond those: of this launch and of every earlier one that has not been fulfilled.
    pub outstanding: u32,
}

/// What came of a launch. `instances.len()` plus the refused counts plus `ordered` equal what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launched {
    /// Machines that now exist (creating or running).
    pub instances: Vec<Instance>,
    /// Machines that will not come, and why.
    pub refused: Vec<(u32, Refusal)>,
    /// Machines that the cloud now tries to bring by itself; listings show them, or say why not.
    pub ordered: u32,
    /// How many of those it tried to bring anyway, for an order that nobody counted on any more.
    pub reused: u32,
    /// Zones that said no on the way, whatever became of the launch.
    pub zones: Vec<(String, Refusal)>,
}

/// A machine that could not be ended, and why.
pub type Kept = (InstanceId, Refusal);

/// A cloud call that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// The cloud answered, and its answer is no.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Refusal),
    /// No answer, or none that can be trusted: whether it took effect is unknown. Repeat with the same token.
    #[error("no answer from the cloud: {0}")]
    Unknown(String),
}

/// What Windlass asks of a cloud.
#[async_trait]
pub trait Cloud: Send + Sync + 'static {
    /// Every group this provider is responsible for, whole: a partial answer is an error, never a short list.
    async fn list(&self, look: Look) -> Result<Listing, CloudError>;

    /// Asks for machines. Repeating a token answers what the first call did. Never ends or replaces a machine.
    async fn launch(&self, launch: &Launch) -> Result<Launched, CloudError>;

    /// Ends exactly these machines and lowers the group's own desired count by as many. A machine that is already
    /// ending or gone counts as done. Returns those that stay.
    async fn terminate(&self, group: &GroupId, instances: &[InstanceId]) -> Result<Vec<Kept>, CloudError>;
}
