//! The process `AZRebalance` evens out the zones of a group, and ends machines for it that cluster-autoscaler never named.
//! Buying zone by zone gives it reason to. It is told, and suspended where the configuration allows that.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{AutoScaling, desired::Growth, errors, lately::Lately};
use crate::{cloud::CloudError, fleet::group::GroupId, timestamp::Timestamp};

const PROCESS: &str = "AZRebalance";
/// A group that is not suspended so long after it was asked for is asked for again: somebody resumed the process, or has
/// given the permission meanwhile.
const ASK_AGAIN: Duration = Duration::from_mins(10);

/// What was done about it.
pub(super) struct Rebalance {
    suspend: bool,
    /// What AWS had against it where it was asked for.
    asked: Mutex<Lately<Option<String>>>,
}

impl Rebalance {
    pub(super) fn new(suspend: bool) -> Self {
        Self { suspend, asked: Mutex::new(Lately::new(ASK_AGAIN)) }
    }

    fn asked(&self) -> MutexGuard<'_, Lately<Option<String>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AutoScaling {
    /// Suspends the process where it is wanted and was not tried lately; else says what a person should know.
    pub(super) async fn rebalance(&self, group: &GroupId, growth: &Growth, now: Timestamp) -> Option<String> {
        if growth.zones.len() < 2 || growth.suspended.contains(PROCESS) {
            return None;
        }
        if !self.rebalance.suspend {
            return Some(
                "its process AZRebalance may end machines that nobody named, to even out the zones: suspend it, or set cloud.suspendAzRebalance"
                    .to_owned(),
            );
        }
        let asked = self.rebalance.asked().word(group, now);
        let failed = match asked {
            Some(failed) => failed,
            None => {
                let answer = self.suspend_rebalance(group).await;
                // No answer is no answer: the next listing tries again.
                let failed = match answer {
                    Ok(()) => None,
                    Err(CloudError::Refused(refusal)) => Some(refusal.message),
                    Err(CloudError::Unknown(why)) => return Some(warning(&why)),
                };
                self.rebalance.asked().note(group, failed.clone(), now);
                failed
            }
        };
        failed.map(|why| warning(&why))
    }

    async fn suspend_rebalance(&self, group: &GroupId) -> Result<(), CloudError> {
        let request = self.client.suspend_processes().auto_scaling_group_name(group.as_str());
        let answer = request.scaling_processes(PROCESS).send().await;
        answer.map_err(|error| errors::failed("SuspendProcesses", &error))?;
        tracing::info!(%group, "suspended the process AZRebalance");
        Ok(())
    }
}

fn warning(why: &str) -> String {
    format!("its process AZRebalance may end machines that nobody named, and could not be suspended: {why}")
}
