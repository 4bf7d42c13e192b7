//! Who connects in a long run: a scraper each second, in each form; and clients that leave early, send half of something or nothing, never read,
//! or show what is no certificate of ours.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use windlass_tests::certificates::Pair;
use windlass_tests::scrape::{Page, Scraper};

use super::node::Node;
use super::push;

const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that their clients leave open.
const LEFT_OPEN: usize = 30;

/// What came of all visits.
#[derive(Default)]
pub(crate) struct Visits {
    pub(crate) pages: u64,
    /// Answered with 503: no fresh page.
    pub(crate) stale: u64,
    pub(crate) broken: u64,
    pub(crate) strangers: u64,
    pub(crate) why: Option<String>,
}

/// An agent's address, with who stands before it.
pub(crate) struct Door {
    address: SocketAddr,
    tls: bool,
    kept: Option<Scraper>,
    client: Option<(u64, Arc<ClientConfig>)>,
    lingering: VecDeque<TcpStream>,
    /// Of the last page.
    pub(crate) series: usize,
    pub(crate) visits: Visits,
}

impl Door {
    pub(crate) fn new(address: SocketAddr, tls: bool) -> Self {
        let (kept, client, lingering, visits) = (None, None, VecDeque::new(), Visits::default());
        Self { address, tls, kept, client, lingering, series: 0, visits }
    }

    /// Everybody's visit in this second.
    pub(crate) fn second(&mut self, second: u64, node: &Node) {
        match self.scrape(second, node) {
            Ok(Some(series)) => {
                self.visits.pages += 1;
                self.series = series;
            }
            Ok(None) => self.visits.stale += 1,
            Err(error) => {
                self.kept = None;
                // Before the agent listens, and right after a renewed certificate that it has not read yet.
                self.visits.broken += 1;
                self.visits.why = Some(format!("second {second}: {error:#}"));
            }
        }
        self.strangers(second);
    }

    /// Series of the page; nothing when the agent says that it has none that is fresh.
    fn scrape(&mut self, second: u64, node: &Node) -> anyhow::Result<Option<usize>> {
        let encoding = ["Accept-Encoding: gzip", "Accept-Encoding: identity"][second as usize % 2];
        let (status, text) = if self.tls {
            let client = self.client(node)?;
            let answer = ask(self.address, &client)?;
            let status = answer.split(' ').nth(1).unwrap_or_default().parse().context("a status")?;
            (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
        } else {
            if self.kept.is_none() || second.is_multiple_of(13) {
                self.kept = Some(Scraper::connect(self.address)?);
            }
            let scraper = self.kept.as_mut().context("a connection")?;
            scraper.get("/usage", &[])?;
            let open = "Accept: application/openmetrics-text;version=1.0.0";
            scraper.get("/metrics", &[open, encoding])?;
            let answer = scraper.get("/metrics", &[encoding])?;
            (answer.status, answer.text()?)
        };
        if status == 503 {
            return Ok(None);
        }
        ensure!(status == 200, "status {status}");
        let page = Page::parse(&text)?;
        ensure!(page.value("windlass_agent_ticks_total", &[]).is_some(), "a page without the agent's own word");
        Ok(Some(page.series.len()))
    }

    /// The client that trusts the authority of now.
    fn client(&mut self, node: &Node) -> anyhow::Result<Arc<ClientConfig>> {
        let (authority, pair, renewed) = node.trust();
        if let Some((of, client)) = &self.client
            && (*of == renewed || ask(self.address, client).is_ok())
        {
            return Ok(Arc::clone(client));
        }
        let made = client(authority, Some(pair).filter(|_| renewed.is_multiple_of(2)))?;
        self.client = Some((renewed, Arc::clone(&made)));
        Ok(made)
    }

    fn strangers(&mut self, second: u64) {
        let greedy = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(60);
        let long = format!("GET /metrics HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000));
        let words: [&[u8]; 6] = [
            b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nHost:",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half a greeting",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            greedy.as_bytes(),
            long.as_bytes(),
        ];
        for (word, place) in words.into_iter().zip(0_u64..) {
            let Ok(mut stream) = TcpStream::connect_timeout(&self.address, PATIENCE) else { continue };
            // What the agent does with it is its own affair.
            let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(word));
            self.visits.strangers += 1;
            if (second + place).is_multiple_of(5) {
                push(&mut self.lingering, stream, LEFT_OPEN);
            }
        }
    }
}

fn client(authority: &Path, shown: Option<&Pair>) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    Ok(Arc::new(match shown {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_file(&pair.certificate)?];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&pair.key)?)?
        }
    }))
}

/// The whole answer over one TLS connection.
fn ask(address: SocketAddr, client: &Arc<ClientConfig>) -> anyhow::Result<String> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = ClientConnection::new(Arc::clone(client), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(connection, stream);
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
