//! What each path answers, from what the sampler published last. Nothing here waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};

use super::{Answer, Views, accept, landing};
use crate::config::limits;
use crate::sampler::Published;

const TEXT: &str = "text/plain; charset=utf-8";

/// The answer to a request. Who is not admitted learns from `/healthz` and `/readyz` only whether all is well, as a kubelet's probe needs to.
pub(super) fn page<B>(request: &Request<B>, views: &Views, admitted: bool) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let path = request.uri().path();
    if !admitted {
        return refused(match path {
            "/healthz" | "/health" => health(views).status(),
            "/readyz" => ready(views).status(),
            _ => StatusCode::UNAUTHORIZED,
        });
    }
    match path {
        "/metrics" => metrics(request, views),
        "/usage" => usage(views),
        // The second is dcgm-exporter's.
        "/healthz" | "/health" => health(views),
        "/readyz" => ready(views),
        "/" => respond(StatusCode::OK, "text/html; charset=utf-8", landing::page(views)),
        path => text(StatusCode::NOT_FOUND, format!("no {path} here; see /\n")),
    }
}

/// Whether this is what a kubelet asks, to decide on the life of the container.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/health" | "/readyz")
}

/// No more than a status.
fn refused(status: StatusCode) -> Answer {
    let word = match status {
        StatusCode::OK => "ok\n",
        StatusCode::UNAUTHORIZED => "Unauthorized\n",
        _ => "not ok; sign in to read why\n",
    };
    let mut answer = text(status, word);
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"windlass-agent\""));
    }
    answer
}

fn ready(views: &Views) -> Answer {
    match views.ready.check() {
        Ok(()) => text(StatusCode::OK, "ready\n"),
        Err(pending) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{pending}")),
    }
}

/// The last page, unless it is too old to be stored as new.
fn fresh(views: &Views) -> Result<Arc<Published>, Box<Answer>> {
    let refuse = |reason: String| Box::new(text(StatusCode::SERVICE_UNAVAILABLE, reason));
    let Some(published) = views.latest.load_full() else {
        return Err(refuse("nothing has been read yet; try again in a second\n".into()));
    };
    let age = views.clock.now().saturating_sub(published.at);
    too_old(age, views.live.config().sample_interval).map_or(Ok(published), |reason| Err(refuse(reason)))
}

/// Why a page of this age is refused.
fn too_old(age: Duration, sample_interval: Duration) -> Option<String> {
    let limit = (sample_interval * limits::STALE_TICKS).max(limits::STALE_MIN);
    let reason = format!("the last reading is {age:.1?} old, over the limit of {limit:?}; see /readyz and the log\n");
    (age > limit).then_some(reason)
}

fn metrics<B>(request: &Request<B>, views: &Views) -> Answer {
    let published = match fresh(views) {
        Ok(published) => published,
        Err(refusal) => return *refusal,
    };
    // A list may come as several lines.
    let lines = |name| request.headers().get_all(name).iter().filter_map(|line| line.to_str().ok());
    let says = |name| lines(name).collect::<Vec<_>>().join(",");
    let (format, compressed) = (accept::format(&says(ACCEPT)), accept::gzip(&says(ACCEPT_ENCODING)));
    let mut page = respond(StatusCode::OK, format.content_type(), published.page.get(format, compressed).clone());
    page.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if compressed {
        page.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    page
}

fn usage(views: &Views) -> Answer {
    let published = match fresh(views) {
        Ok(published) => published,
        Err(refusal) => return *refusal,
    };
    match serde_json::to_vec_pretty(&published.usage) {
        Ok(json) => respond(StatusCode::OK, "application/json", json),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("usage could not be written: {error}\n")),
    }
}

/// Alive while the loop turns: a restart mends a stuck loop and lost access to the devices, not a missing driver.
fn health(views: &Views) -> Answer {
    let (now, latest) = (views.clock.now(), views.latest.load());
    let out_of_reach = latest.as_ref().and_then(|published| published.out_of_reach.as_deref());
    let age = now.saturating_sub(latest.as_ref().map_or(Duration::ZERO, |published| published.at));
    match sick(age, views.live.config().sample_interval, out_of_reach) {
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
        None => text(StatusCode::OK, "ok\n"),
    }
}

/// Why the container should be restarted.
fn sick(age: Duration, sample_interval: Duration, out_of_reach: Option<&str>) -> Option<String> {
    if age > limits::STUCK + sample_interval {
        return Some(format!("no tick has ended for {age:.0?}\n"));
    }
    out_of_reach.map(|reason| format!("{reason}\n"))
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, TEXT, body)
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_page_is_refused_and_a_stuck_agent_restarted() {
        let seconds = Duration::from_secs;
        for (age, interval, out_of_reach, refused, restarted) in [
            (1, 1, None, false, false),
            (10, 1, None, false, false),
            (11, 1, None, true, false),
            (11, 5, None, false, false),
            (16, 5, None, true, false),
            (62, 1, None, true, true),
            (62, 60, None, false, false),
            (1, 1, Some("the GPUs are out of reach"), false, true),
        ] {
            let found = (
                too_old(seconds(age), seconds(interval)).is_some(),
                sick(seconds(age), seconds(interval), out_of_reach).is_some(),
            );
            assert_eq!(found, (refused, restarted), "{age} s old at {interval} s, out of reach for {out_of_reach:?}");
        }
    }
}
