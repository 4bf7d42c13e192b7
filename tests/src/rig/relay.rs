//! Stands between the autoscaler and the provider: passes every call on as bytes, writes it down, and breaks what a
//! scenario wants broken.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{self, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, UnixStream},
    task::JoinSet,
    time::Instant,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Bytes, Service, http},
    server::NamedService,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig, Uri},
};

use super::journal::Journal;

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

/// Where the calls go.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// A unix socket, without TLS.
    Unix(PathBuf),
    /// `localhost:<port>` with TLS; the trust roots are read from the file when the first call is made.
    Tls(u16, PathBuf),
}

/// A certificate for `localhost` that signs itself.
#[derive(Clone, Debug)]
pub struct Certified {
    /// PEM; also the trust root.
    pub certificate: String,
    /// PEM.
    pub key: String,
}

impl Certified {
    /// Makes one.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).context("making a certificate")?;
        Ok(Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }
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

/// Serves one gRPC service on a loopback port and passes its calls on.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it breaks.
    pub faults: Faults,
}

impl Relay {
    /// Listens, with TLS when given a certificate; the serving task joins `tasks`.
    ///
    /// # Errors
    /// When no port is free or the certificate is not usable.
    pub async fn start<N: NamedService + Clone + Send + Sync + 'static>(
        service: N,
        upstream: Upstream,
        tls: Option<&Certified>,
        journal: Arc<Journal>,
        tasks: &mut JoinSet<Result<()>>,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listening for the autoscaler")?;
        let address = listener.local_addr().context("reading the relay's address")?;
        let faults = Faults::default();
        let passing = Passing { _service: service, upstream, channel: Arc::default(), faults: faults.clone(), journal };
        let mut server = Server::builder();
        if let Some(tls) = tls {
            let identity = Identity::from_pem(&tls.certificate, &tls.key);
            server = server.tls_config(ServerTlsConfig::new().identity(identity)).context("the relay's certificate")?;
        }
        let serving = server.add_service(passing).serve_with_incoming(TcpListenerStream::new(listener));
        tasks.spawn(async move { serving.await.context("the relay stopped serving") });
        Ok(Self { address, faults })
    }
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
    upstream: Upstream,
    channel: Arc<tokio::sync::Mutex<Option<Channel>>>,
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
        let channel = self.channel().await.map_err(|error| unavailable(&error))?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        grpc.ready().await.map_err(|error| unavailable(&error))?;
        let path = http::uri::PathAndQuery::try_from(path).map_err(|error| unavailable(&error))?;
        grpc.unary(Request::new(request), path, Raw).await.map(Response::into_inner)
    }

    /// One channel for all calls; it reconnects by itself when the provider comes back.
    async fn channel(&self) -> Result<Channel> {
        let mut kept = self.channel.lock().await;
        if let Some(channel) = &*kept {
            return Ok(channel.clone());
        }
        let channel = match &self.upstream {
            Upstream::Unix(path) => unix_channel(path.clone())?,
            Upstream::Tls(port, roots) => {
                let roots = std::fs::read(roots).with_context(|| format!("reading {}", roots.display()))?;
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)).domain_name("localhost");
                let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?.tls_config(tls)?;
                endpoint.connect_lazy()
            }
        };
        Ok(kept.insert(channel).clone())
    }
}

/// A channel over a unix socket that connects when it is first used, and again when it must.
///
/// # Errors
/// Never in practice: the placeholder address is a constant.
pub fn unix_channel(path: PathBuf) -> Result<Channel> {
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Ok(Endpoint::try_from("http://localhost")?.connect_with_connector_lazy(connector))
}

/// Messages as the bytes they are.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(out, item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, length)))
    }
}
