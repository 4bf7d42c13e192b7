//! The process `AZRebalance` evens out the zones of a group, and ends machines for it that cluster-autoscaler never named.
//! Buying zone by zone gives it reason to. It is told, and suspended where the configuration allows that.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{AutoScaling, desired::Growth, errors};
use crate::{cloud::CloudError, fleet::group::GroupId};

const PROCESS: &str = "AZRebalance";

/// What was done about it.
pub(super) struct Rebalance {
    suspend: bool,
    /// Groups that were asked for, and what AWS had against it.
    asked: Mutex<HashMap<GroupId, Option<String>>>,
}

impl Rebalance {
    pub(super) fn new(suspend: bool) -> Self {
        Self { suspend, asked: Mutex::default() }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<GroupId, Option<String>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AutoScaling {
    /// Suspends the process where it is wanted and was not tried before; else says what a person should know.
    pub(super) async fn rebalance(&self, group: &GroupId, growth: &Growth) -> Option<String> {
        if growth.zones.len() < 2 || growth.suspended.contains(PROCESS) {
            return None;
        }
        if !self.rebalance.suspend {
            return Some(
                "its process AZRebalance may end machines that nobody named, to even out the zones: suspend it, or set cloud.suspendAzRebalance"
                    .to_owned(),
            );
        }
        let asked = self.rebalance.asked().get(group).cloned();
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
                self.rebalance.asked().insert(group.clone(), failed.clone());
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
