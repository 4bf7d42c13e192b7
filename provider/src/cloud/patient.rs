//! Deadlines and patience around any cloud: a call that takes too long counts as unanswered, a throttled one is
//! repeated a few times. Repeating is safe, since every verb of [`Cloud`] is.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::Semaphore, time};

use crate::{
    cloud::{Cloud, CloudError, Kept, Launch, Launched, Listing, Look},
    config::limits,
    fleet::group::{GroupId, InstanceId, RefusalClass},
};

/// A cloud that is asked patiently.
pub struct Patient {
    inner: Arc<dyn Cloud>,
    /// How long one call may take.
    deadline: Duration,
    /// Calls at once; the rest wait their turn before their deadline starts to run.
    turns: Semaphore,
}

impl Patient {
    /// Wraps a cloud.
    #[must_use]
    pub fn new(inner: Arc<dyn Cloud>, deadline: Duration) -> Self {
        Self { inner, deadline, turns: Semaphore::new(limits::CLOUD_CALLS) }
    }

    async fn call<T, F>(&self, call: impl Fn() -> F) -> Result<T, CloudError>
    where
        F: Future<Output = Result<T, CloudError>>,
    {
        let mut wait = limits::RETRY;
        for left in (0..=limits::CLOUD_RETRIES).rev() {
            let turn = self.turns.acquire().await;
            let answer = time::timeout(self.deadline, call()).await;
            drop(turn);
            match answer {
                Ok(Err(CloudError::Refused(refusal))) if refusal.class == RefusalClass::Throttled && left > 0 => {
                    tracing::debug!(%left, code = refusal.code, "throttled by the cloud, asking again");
                }
                Ok(answer) => return answer,
                Err(_) => return Err(CloudError::Unknown(format!("nothing within {:?}", self.deadline))),
            }
            time::sleep(wait).await;
            wait = (wait * 2).min(limits::RETRY_MAX);
        }
        Err(CloudError::Unknown("throttled for too long".to_owned()))
    }
}

#[async_trait]
impl Cloud for Patient {
    async fn list(&self, look: Look) -> Result<Listing, CloudError> {
        self.call(|| self.inner.list(look)).await
    }

    async fn launch(&self, launch: &Launch) -> Result<Launched, CloudError> {
        self.call(|| self.inner.launch(launch)).await
    }

    async fn terminate(&self, group: &GroupId, instances: &[InstanceId]) -> Result<Vec<Kept>, CloudError> {
        self.call(|| self.inner.terminate(group, instances)).await
    }
}
