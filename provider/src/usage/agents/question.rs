//! One question to one agent, or to a running provider: a connection, with TLS and a password where they are configured, a
//! `GET`, and an answer of bounded size within a deadline. Certificates and password are read again when their files change.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::Builder,
    header::{AUTHORIZATION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time,
};
use tokio_rustls::TlsConnector;

use crate::{
    config::{self, Address, Agents, Url, limits},
    grpc::tls::{certs, roots},
};

/// Where one agent is.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// What it is called, in the Host header and in its certificate.
    name: Address,
    /// Where it is, if that is known already.
    at: Option<SocketAddr>,
    tls: bool,
}

impl Endpoint {
    /// One that is configured.
    pub(super) fn of(url: &Url) -> Self {
        Self { name: url.address.clone(), at: None, tls: url.tls }
    }

    /// One of a name's addresses.
    pub(crate) fn at(name: &Address, at: SocketAddr, tls: bool) -> Self {
        Self { name: name.clone(), at: Some(at), tls }
    }
}

/// Why an agent was not heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no connection: {0}")]
    Connection(std::io::Error),
    #[error("its TLS is not accepted: {0}")]
    Tls(String),
    #[error("it does not speak HTTP as expected: {0}")]
    Http(hyper::Error),
    #[error("it answers with status {0}; are usage.agents.basicAuth and the agents' web configuration of one mind?")]
    Status(StatusCode),
    #[error("its answer was cut, or is longer than {0} bytes")]
    Body(usize),
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
    #[error("no whole answer within {:?}", limits::AGENT_WAIT)]
    Silence,
}

impl Failure {
    /// As in the metric.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Connection(_) => "connection",
            Self::Tls(_) => "tls",
            Self::Http(_) => "http",
            Self::Status(_) => "status",
            Self::Body(_) => "body",
            Self::Unreadable(_) => "unreadable",
            Self::Silence => "timeout",
        }
    }
}

/// What every question is put with.
#[derive(Clone, Default)]
pub(crate) struct Dial {
    tls: Option<(TlsConnector, Option<ServerName<'static>>)>,
    authorization: Option<HeaderValue>,
    /// What both were made of.
    files: Option<Files>,
}

/// What the files hold that are configured.
#[derive(Clone, Default, PartialEq, Eq)]
struct Files {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
}

impl Dial {
    /// Reads the files again. What is wrong leaves the old, and is told once.
    pub(super) async fn renew(&mut self, settings: &Agents) {
        match Files::read(settings).await {
            Ok(files) if self.files.as_ref() == Some(&files) => {}
            Ok(files) => {
                match dial(settings, &files) {
                    Ok(dial) => *self = dial,
                    Err(error) => tracing::error!("usage.agents: {error:#}"),
                }
                // Remembered even if wrong: it is complained of once and not in every round.
                self.files = Some(files);
            }
            Err(error) if self.files.is_none() => {
                tracing::error!("usage.agents: {error:#}");
                self.files = Some(Files::default());
            }
            // A file that is being replaced may be away for a moment.
            Err(_) => {}
        }
    }

    /// Asks an agent for `/usage`.
    pub(super) async fn usage(&self, endpoint: &Endpoint) -> Result<Vec<u8>, Failure> {
        self.get(endpoint, "/usage", limits::AGENT_BODY).await
    }

    /// Asks for a page of `most` bytes.
    pub(crate) async fn get(&self, endpoint: &Endpoint, path: &'static str, most: usize) -> Result<Vec<u8>, Failure> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = hyper::Uri::from_static(path);
        if let Ok(host) = HeaderValue::try_from(endpoint.name.to_string()) {
            request.headers_mut().insert(HOST, host);
        }
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answer = self.answer(endpoint, request, most);
        time::timeout(limits::AGENT_WAIT, answer).await.map_err(|_| Failure::Silence)?
    }

    async fn answer(&self, endpoint: &Endpoint, request: Asked, most: usize) -> Result<Vec<u8>, Failure> {
        let Endpoint { name, at, tls } = endpoint;
        let connected = match at {
            Some(at) => TcpStream::connect(at).await,
            None => TcpStream::connect((&*name.host, name.port)).await,
        };
        let stream = connected.map_err(Failure::Connection)?;
        if !tls {
            return exchange(stream, request, most).await;
        }
        let (connector, known_as) = self.tls.as_ref().ok_or_else(|| Failure::Tls("it is not configured".to_owned()))?;
        let of_host = || ServerName::try_from(name.host.clone()).map_err(|error| Failure::Tls(error.to_string()));
        let known_as = known_as.clone().map_or_else(of_host, Ok)?;
        let stream = connector.connect(known_as, stream).await.map_err(|error| Failure::Tls(error.to_string()))?;
        exchange(stream, request, most).await
    }
}

type Asked = Request<Empty<Bytes>>;

async fn exchange<S>(stream: S, request: Asked, most: usize) -> Result<Vec<u8>, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = Builder::new().max_buf_size(limits::AGENT_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Failure::Http)?;
    // Drives the connection, and ends with this question.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = sender.send_request(request).await.map_err(Failure::Http)?;
    if answer.status() != StatusCode::OK {
        return Err(Failure::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), most).collect().await;
    body.map(|body| body.to_bytes().into()).map_err(|_too_long_or_cut| Failure::Body(most))
}

impl Files {
    async fn read(settings: &Agents) -> anyhow::Result<Self> {
        let (tls, auth) = (settings.tls.as_ref(), settings.basic_auth.as_ref());
        Ok(Self {
            ca: contents(tls.map(|tls| &tls.ca)).await?,
            cert: contents(tls.and_then(|tls| tls.cert.as_ref())).await?,
            key: contents(tls.and_then(|tls| tls.key.as_ref())).await?,
            password: contents(auth.map(|auth| &auth.password_file)).await?,
        })
    }
}

async fn contents(file: Option<&PathBuf>) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(file) = file.cloned() else { return Ok(None) };
    let read = move || config::read(&file).with_context(|| format!("cannot read {}", file.display()));
    tokio::task::spawn_blocking(read).await?.map(Some)
}

/// What those files come to.
fn dial(settings: &Agents, files: &Files) -> anyhow::Result<Dial> {
    let mut dial = Dial::default();
    if let (Some(tls), Some(ca)) = (&settings.tls, &files.ca) {
        let name = tls.server_name.clone().map(ServerName::try_from).transpose().context("tls.serverName")?;
        let config = client_config(ca, files.cert.as_deref().zip(files.key.as_deref()))?;
        dial.tls = Some((TlsConnector::from(Arc::new(config)), name));
    }
    if let (Some(auth), Some(password)) = (&settings.basic_auth, &files.password) {
        let password = password.strip_suffix(b"\n").unwrap_or(password);
        let password = password.strip_suffix(b"\r").unwrap_or(password);
        let pair = BASE64_STANDARD.encode([auth.username.as_bytes(), b":", password].concat());
        let mut value = HeaderValue::try_from(format!("Basic {pair}"))?;
        value.set_sensitive(true);
        dial.authorization = Some(value);
    }
    Ok(dial)
}

fn client_config(ca: &[u8], own: Option<(&[u8], &[u8])>) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots(ca).context("tls.ca")?);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| anyhow::anyhow!("tls.key: {error}"))?;
            builder.with_client_auth_cert(certs(cert).context("tls.cert")?, key)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
