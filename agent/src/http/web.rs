//! The web configuration in force: read at the start, and again when its file or a file that it names changes by content, so that a Secret's
//! swapped links count as the change they are. What is wrong leaves the old one in force.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;

use super::tls::{self, Pems};
use super::users::Users;
use crate::config::web::{self, RateLimit, TlsServerConfig, WebConfig};

/// Largest file read: a chain of certificates is a few KiB.
const FILE_MAX: u64 = 1 << 20;

/// What the server does with connections and requests, ready for use.
pub struct Web {
    /// TLS for new connections.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) users: Users,
    bucket: Option<Mutex<Bucket>>,
    /// Digest of everything that was read.
    stamp: Vec<u8>,
}

/// What the files say, before anything is made of it.
#[derive(Default)]
struct Said {
    config: WebConfig,
    pems: Option<Pems>,
    stamp: Vec<u8>,
}

impl Web {
    /// Reads the file and those that it names; without one, plain HTTP for everybody. An error says where, what and what to try.
    pub fn read(file: Option<&Path>) -> Result<Self, String> {
        Self::new(said(file)?)
    }

    /// Reads again; `None` when nothing has changed. TLS does not come or go while the agent runs, nor do the last users go: a slip in a file, or one that
    /// is read while it is being written, must not open a closed door.
    pub(crate) fn renewed(&self, file: Option<&Path>) -> Result<Option<Self>, String> {
        let said = said(file)?;
        if said.stamp == self.stamp {
            return Ok(None);
        }
        if said.pems.is_some() != self.tls.is_some() {
            return Err("tls_server_config came or went: that takes a restart".into());
        }
        if said.config.basic_auth_users.is_empty() && !self.users.is_empty() {
            return Err("basic_auth_users went: to let everybody in takes a restart".into());
        }
        Self::new(said).map(Some)
    }

    fn new(said: Said) -> Result<Self, String> {
        let Said { config, pems, stamp } = said;
        let http2 = config.http_server_config.http2;
        let tls = config.tls_server_config.zip(pems).map(|(tls, pems)| {
            let (config, warnings) = tls::server_config(&tls, &pems, http2)?;
            warnings.iter().for_each(|warning| tracing::warn!("--web-config-file: {warning}"));
            Ok::<_, String>(config)
        });
        let header = |(name, value): (&String, &String)| Some((name.parse().ok()?, value.parse().ok()?));
        Ok(Self {
            tls: tls.transpose()?,
            headers: config.http_server_config.headers.iter().filter_map(header).collect(),
            users: Users::new(config.basic_auth_users)?,
            bucket: Bucket::new(&config.rate_limit).map(Mutex::new),
            stamp,
        })
    }

    /// Whether a request may be answered now; `now` is monotonic.
    pub(super) fn has_room(&self, now: Duration) -> bool {
        self.bucket.as_ref().is_none_or(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now))
    }
}

impl std::fmt::Debug for Web {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Web").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

fn said(file: Option<&Path>) -> Result<Said, String> {
    let Some(file) = file else { return Ok(Said::default()) };
    let mut stamp = Context::new(&SHA256);
    let text = String::from_utf8(read(file, &mut stamp)?).map_err(|_| "the file is not UTF-8".to_owned())?;
    let config = web::parse(&text, file.parent().unwrap_or(Path::new(".")))?;
    let pems = config.tls_server_config.as_ref().map(|tls| pems(tls, &mut stamp)).transpose()?;
    Ok(Said { config, pems, stamp: stamp.finish().as_ref().to_vec() })
}

fn pems(tls: &TlsServerConfig, stamp: &mut Context) -> Result<Pems, String> {
    let mut text = |inline: Option<&String>, file: Option<&Path>| match (inline, file) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(file)) => read(file, stamp),
        (None, None) => Ok(Vec::new()),
    };
    let authority = tls.client_ca.is_some() || tls.client_ca_file.is_some();
    Ok(Pems {
        cert: text(tls.cert.as_ref(), tls.cert_file.as_deref())?,
        key: text(tls.key.as_ref().map(|key| &key.0), tls.key_file.as_deref())?,
        client_ca: authority.then(|| text(tls.client_ca.as_ref(), tls.client_ca_file.as_deref())).transpose()?,
    })
}

fn read(file: &Path, stamp: &mut Context) -> Result<Vec<u8>, String> {
    let bytes = crate::config::read(file, FILE_MAX).map_err(|error| format!("{}: {error}", file.display()))?;
    stamp.update(&bytes.len().to_le_bytes());
    stamp.update(&bytes);
    Ok(bytes)
}

/// A token bucket: one more request each interval, as many as `burst` saved up.
struct Bucket {
    interval: Duration,
    burst: f64,
    tokens: f64,
    last: Duration,
}

impl Bucket {
    fn new(limit: &RateLimit) -> Option<Self> {
        let burst = f64::from(limit.burst);
        let limited = limit.interval > Duration::ZERO;
        limited.then_some(Self { interval: limit.interval, burst, tokens: burst, last: Duration::ZERO })
    }

    fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.last).as_secs_f64() / self.interval.as_secs_f64();
        self.tokens = (self.tokens + earned).min(self.burst);
        self.last = now;
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_a_burst_and_then_at_the_rate() {
        let mut bucket = Bucket::new(&RateLimit { interval: Duration::from_secs(1), burst: 2 }).unwrap();
        let mut at = |milliseconds| bucket.take(Duration::from_millis(milliseconds));
        assert_eq!([at(0), at(1), at(2), at(900), at(1_100), at(1_200)], [true, true, false, false, true, false]);
        assert_eq!([at(60_000), at(60_000), at(60_000)], [true, true, false]);
        assert!(Bucket::new(&RateLimit::default()).is_none());
    }

    #[test]
    fn a_change_is_taken_over_and_a_mistake_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web.yaml");
        let headers = |value: &str| format!("http_server_config: {{headers: {{X-Frame-Options: {value}}}}}\n");
        std::fs::write(&file, headers("deny")).unwrap();
        let web = Web::read(Some(&file)).unwrap();
        assert!(web.renewed(Some(&file)).unwrap().is_none());
        std::fs::write(&file, headers("sameorigin")).unwrap();
        assert_eq!(web.renewed(Some(&file)).unwrap().unwrap().headers[0].1, "sameorigin");
        std::fs::write(&file, headers("perhaps")).unwrap();
        assert!(web.renewed(Some(&file)).unwrap_err().contains("perhaps"));
        let hash = bcrypt::hash_with_salt("open:sesame", 4, [7; 16]).unwrap();
        std::fs::write(&file, format!("basic_auth_users: {{alice: {hash}}}\n")).unwrap();
        let closed = web.renewed(Some(&file)).unwrap().unwrap();
        std::fs::write(&file, "").unwrap();
        assert!(closed.renewed(Some(&file)).unwrap_err().contains("basic_auth_users"), "half written opens no door");
        std::fs::remove_file(&file).unwrap();
        assert!(web.renewed(Some(&file)).unwrap_err().contains("web.yaml"));
    }
}
