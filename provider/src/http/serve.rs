//! The listening side of HTTP: so many connections at once, and none of them for who does not ask or does not take its
//! answer. Without that a few idle clients keep Prometheus and the kubelet's probe out, or use up the files of the process.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::config::limits;

/// Serves until told to stop; what is under way then is answered first.
///
/// # Errors
/// None; the type is that of a task.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place?,
        };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of files, or a client that left at once: neither is a reason to end.
                    tracing::warn!("a connection could not be accepted: {error}");
                    time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, router, stop).await;
            drop(place);
        });
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    // The kernel cuts off who does not read: nothing above it notices.
    let _best_effort = SockRef::from(&stream).set_tcp_user_timeout(Some(limits::HTTP_UNTAKEN));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended early: {error}");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn clients_that_ask_nothing_or_take_nothing_do_not_keep_others_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "alive")).route("/long", get(async || "x".repeat(1 << 20)));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, router, CancellationToken::new()));
        let mut idle = Vec::new();
        for number in 0..limits::HTTP_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                stream.write_all("GET /long HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50).as_bytes()).await.unwrap();
            }
            idle.push(stream);
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("alive"), "{answer}");
    }
}
