//! The one door through which every request to AWS leaves, of the SDK's clients and of ours: it knows the operation,
//! waits for its turn, counts and times it, slows down when AWS says so, and sends nothing that is not in the list.

mod answer;
mod bucket;
mod request;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aws_smithy_http_client::{Builder, ConnectorBuilder, proxy::ProxyConfig, tls};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use tokio::time::{self, Instant};

use super::calls::{CALLS, Call};
use crate::{config::limits, keeper::wall, metrics::Metrics, timestamp::Timestamp};
use bucket::Bucket;
use request::Asked;

/// The door. Cheap to clone; clones share what they have learned.
#[derive(Clone)]
pub(super) struct Manners {
    shared: Arc<Shared>,
}

struct Shared {
    metrics: Arc<Metrics>,
    /// One for each of [`CALLS`], in their order.
    buckets: Vec<Mutex<Bucket>>,
    started: Instant,
    /// How long a request waits for its turn.
    patience: Duration,
    /// How far AWS's clock is ahead of ours, in milliseconds; the least possible number until AWS has spoken.
    ahead: AtomicI64,
}

impl fmt::Debug for Manners {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Manners")
    }
}

impl Manners {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self::patient(metrics, limits::AWS_TURN)
    }

    fn patient(metrics: Arc<Metrics>, patience: Duration) -> Self {
        let buckets = CALLS.iter().map(|call| Mutex::new(Bucket::new(call.rate, 0))).collect();
        let ahead = AtomicI64::new(i64::MIN);
        Self { shared: Arc::new(Shared { metrics, buckets, started: Instant::now(), patience, ahead }) }
    }

    /// The HTTP client for `aws_config`: what it makes, the SDK's clients and ours all use. TLS and proxies are as in
    /// the SDK's own.
    pub(super) fn http_client(&self) -> SharedHttpClient {
        let inner = Builder::new().build_with_connector_fn(|settings, components| {
            let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
            let mut builder = ConnectorBuilder::default().tls_provider(provider);
            builder.set_connector_settings(settings.cloned());
            if let Some(components) = components {
                builder.set_sleep_impl(components.sleep_impl());
            }
            builder.set_proxy_config(Some(ProxyConfig::from_env()));
            builder.build()
        });
        SharedHttpClient::new(Door { manners: self.clone(), inner })
    }

    /// How far AWS's clock is ahead of ours, in milliseconds, by the last answer; None before one.
    pub(super) fn clock_ahead(&self) -> Option<i64> {
        Some(self.shared.ahead.load(Ordering::Relaxed)).filter(|ahead| *ahead != i64::MIN)
    }

    /// AWS's clock now; ours before AWS has told.
    pub(super) fn now(&self) -> Timestamp {
        let ahead = self.clock_ahead().unwrap_or(0);
        let by = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 {
            Timestamp(wall().0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(0)))
        } else {
            wall() + by
        }
    }

    /// Waits until this call may be made; false when its turn does not come in time.
    async fn turn(&self, call: &Call) -> bool {
        let begun = Instant::now();
        let passed = loop {
            match self.with_bucket(call, Bucket::take) {
                Ok(()) => break true,
                Err(wait) if begun.elapsed() + wait > self.shared.patience => break false,
                Err(wait) => time::sleep(wait).await,
            }
        };
        self.shared.metrics.aws_waited(call.action, begun.elapsed());
        passed
    }

    fn with_bucket<T>(&self, call: &Call, change: impl FnOnce(&mut Bucket, u64) -> T) -> T {
        let place = CALLS.iter().position(|it| it == call).unwrap_or_default();
        let now = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.shared.buckets.get(place) {
            Some(bucket) => change(&mut bucket.lock().unwrap_or_else(PoisonError::into_inner), now),
            None => change(&mut Bucket::new(call.rate, now), now),
        }
    }

    async fn send(self, request: HttpRequest, inner: SharedHttpConnector) -> Result<HttpResponse, ConnectorError> {
        let call = match request::asked(&request) {
            Asked::Credentials => return inner.call(request).await,
            Asked::Unlisted(what) => return Err(refused(format!("{what} is not in the list of calls, and not sent"))),
            Asked::Listed(call) => call,
        };
        if !self.turn(call).await {
            return Err(busy(format!("{}: its turn did not come within {:?}", call.action, self.shared.patience)));
        }
        let begun = Instant::now();
        let answer = inner.call(request).await;
        let (answer, outcome) = match answer {
            Ok(response) => {
                let (response, outcome) = answer::outcome(response).await;
                (Ok(response), outcome)
            }
            Err(error) => (Err(error), "unanswered"),
        };
        if let Some(date) = answer.as_ref().ok().and_then(answer::date) {
            self.heard(date);
        }
        if outcome == answer::THROTTLED {
            let pace = self.with_bucket(call, |bucket, now| {
                bucket.throttled(now);
                bucket.pace()
            });
            tracing::warn!(call = call.action, per_second = pace as f64 / 1000.0, "throttled by AWS, slowing down");
        }
        self.shared.metrics.aws_call((call.service.name(), call.action, outcome), begun.elapsed());
        answer
    }

    /// AWS's clock, in seconds since 1970. The header has whole seconds, so up to one is no difference.
    fn heard(&self, date: i64) {
        let here = i64::try_from(wall().0).unwrap_or(i64::MAX);
        let (low, high) = (date.saturating_mul(1000), date.saturating_mul(1000).saturating_add(999));
        let ahead = if here < low { low - here } else { high.min(here) - here };
        self.shared.ahead.store(ahead, Ordering::Relaxed);
        self.shared.metrics.aws_clock(Duration::from_millis(ahead.unsigned_abs()), ahead < 0);
    }
}

fn refused(why: String) -> ConnectorError {
    ConnectorError::user(why.into())
}

fn busy(why: String) -> ConnectorError {
    ConnectorError::timeout(why.into())
}

/// An HTTP client whose connectors pass through [`Manners`].
#[derive(Debug)]
struct Door {
    manners: Manners,
    inner: SharedHttpClient,
}

impl HttpClient for Door {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Through { manners: self.manners.clone(), inner })
    }
}

#[derive(Debug)]
struct Through {
    manners: Manners,
    inner: SharedHttpConnector,
}

impl HttpConnector for Through {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.manners.clone().send(request, self.inner.clone()))
    }
}

#[cfg(test)]
mod tests;
