//! Counts and times every call of a cloud, by verb and outcome. Sits inside [`super::patient::Patient`], so that each
//! try is one call.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    cloud::{Cloud, CloudError, Kept, Launch, Launched, Listing, Look},
    fleet::group::{GroupId, InstanceId, RefusalClass},
    metrics::Metrics,
};

/// A cloud whose calls are counted.
pub struct Metered {
    inner: Arc<dyn Cloud>,
    metrics: Arc<Metrics>,
}

impl Metered {
    /// Wraps a cloud.
    #[must_use]
    pub fn new(inner: Arc<dyn Cloud>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn call<T>(&self, verb: &str, call: impl Future<Output = Result<T, CloudError>>) -> Result<T, CloudError> {
        let begun = Instant::now();
        let answer = call.await;
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(CloudError::Refused(refusal)) => class(refusal.class),
            Err(CloudError::Unknown(_)) => "unknown",
        };
        self.metrics.cloud_call(verb, outcome, begun.elapsed());
        answer
    }
}

/// The refusal class as a metric label.
#[must_use]
pub fn class(class: RefusalClass) -> &'static str {
    match class {
        RefusalClass::NoCapacity => "no-capacity",
        RefusalClass::Quota => "quota",
        RefusalClass::Configuration => "configuration",
        RefusalClass::Permission => "permission",
        RefusalClass::Throttled => "throttled",
    }
}

#[async_trait]
impl Cloud for Metered {
    async fn list(&self, look: Look) -> Result<Listing, CloudError> {
        self.call("list", self.inner.list(look)).await
    }

    async fn launch(&self, launch: &Launch) -> Result<Launched, CloudError> {
        self.call("launch", self.inner.launch(launch)).await
    }

    async fn terminate(&self, group: &GroupId, instances: &[InstanceId]) -> Result<Vec<Kept>, CloudError> {
        self.call("terminate", self.inner.terminate(group, instances)).await
    }
}
