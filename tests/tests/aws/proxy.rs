//! AWS's own addresses on loopback: a proxy that ends TLS under a name of its own authority, notes which host was meant,
//! and lets the faked account answer.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;

/// A running proxy. It has a runtime of its own, so that a test may block while it answers.
pub(crate) struct Proxy {
    address: SocketAddr,
    authority: PathBuf,
    hosts: Arc<Mutex<BTreeSet<String>>>,
    runtime: Option<Runtime>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Proxy {
    /// Passes what is meant for hosts of these names (`*` stands for one label) on to `account`.
    pub(crate) fn start(names: &[&str], account: &str, folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let authority = folder.join("authority.crt");
        std::fs::write(&authority, issuer.pem()).unwrap();
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = config.with_no_client_auth().with_single_cert(vec![made.der().clone()], key).unwrap();

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let hosts = Arc::default();
        let account = account.trim_start_matches("http://").to_owned();
        runtime.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), account, Arc::clone(&hosts)));
        Self { address, authority, hosts, runtime: Some(runtime) }
    }

    /// For `HTTPS_PROXY`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For `SSL_CERT_FILE`.
    pub(crate) fn authority(&self) -> String {
        self.authority.display().to_string()
    }

    /// Every host that was meant so far.
    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    account: String,
    hosts: Arc<Mutex<BTreeSet<String>>>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, account, hosts) = (tls.clone(), account.clone(), Arc::clone(&hosts));
        // Lives as long as the runtime of the proxy.
        tokio::runtime::Handle::current().spawn(async move {
            // A client that leaves is no failure.
            let _ended = pass(stream, &tls, &account, &hosts).await;
        });
    }
}

async fn pass(
    mut stream: TcpStream,
    tls: &TlsAcceptor,
    account: &str,
    hosts: &Mutex<BTreeSet<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let host = head.strip_prefix("CONNECT ").and_then(|rest| rest.split_once(":443 ")).map(|(host, _)| host);
    let Some(host) = host else { return stream.write_all(b"HTTP/1.1 405 -\r\n\r\n").await };
    hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
    stream.write_all(b"HTTP/1.1 200 -\r\n\r\n").await?;
    let mut inside = tls.accept(stream).await?;
    copy_bidirectional(&mut inside, &mut TcpStream::connect(account).await?).await.map(drop)
}
