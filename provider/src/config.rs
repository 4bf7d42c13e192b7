//! What an operator writes, and what it means: YAML in camelCase, unknown keys refused. Every default stands here,
//! and every limit in [`limits`].

mod check;
mod cloud;
pub mod limits;
mod place;
mod priorities;
mod usage;

use std::{
    collections::BTreeMap, fmt, fs, io, io::Read as _, net::SocketAddr, path::Path, path::PathBuf, time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    expander::{Filter, bought},
    fleet::{
        group::{
            GroupSettings,
            seconds::{self, required},
        },
        offering::Backoff,
    },
};

pub use check::Problem;
pub(crate) use check::said;
pub use cloud::{Cloud, CloudKind, LaunchMode, NamedGroup};
pub use priorities::Priorities;
pub use usage::{Address, Agents, BasicAuth, ClientTls, Url, Usage};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Where it was read from; relative paths are relative to its folder.
    #[serde(skip)]
    pub file: PathBuf,
    /// The cloud whose groups are scaled.
    pub cloud: Cloud,
    /// The cloud provider's listener.
    #[serde(default)]
    pub provider: Provider,
    /// The expander's listener and policy.
    #[serde(default)]
    pub expander: Expander,
    /// The listener for metrics, health and the page.
    #[serde(default)]
    pub http: Http,
    /// The node label whose value is the GPU model; the cloud's own by default.
    #[serde(default)]
    pub gpu_label: Option<String>,
    /// How often the cloud is listed; by default as its kind bears.
    #[serde(default, with = "seconds")]
    pub refresh: Option<Duration>,
    /// Where the ledger and the purchase memory are kept over a restart; in memory alone by default.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// How long the same demand is not bought twice.
    #[serde(default)]
    pub purchase_memory: bought::Limits,
    /// How long refusals are remembered.
    #[serde(default)]
    pub offerings: Backoff,
    /// What becomes of machines that never register.
    #[serde(default)]
    pub unregistered: Unregistered,
    /// Who tells what happens on the nodes.
    #[serde(default)]
    pub usage: Usage,
    /// What single groups say differently, by id.
    #[serde(default)]
    pub groups: BTreeMap<String, GroupSettings>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port; 0 lets the kernel choose.
    Tcp(SocketAddr),
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(serde::de::Error::custom(format!(
                "\"{text}\": a unix socket needs an absolute path, unix:///run/x.sock"
            ))),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                serde::de::Error::custom(format!("\"{text}\" is no address; write unix:///run/x.sock or 0.0.0.0:8086"))
            }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix://{}", path.display()),
            Self::Tcp(address) => address.fmt(out),
        }
    }
}

/// The cloud provider's listener. Whoever may talk to it can delete nodes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Provider {
    /// A unix socket by default.
    pub listen: Listen,
    /// Needed on TCP.
    pub tls: Option<MutualTls>,
    /// Plaintext TCP without any credential: for tests on a loopback address.
    pub insecure: bool,
}

impl Default for Provider {
    fn default() -> Self {
        Self { listen: Listen::Unix("/run/windlass/provider.sock".into()), tls: None, insecure: false }
    }
}

/// A server certificate, and whose clients are let in. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MutualTls {
    /// PEM, the chain with the server's own first.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// PEM: clients must show a certificate of one of these.
    pub client_ca: PathBuf,
}

/// A server certificate. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServerTls {
    /// PEM, the chain with the server's own first.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// A certificate made at start, for want of a configured one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SelfSigned {
    /// Where CA finds what to trust (`--grpc-expander-cert`); written before the port listens.
    pub ca_file: PathBuf,
    /// The names CA may use in `--grpc-expander-url`.
    pub names: Vec<String>,
}

impl Default for SelfSigned {
    fn default() -> Self {
        Self {
            ca_file: "/run/windlass/expander-ca.crt".into(),
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        }
    }
}

/// The expander.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Expander {
    /// TCP; CA insists on TLS here.
    pub listen: SocketAddr,
    /// A certificate of the operator's.
    pub tls: Option<ServerTls>,
    /// Used when there is none.
    pub self_signed: SelfSigned,
    /// The row of filters, in order.
    pub filters: Vec<Filter>,
    /// The operator's order of groups; spot first by default.
    pub priorities: Option<Priorities>,
}

impl Default for Expander {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8087)),
            tls: None,
            self_signed: SelfSigned::default(),
            filters: Filter::ALL.to_vec(),
            priorities: None,
        }
    }
}

/// The listener for metrics, health and the page.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Http {
    /// TCP.
    pub listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 8085)) }
    }
}

/// What becomes of machines that never register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Unregistered {
    /// A machine we launched that CA has not seen as a Node for this long, while CA was calling, is ended: CA itself
    /// forgets some of them.
    #[serde(with = "required")]
    pub reap_after: Duration,
}

impl Default for Unregistered {
    fn default() -> Self {
        Self { reap_after: Duration::from_secs(20 * 60) }
    }
}

/// What a file of the operator's holds; one of more than [`limits::FILE`] bytes is none.
pub(crate) fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = fs::File::open(file)?.take(limits::FILE + 1).read_to_end(&mut bytes)?;
    if length as u64 > limits::FILE {
        return Err(io::Error::other(format!("it has more than {} bytes", limits::FILE)));
    }
    Ok(bytes)
}

/// The same as text.
pub(crate) fn read_text(file: &Path) -> io::Result<String> {
    String::from_utf8(read(file)?).map_err(io::Error::other)
}

impl Config {
    /// How often the cloud is listed. AWS is asked as seldom as the in-tree provider asks it; what changes there by our
    /// own doing is read at once.
    #[must_use]
    pub fn refresh(&self) -> Duration {
        self.refresh.unwrap_or(match self.cloud.kind {
            CloudKind::Aws => Duration::from_mins(1),
            CloudKind::Sim => Duration::from_secs(10),
        })
    }

    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with file, line, key and remedy.
    pub fn load(file: &Path) -> Result<Self, Vec<Problem>> {
        Self::parse(&read_text(file).map_err(|error| vec![check::away(&error, file)])?, file)
    }

    /// The same for text that stands for the file.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, Vec<Problem>> {
        let mut config: Self =
            serde_saphyr::from_str(text).map_err(|error| vec![check::unreadable(&error, text, file)])?;
        file.clone_into(&mut config.file);
        config.settle_paths();
        let problems = check::problems(&config, text);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Relative paths start at the file's folder, so that `check` and the program agree wherever they are started.
    fn settle_paths(&mut self) {
        let folder = self.file.parent().unwrap_or(Path::new("")).to_owned();
        let mut settle = |path: &mut PathBuf| *path = folder.join(&path);
        self.state.iter_mut().chain(&mut self.cloud.scenario).chain(&mut self.cloud.state).for_each(&mut settle);
        self.cloud.price_overrides.iter_mut().for_each(&mut settle);
        settle(&mut self.expander.self_signed.ca_file);
        if let Some(tls) = &mut self.provider.tls {
            [&mut tls.cert, &mut tls.key, &mut tls.client_ca].into_iter().for_each(&mut settle);
        }
        if let Some(tls) = &mut self.expander.tls {
            [&mut tls.cert, &mut tls.key].into_iter().for_each(&mut settle);
        }
        if let Some(Priorities::File(file)) = &mut self.expander.priorities {
            settle(file);
        }
        self.usage.files().into_iter().for_each(&mut settle);
    }
}

#[cfg(test)]
mod tests;
