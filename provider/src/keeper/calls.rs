//! Cloud calls under way: owned by the keeper, begun only after what they rest on is written down. A call whose fate
//! is unknown is repeated, a launch always under the same token.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::{Cloud, CloudError, Kept, Launch, Launched, Listing, Look},
    config::limits,
    fleet::group::{GroupId, InstanceId, Refusal, RefusalClass},
    timestamp::Timestamp,
};

/// A call to make.
#[derive(Debug)]
enum Call {
    Launch(Launch, Try),
    Terminate(GroupId, Vec<InstanceId>),
}

/// How often and since when something has been tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    /// None before the first try.
    since: Option<Instant>,
    /// Before the next one.
    wait: Duration,
}

/// What came of one.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A listing that was begun at this time.
    Listed(Timestamp, Result<Listing, CloudError>),
    /// A launch; the error is final.
    Launched(Launch, Result<Launched, Refusal>),
    /// A launch that got no answer: it may have taken effect.
    Unanswered(Launch, Try, String),
    /// A deletion: the machines that stay, or why all do.
    Terminated(GroupId, Vec<InstanceId>, Result<Vec<Kept>, Refusal>),
    /// A deletion that was stopped before it was answered, for the sake of one of the machines.
    Stopped(GroupId, Vec<InstanceId>),
}

/// The calls of one keeper.
pub(super) struct Calls {
    cloud: Arc<dyn Cloud>,
    tasks: JoinSet<Outcome>,
    waiting: Vec<Call>,
    /// What stops the deletion of a machine.
    ending: BTreeMap<InstanceId, CancellationToken>,
    listing: bool,
}

impl Calls {
    pub(super) fn new(cloud: Arc<dyn Cloud>) -> Self {
        Self { cloud, tasks: JoinSet::new(), waiting: Vec::new(), ending: BTreeMap::new(), listing: false }
    }

    /// Puts a launch down for [`Calls::begin`].
    pub(super) fn launch(&mut self, launch: Launch) {
        self.waiting.push(Call::Launch(launch, Try { since: None, wait: Duration::ZERO }));
    }

    /// The same for a launch that got no answer; false when it has been tried for too long.
    pub(super) fn launch_again(&mut self, launch: Launch, tried: Try) -> bool {
        let wait = (tried.wait * 2).clamp(limits::RETRY, limits::RETRY_MAX);
        let goes_on = tried.since.is_none_or(|since| since.elapsed() + wait <= limits::LAUNCH);
        if goes_on {
            self.waiting.push(Call::Launch(launch, Try { wait, ..tried }));
        }
        goes_on
    }

    /// The same for a deletion.
    pub(super) fn terminate(&mut self, group: GroupId, machines: Vec<InstanceId>) {
        if !machines.is_empty() {
            self.waiting.push(Call::Terminate(group, machines));
        }
    }

    /// Stops a deletion that has no answer yet.
    pub(super) fn stop_ending(&mut self, machine: &str) {
        if let Some(stop) = self.ending.remove(machine) {
            stop.cancel();
        }
    }

    /// Begins what was put down.
    pub(super) fn begin(&mut self) {
        for call in self.waiting.drain(..) {
            let cloud = self.cloud.clone();
            match call {
                Call::Launch(launch, tried) => self.tasks.spawn(launch_once(cloud, launch, tried)),
                Call::Terminate(group, machines) => {
                    let stop = CancellationToken::new();
                    self.ending.extend(machines.iter().map(|machine| (machine.clone(), stop.clone())));
                    self.tasks.spawn(async move {
                        let ended = terminate_patiently(cloud, group.clone(), machines.clone());
                        stop.run_until_cancelled(ended).await.unwrap_or(Outcome::Stopped(group, machines))
                    })
                }
            };
        }
    }

    /// Begins a listing, unless one is under way.
    pub(super) fn list(&mut self, look: Look) -> bool {
        if std::mem::replace(&mut self.listing, true) {
            return false;
        }
        let cloud = self.cloud.clone();
        self.tasks.spawn(async move { Outcome::Listed(look.now, cloud.list(look).await) });
        true
    }

    /// The next outcome; waits for ever while nothing is under way.
    pub(super) async fn next(&mut self) -> Outcome {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            // A bug of ours: the process ends with it, and the next one repeats what was under way.
            Some(Err(died)) => std::panic::resume_unwind(Box::new(format!("a cloud call died: {died}"))),
            Some(Ok(outcome)) => {
                match &outcome {
                    Outcome::Listed(..) => self.listing = false,
                    Outcome::Terminated(_, machines, _) => self.ending.retain(|id, _| !machines.contains(id)),
                    _ => {}
                }
                outcome
            }
        }
    }
}

async fn launch_once(cloud: Arc<dyn Cloud>, launch: Launch, tried: Try) -> Outcome {
    let since = tried.since.unwrap_or_else(Instant::now);
    time::sleep(tried.wait).await;
    match cloud.launch(&launch).await {
        Ok(launched) => Outcome::Launched(launch, Ok(launched)),
        Err(CloudError::Refused(refusal)) => Outcome::Launched(launch, Err(refusal)),
        Err(CloudError::Unknown(why)) => Outcome::Unanswered(launch, Try { since: Some(since), ..tried }, why),
    }
}

/// A deletion that got no answer, or is to come more slowly, is repeated for as long as the process lives: CA was told
/// that it is done, and a part of it may be.
async fn terminate_patiently(cloud: Arc<dyn Cloud>, group: GroupId, machines: Vec<InstanceId>) -> Outcome {
    let mut wait = limits::RETRY;
    loop {
        match cloud.terminate(&group, &machines).await {
            Ok(kept) => return Outcome::Terminated(group, machines, Ok(kept)),
            Err(CloudError::Refused(refusal)) if refusal.class != RefusalClass::Throttled => {
                return Outcome::Terminated(group, machines, Err(refusal));
            }
            Err(why) => tracing::warn!(%group, "a deletion is not through, asking again: {why}"),
        }
        time::sleep(wait).await;
        wait = (wait * 2).min(limits::RETRY_MAX);
    }
}
