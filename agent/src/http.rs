//! The HTTP side: `/metrics`, `/usage`, `/healthz`, `/readyz` and a landing page, all answered from what the sampler published last.
//! A scrape copies bytes; it never makes a tick.

pub mod accept;
pub mod users;
pub mod web;

mod landing;
mod pages;
mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::limits;
use crate::live::Live;
use crate::ready::Ready;
use crate::sampler::Latest;

type Answer = Response<Full<Bytes>>;

/// What the handlers read.
#[derive(Clone)]
pub struct Views {
    /// The sampler's latest.
    pub latest: Latest,
    /// What is pending.
    pub ready: Ready,
    /// For ages.
    pub clock: Clock,
    /// Settings, and who may read.
    pub live: Arc<Live>,
}

/// Serves until cancelled, then lets open requests finish.
pub async fn serve(listener: TcpListener, views: Views, stop: CancellationToken) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place?,
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

/// A connection from its handshake to its end.
async fn connection(stream: TcpStream, views: Views, stop: CancellationToken) {
    // The kernel cuts off who does not read: nothing above it notices. Without this the connection works as well, only not as safely.
    let _best_effort = SockRef::from(&stream).set_tcp_user_timeout(Some(limits::UNTAKEN));
    let Some(tls) = views.live.web().tls.clone() else { return http1(stream, views, stop).await };
    match tokio::time::timeout(limits::HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => http2(stream, views, stop).await,
        Ok(Ok(stream)) => http1(stream, views, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_elapsed) => tracing::debug!("a TLS handshake was not finished within {:?}", limits::HANDSHAKE),
    }
}

async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, views: Views, stop: CancellationToken) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADERS)
        .max_buf_size(limits::HEADER_BYTES.into())
        .serve_connection(TokioIo::new(stream), service_fn(|request| answer(request, views.clone())));
    until_stopped(connection, stop).await;
}

async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, views: Views, stop: CancellationToken) {
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::HEADERS)
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEADER_BYTES.into())
        .serve_connection(TokioIo::new(stream), service_fn(|request| answer(request, views.clone())));
    until_stopped(connection, stop).await;
}

/// Serves until the peer goes; told to stop, what is under way is answered first.
async fn until_stopped(connection: impl GracefulConnection<Error = hyper::Error>, stop: CancellationToken) {
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

async fn answer(request: Request<Incoming>, views: Views) -> Result<Answer, Infallible> {
    let web = views.live.web();
    let mut answer = if web.has_room(views.clock.now()) {
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let admitted = web.users.admit(authorization).await;
        pages::page(&request, &views, admitted)
    } else {
        pages::text(StatusCode::TOO_MANY_REQUESTS, "more requests than rate_limit allows\n")
    };
    for (name, value) in &web.headers {
        answer.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(answer)
}
