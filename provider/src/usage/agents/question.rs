//! One question to one agent: a connection, with TLS and a password where they are configured, `GET /usage`, and an answer
//! of bounded size within a deadline. Certificates and password are read again when their files change.

use std::{net::SocketAddr, path::Path, sync::Arc};

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
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time,
};
use tokio_rustls::TlsConnector;

use crate::config::{Address, Agents, Url, limits};

/// Where one agent is.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
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
    pub(super) fn at(name: &Address, at: SocketAddr, tls: bool) -> Self {
        Self { name: name.clone(), at: Some(at), tls }
    }
}

/// Why an agent was not heard.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no connection: {0}")]
    Connection(std::io::Error),
    #[error("its TLS is not accepted: {0}")]
    Tls(String),
    #[error("it does not speak HTTP as expected: {0}")]
    Http(hyper::Error),
    #[error("it answers with status {0}; are usage.agents.basicAuth and the agents' web configuration of one mind?")]
    Status(StatusCode),
    #[error("its answer was cut, or is longer than {} bytes", limits::AGENT_BODY)]
    Body,
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
            Self::Body => "body",
            Self::Unreadable(_) => "unreadable",
            Self::Silence => "timeout",
        }
    }
}

/// What every question is put with.
#[derive(Clone, Default)]
pub(super) struct Dial {
    tls: Option<(TlsConnector, Option<ServerName<'static>>)>,
    authorization: Option<HeaderValue>,
    /// What both were made of.
    files: Option<Vec<Vec<u8>>>,
}

impl Dial {
    /// Reads the files again. What is wrong leaves the old, and is told once.
    pub(super) async fn renew(&mut self, settings: &Agents) {
        match read(settings).await {
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
                self.files = Some(Vec::new());
            }
            // A file that is being replaced may be away for a moment.
            Err(_) => {}
        }
    }

    /// Asks for `/usage`.
    pub(super) async fn ask(&self, endpoint: &Endpoint) -> Result<Vec<u8>, Failure> {
        time::timeout(limits::AGENT_WAIT, self.answer(endpoint)).await.map_err(|_| Failure::Silence)?
    }

    async fn answer(&self, endpoint: &Endpoint) -> Result<Vec<u8>, Failure> {
        let Endpoint { name, at, tls } = endpoint;
        let connected = match at {
            Some(at) => TcpStream::connect(at).await,
            None => TcpStream::connect((&*name.host, name.port)).await,
        };
        let stream = connected.map_err(Failure::Connection)?;
        if !tls {
            return self.get(name, stream).await;
        }
        let (connector, known_as) = self.tls.as_ref().ok_or_else(|| Failure::Tls("it is not configured".to_owned()))?;
        let of_host = || ServerName::try_from(name.host.clone()).map_err(|error| Failure::Tls(error.to_string()));
        let known_as = known_as.clone().map_or_else(of_host, Ok)?;
        let stream = connector.connect(known_as, stream).await.map_err(|error| Failure::Tls(error.to_string()))?;
        self.get(name, stream).await
    }

    async fn get<S>(&self, name: &Address, stream: S) -> Result<Vec<u8>, Failure>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = Builder::new().max_buf_size(limits::AGENT_HEAD).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(Failure::Http)?;
        // Drives the connection, and ends with this question.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = hyper::Uri::from_static("/usage");
        if let Ok(host) = HeaderValue::try_from(name.to_string()) {
            request.headers_mut().insert(HOST, host);
        }
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answer = sender.send_request(request).await.map_err(Failure::Http)?;
        if answer.status() != StatusCode::OK {
            return Err(Failure::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), limits::AGENT_BODY).collect().await;
        body.map(|body| body.to_bytes().into()).map_err(|_too_long_or_cut| Failure::Body)
    }
}

/// The files that are named: ca, cert, key, password, as far as there are any.
async fn read(settings: &Agents) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for file in named(settings) {
        files.push(contents(file).await?);
    }
    Ok(files)
}

fn named(settings: &Agents) -> Vec<&Path> {
    let of_tls = settings.tls.iter().flat_map(|tls| [Some(&tls.ca), tls.cert.as_ref(), tls.key.as_ref()]).flatten();
    of_tls.chain(settings.basic_auth.iter().map(|auth| &auth.password_file)).map(|file| &**file).collect()
}

async fn contents(file: &Path) -> anyhow::Result<Vec<u8>> {
    let size = tokio::fs::metadata(file).await.map(|it| it.len());
    anyhow::ensure!(
        size.as_ref().is_ok_and(|size| *size <= limits::FILE) || size.is_err(),
        "{} is too large",
        file.display()
    );
    tokio::fs::read(file).await.with_context(|| format!("cannot read {}", file.display()))
}

/// What those files come to.
fn dial(settings: &Agents, files: &[Vec<u8>]) -> anyhow::Result<Dial> {
    let mut rest = files.iter();
    let mut next = || rest.next().map(Vec::as_slice).unwrap_or_default();
    let tls = match &settings.tls {
        None => None,
        Some(tls) => {
            let ca = next();
            let own = (tls.cert.is_some() && tls.key.is_some()).then(|| (next(), next()));
            let name = tls.server_name.clone().map(ServerName::try_from).transpose().context("tls.serverName")?;
            Some((TlsConnector::from(Arc::new(client_config(ca, own)?)), name))
        }
    };
    let authorization = settings.basic_auth.as_ref().map(|auth| {
        let password = next();
        let password = password.strip_suffix(b"\n").unwrap_or(password);
        let password = password.strip_suffix(b"\r").unwrap_or(password);
        let pair = BASE64_STANDARD.encode([auth.username.as_bytes(), b":", password].concat());
        let mut value = HeaderValue::try_from(format!("Basic {pair}"))?;
        value.set_sensitive(true);
        anyhow::Ok(value)
    });
    Ok(Dial { tls, authorization: authorization.transpose()?, files: None })
}

fn client_config(ca: &[u8], own: Option<(&[u8], &[u8])>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in certs(ca).context("tls.ca")? {
        roots.add(root).context("tls.ca")?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
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

fn certs(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certs = certs.map_err(|error| anyhow::anyhow!("no PEM certificate: {error}"))?;
    anyhow::ensure!(!certs.is_empty(), "no PEM certificate in the file");
    Ok(certs)
}
