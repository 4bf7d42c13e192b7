//! Stands between the autoscaler and the provider: passes every call on as bytes, writes it down, and breaks what a
//! scenario wants broken.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{self, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
    time::Instant,
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    client::Grpc,
    codegen::{Bytes, Service, http},
    server::NamedService,
    transport::{Channel, Identity, Server, ServerTlsConfig},
};

use super::{certificates::Certified, journal::Journal};
use crate::raw::Raw;

/// Largest message that is passed on.
const MESSAGE_LIMIT: usize = 128 << 20;

/// What is done to the calls of one method instead of passing them on.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answer this code.
    Fail(Code),
    /// Answer these bytes.
    Answer(Bytes),
    /// Pass on, but answer only after this long.
    Slow(Duration),
}

/// The faults of one relay, shared with the scenario.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<(String, Fault)>>>);

impl Faults {
    /// From now on every call of `method` meets `fault`; a second one for the same method replaces the first.
    pub fn set(&self, method: &str, fault: Fault) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|(faulty, _)| faulty != method);
        faults.push((method.to_owned(), fault));
    }

    /// Calls of every method are passed on again.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn of(&self, method: &str) -> Option<Fault> {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().find(|(faulty, _)| faulty == method).map(|(_, fault)| fault.clone())
    }
}

/// Serves the cloud provider's calls on a unix socket, as our manifests do, and passes them on; the serving task joins
/// `tasks`. Answers what can be broken.
///
/// # Errors
/// When the socket cannot be had.
pub fn before_provider(
    socket: &Path,
    upstream: Channel,
    journal: Arc<Journal>,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<Faults> {
    let listener = UnixListener::bind(socket).context("listening for the autoscaler")?;
    let faults = Faults::default();
    let passing = Passing { _service: CloudProvider, upstream, faults: faults.clone(), journal };
    let serving = Server::builder().add_service(passing).serve_with_incoming(UnixListenerStream::new(listener));
    tasks.spawn(async move { serving.await.context("the relay before the provider stopped") });
    Ok(faults)
}

/// Serves the expander's call on a loopback port with TLS and passes it on; the serving task joins `tasks`. Answers the
/// address and what can be broken.
///
/// # Errors
/// When no port is free or the certificate is not usable.
pub async fn before_expander(
    certified: &Certified,
    upstream: Channel,
    journal: Arc<Journal>,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<(SocketAddr, Faults)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listening for the autoscaler")?;
    let address = listener.local_addr().context("reading the relay's address")?;
    let faults = Faults::default();
    let passing = Passing { _service: Expander, upstream, faults: faults.clone(), journal };
    let identity = Identity::from_pem(&certified.certificate, &certified.key);
    let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
    let server = server.context("the relay's certificate")?.add_service(passing);
    let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
    tasks.spawn(async move { serving.await.context("the relay before the expander stopped") });
    Ok((address, faults))
}

/// Names the service that a relay stands for.
macro_rules! service {
    ($(#[$doc:meta])* $name:ident, $path:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl NamedService for $name {
            const NAME: &'static str = $path;
        }
    };
}

service!(
    /// The cloud provider's calls.
    CloudProvider,
    "clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider"
);
service!(
    /// The expander's one call.
    Expander,
    "grpcplugin.Expander"
);

/// The service behind a relay.
#[derive(Clone, Debug)]
struct Passing<N> {
    _service: N,
    upstream: Channel,
    faults: Faults,
    journal: Arc<Journal>,
}

impl<N: NamedService> NamedService for Passing<N> {
    const NAME: &'static str = N::NAME;
}

impl<N: Clone + Send + Sync + 'static> Service<http::Request<Body>> for Passing<N> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let passing = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw).apply_max_message_size_config(Some(MESSAGE_LIMIT), None);
            let pass = tower::service_fn(move |request: Request<Bytes>| {
                let (path, passing) = (path.clone(), passing.clone());
                async move { passing.pass(&path, request.into_inner()).await.map(Response::new) }
            });
            Ok(grpc.unary(pass, request).await)
        })
    }
}

impl<N: Clone> Passing<N> {
    /// One call, from its journal entry to its faults.
    async fn pass(&self, path: &str, request: Bytes) -> Result<Bytes, Status> {
        let begun = Instant::now();
        let method = path.rsplit('/').next().unwrap_or_default();
        let answer = match self.faults.of(method) {
            Some(Fault::Fail(code)) => Err(Status::new(code, "as the scenario wants")),
            Some(Fault::Answer(bytes)) => Ok(bytes),
            Some(Fault::Slow(delay)) => {
                tokio::time::sleep(delay).await;
                self.forward(path, request.clone()).await
            }
            None => self.forward(path, request.clone()).await,
        };
        let noted = answer.as_ref().cloned().map_err(Status::code);
        self.journal.rpc(method, request, noted, begun.elapsed());
        answer
    }

    async fn forward(&self, path: &str, request: Bytes) -> Result<Bytes, Status> {
        let unavailable = |error: &dyn std::fmt::Debug| Status::unavailable(format!("{error:?}"));
        let mut grpc = Grpc::new(self.upstream.clone()).max_decoding_message_size(MESSAGE_LIMIT);
        grpc.ready().await.map_err(|error| unavailable(&error))?;
        let path = http::uri::PathAndQuery::try_from(path).map_err(|error| unavailable(&error))?;
        grpc.unary(Request::new(request), path, Raw).await.map(Response::into_inner)
    }
}
