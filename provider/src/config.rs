//! What an operator writes, and what it means: YAML in camelCase, unknown keys refused. Every default and every limit
//! of the program stands here.

mod check;
mod cloud;
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

/// Every limit of the program that is not a key of the configuration.
pub mod limits {
    use std::time::Duration;

    /// Biggest message taken or sent. A BestOptions request of CA's scalability goal (30,000 pods, 200 groups) has tens
    /// of MiB, and CA itself limits only what it receives (128 MiB).
    pub const MESSAGE: usize = 256 << 20;
    /// Requests at once on one connection; CA sends a handful.
    pub const STREAMS: u32 = 256;
    /// After this long a connection is asked to come again (GOAWAY), so that a moved server is found.
    pub const CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
    /// What is under way on such a connection, or at shutdown, may take this long.
    pub const DRAIN: Duration = Duration::from_secs(10);
    /// A client that does not finish its TLS handshake in this time is dropped.
    pub const HANDSHAKE: Duration = Duration::from_secs(10);
    /// TLS handshakes at once.
    pub const HANDSHAKES: usize = 64;
    /// A request that waits for the keeper longer than this is answered with an error and without effect; CA itself
    /// gives up after five seconds.
    pub const COMMAND: Duration = Duration::from_secs(4);
    /// Requests waiting for the keeper.
    pub const COMMANDS: usize = 4096;
    /// Machines of one group that were asked for and have not come: each is an entry of the ledger and, where it was
    /// refused, some 500 bytes of an answer of which CA reads no more than 4 MiB.
    pub const ON_THE_WAY: u32 = 5000;
    /// One cloud call.
    pub const CLOUD_CALL: Duration = Duration::from_secs(60);
    /// How often a throttled cloud call is repeated.
    pub const CLOUD_RETRIES: u32 = 5;
    /// Cloud calls at once.
    pub const CLOUD_CALLS: usize = 32;
    /// The first wait before a cloud call is repeated; it doubles.
    pub const RETRY: Duration = Duration::from_millis(500);
    /// Longest wait before a cloud call is repeated.
    pub const RETRY_MAX: Duration = Duration::from_secs(30);
    /// A launch whose fate stays unknown is shown as refused after this long.
    pub const LAUNCH: Duration = Duration::from_secs(300);
    /// A machine that was ended and is listed as alive for this long is ended once more.
    pub const END_AGAIN: Duration = Duration::from_secs(60);
    /// The state file must be written within this time, or the answer goes out without.
    pub const STATE_WRITE: Duration = Duration::from_secs(2);
    /// Listings in a row that may claim that all groups are gone before it is believed.
    pub const EMPTY_LISTINGS: u32 = 3;
    /// When CA has not called for this long it does not count as calling.
    pub const CALLER_GONE: Duration = Duration::from_secs(60);
    /// HTTP connections at once; further ones wait in the kernel's queue.
    pub const HTTP_CONNECTIONS: usize = 64;
    /// How long a client may take to send the head of its request, and how long an idle connection is kept.
    pub const HTTP_HEAD: Duration = Duration::from_secs(10);
    /// How long a client may leave its answer untaken.
    pub const HTTP_UNTAKEN: Duration = Duration::from_secs(10);
    /// How often files (configuration, priorities, certificates) are looked at.
    pub const FILE_POLL: Duration = Duration::from_secs(2);
    /// Biggest such file.
    pub const FILE: u64 = 4 << 20;
    /// Until AWS is connected.
    pub const AWS_CONNECT: Duration = Duration::from_secs(4);
    /// One attempt of a call to AWS: longer than a long poll of SQS takes.
    pub const AWS_ATTEMPT: Duration = Duration::from_secs(25);
    /// Such a call with its attempts; shorter than [`CLOUD_CALL`], so that its own words are heard.
    pub const AWS_CALL: Duration = Duration::from_secs(50);
    /// The two for a command that a person waits for.
    pub const AWS_GLANCE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(15));
    /// CA's Refresh waits this long for what becomes of launches and orders, no longer.
    pub const LOOP_WAIT: Duration = Duration::from_secs(1);
    /// However often Refresh comes, such orders are not read more often than this.
    pub const ORDERS_AGAIN: Duration = Duration::from_secs(3);
    /// A request to AWS waits this long for its turn, no longer.
    pub const AWS_TURN: Duration = Duration::from_secs(20);
    /// A listing waits this long for spot prices, no longer.
    pub const SPOT_PRICES: Duration = Duration::from_secs(8);
    /// Until EC2 is connected.
    pub const EC2_CONNECT: Duration = Duration::from_secs(4);
    /// One attempt of a call to EC2.
    pub const EC2_ATTEMPT: Duration = Duration::from_secs(12);
    /// Such a call with its attempts.
    pub const EC2_CALL: Duration = Duration::from_secs(40);
    /// Pages of one answer of AWS: EC2 has some 1,400 instance types, a hundred to a page.
    pub const AWS_PAGES: u32 = 64;
    /// Pages of scaling activities of all groups together; when there are more, each group is asked for alone.
    pub const ACTIVITY_PAGES: u32 = 3;
    /// How long the first listing waits for launch templates, node groups and instance types.
    pub const TEMPLATES: Duration = Duration::from_secs(10);
    /// How long a later one does.
    pub const TEMPLATES_LATER: Duration = Duration::from_secs(1);
    /// Such calls at once.
    pub const TEMPLATE_CALLS: usize = 8;
    /// Agents that are asked; what a name has more of is left out, and said.
    pub const AGENTS: usize = 10_000;
    /// Agents asked at once.
    pub const AGENT_QUESTIONS: usize = 64;
    /// One question to an agent, from the connection to the last byte.
    pub const AGENT_WAIT: Duration = Duration::from_secs(3);
    /// Longest answer of an agent: eight GPUs in 56 MIG instances with 200 containers have less than 200 kB.
    pub const AGENT_BODY: usize = 1 << 20;
    /// Longest head of such an answer; hyper's least.
    pub const AGENT_HEAD: usize = 8 << 10;
    /// Notices of one agent that are read.
    pub const AGENT_NOTICES: usize = 64;
    /// The agents' name is looked up within this time, or the addresses known stand.
    pub const AGENT_LOOKUP: Duration = Duration::from_secs(5);
    /// An agent that has been silent for this long is forgotten, and its address may speak for another machine.
    pub const AGENT_FORGOTTEN: Duration = Duration::from_secs(300);
    /// Names of nodes that are remembered, for agents that cannot tell their machine.
    pub const NODE_NAMES: usize = 50_000;
}

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
