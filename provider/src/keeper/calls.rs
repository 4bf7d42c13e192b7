//! Cloud calls under way: owned by the keeper, begun only after what they rest on is written down. A call whose fate
//! is unknown is repeated, a launch always under the same token.

use std::sync::Arc;

use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

use crate::{
    cloud::{Cloud, CloudError, Launch, Launched, Listed},
    config::limits,
    fleet::group::{GroupId, InstanceId, Refusal, RefusalClass},
    timestamp::Timestamp,
};

/// A call to make.
#[derive(Debug)]
enum Call {
    Launch(Launch),
    Terminate(GroupId, Vec<InstanceId>),
}

/// What came of one.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A listing that was begun at this time.
    Listed(Timestamp, Result<Vec<Listed>, CloudError>),
    /// A launch; the error is final.
    Launched(Launch, Result<Launched, Refusal>),
    /// A deletion; the error is final.
    Terminated(GroupId, Vec<InstanceId>, Result<(), Refusal>),
}

/// The calls of one keeper.
pub(super) struct Calls {
    cloud: Arc<dyn Cloud>,
    tasks: JoinSet<Outcome>,
    waiting: Vec<Call>,
    listing: bool,
}

impl Calls {
    pub(super) fn new(cloud: Arc<dyn Cloud>) -> Self {
        Self { cloud, tasks: JoinSet::new(), waiting: Vec::new(), listing: false }
    }

    /// Puts a launch down for [`Calls::begin`].
    pub(super) fn launch(&mut self, launch: Launch) {
        self.waiting.push(Call::Launch(launch));
    }

    /// The same for a deletion.
    pub(super) fn terminate(&mut self, group: GroupId, machines: Vec<InstanceId>) {
        if !machines.is_empty() {
            self.waiting.push(Call::Terminate(group, machines));
        }
    }

    /// Begins what was put down.
    pub(super) fn begin(&mut self) {
        for call in self.waiting.drain(..) {
            let cloud = self.cloud.clone();
            match call {
                Call::Launch(launch) => self.tasks.spawn(launch_patiently(cloud, launch)),
                Call::Terminate(group, machines) => self.tasks.spawn(terminate_patiently(cloud, group, machines)),
            };
        }
    }

    /// Begins a listing, unless one is under way.
    pub(super) fn list(&mut self, now: Timestamp) -> bool {
        if std::mem::replace(&mut self.listing, true) {
            return false;
        }
        let cloud = self.cloud.clone();
        self.tasks.spawn(async move { Outcome::Listed(now, cloud.list().await) });
        true
    }

    /// The next outcome; waits for ever while nothing is under way.
    pub(super) async fn next(&mut self) -> Outcome {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            // A bug of ours: the process ends with it, and the next one repeats what was under way.
            Some(Err(died)) => std::panic::resume_unwind(Box::new(format!("a cloud call died: {died}"))),
            Some(Ok(outcome)) => {
                if matches!(outcome, Outcome::Listed(..)) {
                    self.listing = false;
                }
                outcome
            }
        }
    }
}

async fn launch_patiently(cloud: Arc<dyn Cloud>, launch: Launch) -> Outcome {
    let give_up = Instant::now() + limits::LAUNCH;
    let mut wait = limits::RETRY;
    loop {
        match cloud.launch(&launch).await {
            Ok(launched) => return Outcome::Launched(launch, Ok(launched)),
            Err(CloudError::Refused(refusal)) => return Outcome::Launched(launch, Err(refusal)),
            Err(CloudError::Unknown(why)) if Instant::now() + wait > give_up => {
                let class = RefusalClass::Configuration;
                let refusal = Refusal { class, code: "no-answer".to_owned(), message: why };
                return Outcome::Launched(launch, Err(refusal));
            }
            Err(CloudError::Unknown(why)) => {
                tracing::warn!(group = %launch.group, token = launch.token, "launch unanswered, asking again: {why}");
            }
        }
        time::sleep(wait).await;
        wait = (wait * 2).min(limits::RETRY_MAX);
    }
}

/// A deletion that got no answer is repeated for as long as the process lives: CA was told that it is done.
async fn terminate_patiently(cloud: Arc<dyn Cloud>, group: GroupId, machines: Vec<InstanceId>) -> Outcome {
    let mut wait = limits::RETRY;
    loop {
        match cloud.terminate(&group, &machines).await {
            Ok(()) => return Outcome::Terminated(group, machines, Ok(())),
            Err(CloudError::Refused(refusal)) => return Outcome::Terminated(group, machines, Err(refusal)),
            Err(CloudError::Unknown(why)) => tracing::warn!(%group, "deletion unanswered, asking again: {why}"),
        }
        time::sleep(wait).await;
        wait = (wait * 2).min(limits::RETRY_MAX);
    }
}
