//! HTTP for Prometheus, the kubelet and people: `/metrics`, `/healthz`, `/readyz`, `/decisions` and the page at `/`.
//! Everything is rendered from the snapshot; nothing here changes anything.

mod serve;
pub mod status;

use std::sync::{Arc, PoisonError};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use prometheus::TextEncoder;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Shared,
    decisions::{Decisions, MOST_DECISIONS},
    expander::Decision,
    keeper::clock,
    metrics::snapshot,
};

/// Serves until told to stop.
///
/// # Errors
/// Those of the listener.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    serve::serve(listener, router(shared), stop).await
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/decisions", get(decisions))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is / /metrics /healthz /readyz /decisions\n") })
        .with_state(shared)
}

fn look<T>(shared: &Shared, at: impl FnOnce(&Decisions) -> T) -> T {
    at(&shared.decisions.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let (snapshot, policy) = (shared.keeper.snapshot(), shared.policies.current().load_full());
    let counts = look(&shared, |decisions| decisions.counts().clone());
    let unlabelled = shared.unlabelled.counts(&snapshot.fleet);
    let mut text = snapshot::render(snapshot::View {
        snapshot: &snapshot,
        policy: &policy,
        counts: &counts,
        unlabelled: &unlabelled,
        now: clock(),
    });
    match TextEncoder::new().encode_utf8(&shared.metrics.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    match shared.ready.pending() {
        pending if pending.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
        pending => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", pending.join(", "))),
    }
}

#[derive(Deserialize)]
struct Most {
    limit: Option<usize>,
}

/// What `/decisions` answers.
#[derive(Serialize)]
struct Latest {
    /// The newest first, times in milliseconds since 1970.
    decisions: Vec<Arc<Decision>>,
}

async fn decisions(State(shared): State<Arc<Shared>>, Query(most): Query<Most>) -> Json<Latest> {
    let limit = most.limit.unwrap_or(MOST_DECISIONS);
    Json(Latest { decisions: look(&shared, |decisions| decisions.latest(limit)) })
}

async fn page(State(shared): State<Arc<Shared>>) -> Response {
    let decisions = look(&shared, |decisions| decisions.latest(status::MOST_SHOWN));
    let (snapshot, policy, pending) =
        (shared.keeper.snapshot(), shared.policies.current().load_full(), shared.ready.pending());
    let html = status::render(&status::View {
        snapshot: &snapshot,
        policy: &policy,
        decisions: &decisions,
        pending: &pending,
        unlabelled: &shared.unlabelled.counts(&snapshot.fleet),
        now: clock(),
    });
    // Everything is inline; nothing may be loaded from anywhere.
    let only_inline = (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
    ([only_inline, (header::CACHE_CONTROL, "no-store")], Html(html)).into_response()
}
