//! TLS for both doors: certificates from files that are read again when they change, or one made at start. A handshake
//! happens beside the others and within a deadline.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::config::{self, MutualTls, SelfSigned, ServerTls};

/// What a door shows and demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl From<&MutualTls> for Files {
    fn from(tls: &MutualTls) -> Self {
        Self { cert: tls.cert.clone(), key: tls.key.clone(), client_ca: Some(tls.client_ca.clone()) }
    }
}

impl From<&ServerTls> for Files {
    fn from(tls: &ServerTls) -> Self {
        Self { cert: tls.cert.clone(), key: tls.key.clone(), client_ca: None }
    }
}

/// The text of the files, compared to see whether they changed.
#[derive(Clone, PartialEq, Eq)]
struct Pems {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What new connections are accepted with.
pub(crate) struct Tls {
    current: ArcSwap<ServerConfig>,
    from: Option<(Files, Pems)>,
}

impl Tls {
    /// From files.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should.
    pub(crate) fn from_files(files: Files) -> anyhow::Result<Self> {
        let pems = Pems::read(&files)?;
        let current = server_config(&pems).with_context(|| format!("in {} or its neighbours", files.cert.display()))?;
        Ok(Self { current: ArcSwap::from_pointee(current), from: Some((files, pems)) })
    }

    /// A certificate for these names, written where CA is told to look. It is made once and kept with its key beside it:
    /// CA reads what it trusts only when it starts, so a provider that came back with another one would be heard no more.
    ///
    /// # Errors
    /// A name that is none, or a file that cannot be written.
    pub(crate) fn self_signed(wanted: &SelfSigned) -> anyhow::Result<Self> {
        let key_file = wanted.ca_file.with_extension("key");
        let names = format!("for {}\n", wanted.names.join(" "));
        if let Some(current) = kept(&wanted.ca_file, &key_file, &names) {
            return Ok(Self { current: ArcSwap::from_pointee(current), from: None });
        }
        let made = rcgen::generate_simple_self_signed(wanted.names.clone())
            .context("making a certificate for expander.selfSigned.names")?;
        let cert = made.cert.pem().into_bytes();
        // The first line is no part of the key; it tells for which names the pair was made.
        let key = format!("{names}{}", made.signing_key.serialize_pem()).into_bytes();
        let current = server_config(&Pems { cert: cert.clone(), key: key.clone(), client_ca: None })?;
        write(&key_file, &key, PRIVATE)?;
        write(&wanted.ca_file, &cert, PUBLIC)?;
        Ok(Self { current: ArcSwap::from_pointee(current), from: None })
    }

    /// Reads the files again; true when new connections get another certificate now. What is wrong leaves the old one.
    ///
    /// # Errors
    /// As for [`Tls::from_files`].
    pub(crate) fn renew(&mut self) -> anyhow::Result<bool> {
        let Some((files, known)) = &mut self.from else { return Ok(false) };
        let pems = Pems::read(files)?;
        if pems == *known {
            return Ok(false);
        }
        // Remembered even if wrong: it is complained of once and not on every look.
        *known = pems;
        self.current.store(Arc::new(server_config(known)?));
        Ok(true)
    }

    fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

/// The pair of an earlier start, if it is whole and for the same names.
fn kept(cert: &Path, key: &Path, names: &str) -> Option<ServerConfig> {
    let pems = Pems { cert: std::fs::read(cert).ok()?, key: std::fs::read(key).ok()?, client_ca: None };
    pems.key.starts_with(names.as_bytes()).then(|| server_config(&pems).ok())?
}

/// Readable for its owner alone.
const PRIVATE: u32 = 0o600;
/// Readable for whoever is to trust it.
const PUBLIC: u32 = 0o644;

fn write(file: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let replace = || {
        file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let beside = file.with_added_extension("new");
        let mut new = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&beside)?;
        new.write_all(bytes)?;
        std::fs::rename(&beside, file)
    };
    replace().with_context(|| format!("cannot write {}; check expander.selfSigned.caFile", file.display()))
}

impl Pems {
    fn read(files: &Files) -> anyhow::Result<Self> {
        let read = |file: &Path| config::read(file).with_context(|| format!("cannot read {}", file.display()));
        Ok(Self {
            cert: read(&files.cert)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

fn server_config(pems: &Pems) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &pems.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let roots = roots(pem).context("reading the client CA")?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certs(&pems.cert).context("reading the certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&pems.key).map_err(|error| anyhow::anyhow!("reading the key: {error}"))?;
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Whose certificates are to be trusted.
pub(crate) fn roots(pem: &[u8]) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    certs(pem)?.into_iter().try_for_each(|root| roots.add(root))?;
    Ok(roots)
}

pub(crate) fn certs(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow::anyhow!("no PEM certificate: {error}"))?;
    anyhow::ensure!(!certs.is_empty(), "no PEM certificate in the file");
    Ok(certs)
}

/// Connections that have shaken hands. `task` drives the handshakes and the renewal; it ends with `stop`.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: Tls,
    stop: CancellationToken,
) -> (ReceiverStream<std::io::Result<TlsStream<TcpStream>>>, impl Future<Output = anyhow::Result<()>>) {
    let (ready, incoming) = mpsc::channel(1);
    (ReceiverStream::new(incoming), accept(listener, tls, ready, stop))
}

async fn accept(
    listener: TcpListener,
    mut tls: Tls,
    ready: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut handshakes = JoinSet::new();
    let mut look = time::interval(config::limits::FILE_POLL);
    loop {
        let room = handshakes.len() < config::limits::HANDSHAKES;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _)) => {
                    let shake = TlsAcceptor::from(tls.current()).accept(stream);
                    handshakes.spawn(time::timeout(config::limits::HANDSHAKE, shake));
                }
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    time::sleep(config::limits::RETRY).await;
                }
            },
            Some(shaken) = handshakes.join_next() => match shaken {
                Ok(Ok(Ok(stream))) => _ = ready.send(Ok(stream)).await,
                Ok(Ok(Err(error))) => tracing::warn!("a TLS handshake failed: {error}"),
                Ok(Err(_)) | Err(_) => tracing::warn!("a TLS handshake was not finished in time"),
            },
            _ = look.tick() => match tls.renew() {
                Ok(true) => tracing::info!("new connections get the new certificate"),
                Ok(false) => {}
                Err(error) => tracing::error!("the certificate changed and is wrong, the old one stands: {error:#}"),
            },
        }
    }
}
