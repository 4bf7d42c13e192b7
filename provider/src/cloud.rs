//! The one door to a cloud: three verbs in our words. Adapters stay plain; deadlines, retries and metrics are
//! decorators around them.

#[cfg(feature = "aws")]
pub mod aws;
pub mod metered;
pub mod patient;
pub mod sim;

use async_trait::async_trait;

use crate::fleet::group::{Group, GroupId, Instance, InstanceId, Refusal};

/// A group and every machine in it, as one listing saw them.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The group as it is configured now.
    pub group: Group,
    /// Every machine that is alive or on its way out; none is left out.
    pub instances: Vec<Instance>,
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
}

/// What came of a launch. `instances.len()` plus the refused counts equal what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launched {
    /// Machines that now exist (creating or running).
    pub instances: Vec<Instance>,
    /// Machines that will not come, and why.
    pub refused: Vec<(u32, Refusal)>,
}

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
    async fn list(&self) -> Result<Vec<Listed>, CloudError>;

    /// Asks for machines. Repeating a token answers what the first call did. Never ends or replaces a machine.
    async fn launch(&self, launch: &Launch) -> Result<Launched, CloudError>;

    /// Ends exactly these machines and lowers the group's own desired count by as many. A machine that is already
    /// ending or gone counts as done.
    async fn terminate(&self, group: &GroupId, instances: &[InstanceId]) -> Result<(), CloudError>;
}
