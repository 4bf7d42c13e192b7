//! The HTTP side: `/metrics`, `/usage`, `/healthz`, `/readyz` and a landing page, all answered from what the sampler published last.
//! A scrape copies bytes; it never makes a tick.

pub mod accept;
pub mod users;
pub mod web;

mod landing;
mod pages;
mod places;
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
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::places::{Place, Places};
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
    let mut places = Places::new(limits::CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
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
        let place = places.place();
        let handle = connections.spawn(connection(stream, views.clone(), Arc::clone(&place), stop.clone()));
        places.seat(place, handle);
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits::DRAIN, drained).await.is_err() {
        tracing::warn!("connections were still open after {:?} and are closed", limits::DRAIN);
    }
    Ok(())
}

/// A connection from its handshake to its end.
async fn connection(stream: TcpStream, views: Views, place: Arc<Place>, stop: CancellationToken) {
    // The kernel cuts off who does not read: nothing above it notices. Without this the connection works as well, only not as safely.
    let _best_effort = SockRef::from(&stream).set_tcp_user_timeout(Some(limits::UNTAKEN));
    let Some(tls) = views.live.web().tls.clone() else { return http1(stream, views, place, stop).await };
    match tokio::time::timeout(limits::HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => http2(stream, views, place, stop).await,
        Ok(Ok(stream)) => http1(stream, views, place, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_elapsed) => tracing::debug!("a TLS handshake was not finished within {:?}", limits::HANDSHAKE),
    }
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    views: Views,
    place: Arc<Place>,
    stop: CancellationToken,
) {
    let asked = Arc::clone(&place);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::SILENCE)
        .max_buf_size(limits::HEADER_BYTES.into())
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| answer(request, views.clone(), Arc::clone(&asked))),
        );
    until_stopped(connection, &place, limits::SILENCE, stop).await;
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    views: Views,
    place: Arc<Place>,
    stop: CancellationToken,
) {
    let asked = Arc::clone(&place);
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEADER_BYTES.into())
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| answer(request, views.clone(), Arc::clone(&asked))),
        );
    until_stopped(connection, &place, limits::SILENCE, stop).await;
}

/// Serves until the peer goes or asks nothing for too long; told to stop, what is under way is answered first.
async fn until_stopped(
    connection: impl GracefulConnection<Error = hyper::Error>,
    place: &Place,
    silence: Duration,
    stop: CancellationToken,
) {
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Ok(ended),
        () = async { tokio::select! { () = stop.cancelled() => (), () = place.silence(silence) => () } } => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits::UNTAKEN, connection).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(_elapsed) => tracing::debug!("an answer was not taken within {:?}", limits::UNTAKEN),
    }
}

async fn answer(request: Request<Incoming>, views: Views, place: Arc<Place>) -> Result<Answer, Infallible> {
    place.asks();
    let web = views.live.web();
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    // A probe costs nothing, and one that is refused ends the container: no flood may bring that about.
    let probe = authorization.is_none() && pages::is_probe(request.uri().path());
    let mut answer = if probe || web.has_room(views.clock.now()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;

    #[tokio::test]
    async fn an_http2_client_that_only_answers_pings_is_let_go() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let places = Places::new(1);
        let place = places.place();
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(
            TokioIo::new(ours),
            service_fn(|_request| async { Ok::<_, Infallible>(pages::text(StatusCode::OK, "ok\n")) }),
        );
        let served = until_stopped(served, &place, Duration::from_millis(100), CancellationToken::new());
        let client = async {
            let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(theirs)).await;
            // On a slow machine it may be let go before it is answered.
            let Ok((mut sender, connection)) = shaken else { return };
            let asks_once = async {
                let _answered = sender.send_request(Request::new(Empty::<Bytes>::new())).await;
                std::future::pending::<()>().await;
            };
            tokio::select! { _ended = connection => (), () = asks_once => () }
        };
        // Far longer than anything takes: what keeps its place for ever fails here.
        let both = async { tokio::join!(served, client) };
        tokio::time::timeout(Duration::from_mins(2), both).await.expect("the connection ends");
    }
}
