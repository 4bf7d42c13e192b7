//! The HTTP side: `/metrics`, `/usage`, `/healthz`, `/readyz` and a landing page, all answered from what the sampler published last.
//! A scrape copies bytes; it never makes a tick.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, limits};
use crate::exposition;
use crate::ready::Ready;
use crate::sampler::{Latest, Published};

type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";

/// What the handlers read.
#[derive(Clone)]
pub struct Views {
    /// The sampler's latest.
    pub latest: Latest,
    /// What is pending.
    pub ready: Ready,
    /// For ages.
    pub clock: Clock,
    /// For limits and the landing page.
    pub config: Arc<Config>,
}

/// Serves until cancelled, then lets open requests finish.
pub async fn serve(listener: TcpListener, views: Views, stop: CancellationToken) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place?,
            Some(_ended) = connections.join_next() => continue,
        };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    // Out of file descriptors, or a client that left at once: neither is a reason to end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (views, stop) = (views.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, views, stop).await;
            drop(place);
        });
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits::DRAIN, drained).await.is_err() {
        tracing::warn!("connections were still open after {:?} and are closed", limits::DRAIN);
    }
    Ok(())
}

async fn connection(stream: tokio::net::TcpStream, views: Views, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &views);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADERS)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn answer<B>(request: &Request<B>, views: &Views) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => metrics(request, views),
        "/usage" => usage(views),
        "/healthz" => health(views),
        "/readyz" => match views.ready.check() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(pending) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{pending}")),
        },
        "/" => landing(views),
        path => text(StatusCode::NOT_FOUND, format!("no {path} here; see /\n")),
    }
}

/// The last page, unless it is too old to be stored as new.
fn fresh(views: &Views) -> Result<Arc<Published>, Box<Answer>> {
    let refuse = |reason: String| Box::new(text(StatusCode::SERVICE_UNAVAILABLE, reason));
    let Some(published) = views.latest.load_full() else {
        return Err(refuse("nothing has been read yet; try again in a second\n".into()));
    };
    let age = views.clock.now().saturating_sub(published.at);
    too_old(age, views.config.sample_interval).map_or(Ok(published), |reason| Err(refuse(reason)))
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
    let accepts = request.headers().get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let compressed = accepts
        .filter(|accepts| accepts_gzip(accepts))
        .map(|_| published.compressed.get_or_init(|| gzip(&published.page)));
    let mut page = Response::new(Full::new(compressed.unwrap_or(&published.page).clone()));
    let headers = page.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if compressed.is_some() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    page
}

/// `gzip` named and not refused with `q=0`.
fn accepts_gzip(accepts: &str) -> bool {
    accepts.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts
            .any(|parameter| parameter.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0)));
        named && !refused
    })
}

/// The fastest level: the page is small, and time at the node is worth more than bytes on its network.
fn gzip(page: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(page.len() / 8), Compression::fast());
    // Writing to memory does not fail.
    let _written = encoder.write_all(page);
    encoder.finish().unwrap_or_default().into()
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
    let out_of_reach = latest.as_ref().and_then(|published| published.out_of_reach);
    let out_of_reach = out_of_reach.map(|since| now.saturating_sub(since));
    let age = now.saturating_sub(latest.as_ref().map_or(Duration::ZERO, |published| published.at));
    match sick(age, views.config.sample_interval, out_of_reach) {
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
        None => text(StatusCode::OK, "ok\n"),
    }
}

/// Why the container should be restarted.
fn sick(age: Duration, sample_interval: Duration, out_of_reach: Option<Duration>) -> Option<String> {
    if age > limits::STUCK + sample_interval {
        return Some(format!("no tick has ended for {age:.0?}\n"));
    }
    let since = out_of_reach.filter(|since| *since > limits::OUT_OF_REACH)?;
    Some(format!(
        "the GPUs have been out of reach for {since:.0?}; a restart may give the container its devices back\n"
    ))
}

fn landing(views: &Views) -> Answer {
    let state = match views.ready.check() {
        Ok(()) => "ready".to_owned(),
        Err(pending) => format!("not ready: {pending}"),
    };
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>windlass-agent</title>\
         <h1>windlass-agent {}</h1><p>Node {}: {}</p><ul>\
         <li><a href=\"/metrics\">/metrics</a> for Prometheus</li>\
         <li><a href=\"/usage\">/usage</a> recent use per GPU, as JSON</li>\
         <li><a href=\"/readyz\">/readyz</a> what is pending</li>\
         <li><a href=\"/healthz\">/healthz</a> whether the agent turns</li></ul>\n",
        env!("CARGO_PKG_VERSION"),
        escape(&views.config.node_name),
        escape(&state)
    );
    respond(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, TEXT, body)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_want_it() {
        for (accepts, expect) in [
            ("gzip", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("GZIP", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
            ("xgzip", false),
        ] {
            assert_eq!(accepts_gzip(accepts), expect, "{accepts}");
        }
    }

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
            (1, 1, Some(299), false, false),
            (1, 1, Some(301), false, true),
        ] {
            let found = (
                too_old(seconds(age), seconds(interval)).is_some(),
                sick(seconds(age), seconds(interval), out_of_reach.map(seconds)).is_some(),
            );
            assert_eq!(found, (refused, restarted), "{age} s old at {interval} s, out of reach for {out_of_reach:?}");
        }
    }
}
