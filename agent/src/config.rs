//! Every flag with its `WINDLASS_*` twin, and every limit of the agent in one block.
//! Flags are parsed once into a [`Config`] in which nothing is left to guess.

pub mod command_line;
pub mod kubernetes;
pub mod web;

mod file;
pub(crate) mod reload;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::file::read;
use clap::{Parser, ValueEnum};

use crate::config::kubernetes::Kubernetes;
use crate::notices::metadata::Authority;
use crate::pods::identity::{LabelNames, Shown};

/// Everything that has a limit, and why the limit is where it is. Limits on foreign data stand beside their parsers:
/// PodResources answers and ids in `pods/kubelet.rs`, files and pids in `pods/processes.rs`, devices in `gpu/nvml.rs`, totals in `attribution/totals.rs`.
pub mod limits {
    use std::time::Duration;

    /// How long a tick waits for the driver. A call that takes longer holds its thread, not the agent; the GPUs are shown as absent meanwhile.
    pub const READING: Duration = Duration::from_secs(5);
    /// A page older than this many sample intervals is refused with 503, so that Prometheus marks the series stale instead of storing old numbers.
    pub const STALE_TICKS: u32 = 3;
    /// …but never sooner than this, or a busy node would refuse scrapes at short intervals. Longer than [`READING`].
    pub const STALE_MIN: Duration = Duration::from_secs(10);
    /// `/healthz` fails when no tick has ended for this long: the loop itself is stuck and only a restart helps.
    pub const STUCK: Duration = Duration::from_secs(60);
    /// `/healthz` fails when GPUs that once answered have been out of reach for this long in a way that a restart of the container mends: its
    /// access to the devices was taken (`systemctl daemon-reload`), or the library that was mounted at its start is older than the driver.
    pub const OUT_OF_REACH: Duration = Duration::from_secs(60);
    /// A silence longer than this many sample intervals is a gap: counters add nothing for it.
    pub const GAP_TICKS: u32 = 3;
    /// …but only from this length on: the driver's own samples reach back further, so that a busy node loses nothing at short intervals.
    pub const GAP_MIN: Duration = Duration::from_secs(3);
    /// How often the kubelet is asked when nothing is new. Its limit is 100 a second for the whole node.
    pub const PODS_INTERVAL: Duration = Duration::from_secs(10);
    /// How soon it may be asked again when a process of a container without a device appears.
    pub const PODS_INTERVAL_MIN: Duration = Duration::from_secs(2);
    /// First pause after a question that the kubelet refused; doubled with each further one up to [`PODS_INTERVAL`].
    pub const PODS_RETRY: Duration = Duration::from_secs(1);
    /// How often the kubelet's Pods API is asked for every pod when nothing is new: labels may change.
    pub const IDENTITY_INTERVAL: Duration = Duration::from_secs(60);
    /// Largest checkpoint file read: 1 MiB holds thousands of devices.
    pub const CHECKPOINT_MAX: u64 = 4 << 20;
    /// Connections served at once; a further one takes the place of the one that asked nothing for longest.
    pub const CONNECTIONS: usize = 32;
    /// How long a client may take to send its request line and headers, and how long a connection is kept on which nothing is asked.
    pub const SILENCE: Duration = Duration::from_secs(30);
    /// How long a client may leave an answer untaken before its connection is cut: it would keep its place from the kubelet's probe.
    pub const UNTAKEN: Duration = Duration::from_secs(10);
    /// How long the first words to an instance metadata service may take: it is one hop away, or not there at all.
    pub const METADATA_PROBE: Duration = Duration::from_secs(2);
    /// How long any later answer of it may take.
    pub const METADATA_WAIT: Duration = Duration::from_secs(5);
    /// How often EC2's is asked for notices: what AWS recommends. A spot notice comes two minutes ahead.
    pub const METADATA_INTERVAL: Duration = Duration::from_secs(5);
    /// How often it is asked for maintenance, which is told days ahead.
    pub const METADATA_INTERVAL_SLOW: Duration = Duration::from_secs(60);
    /// Longest pause after failures in a row.
    pub const METADATA_BACKOFF: Duration = Duration::from_secs(60);
    /// How long GCE's server holds a question until it answers that nothing changed.
    pub const METADATA_LONG_POLL: Duration = Duration::from_secs(60);
    /// Shortest time between two questions of a long poll.
    pub const METADATA_PAUSE: Duration = Duration::from_millis(200);
    /// Off-cloud: when to look again for a metadata service, the first time and at last. In between the pause doubles: a service that is late at a
    /// machine's start is found soon, and a machine without one makes a dozen short attempts in its first two hours and one an hour from then on.
    pub const METADATA_ABSENT_FIRST: Duration = Duration::from_secs(5);
    /// See [`METADATA_ABSENT_FIRST`].
    pub const METADATA_ABSENT_LAST: Duration = Duration::from_secs(3600);
    /// Largest answer of a metadata service, and largest head of one (hyper's least is 8 KiB).
    pub const METADATA_BODY: usize = 64 << 10;
    /// See [`METADATA_BODY`].
    pub const METADATA_HEADERS: usize = 8 << 10;
    /// Longest word of it that becomes a label.
    pub const METADATA_WORD: usize = 64;
    /// Notices of one kind that are kept.
    pub const NOTICES: usize = 8;
    /// How long the Kubernetes API may take for a connection, and for a request to be sent.
    pub const API_WAIT: Duration = Duration::from_secs(10);
    /// How long it may take to answer.
    pub const API_ANSWER: Duration = Duration::from_secs(30);
    /// How often a node that should be tainted is looked at: it may have been made anew.
    pub const API_LOOK: Duration = Duration::from_secs(60);
    /// Pause between two looks at what the Kubernetes API should be told; doubled with each failure, up to the last.
    pub const API_RETRY: Duration = Duration::from_secs(1);
    /// See [`API_RETRY`].
    pub const API_RETRY_LAST: Duration = Duration::from_secs(120);
    /// How long a watch at the Kubernetes API is asked to last.
    pub const API_WATCH: Duration = Duration::from_secs(290);
    /// Pods of the node that are kept, and asked for.
    pub const API_PODS: u32 = 2048;
    /// How often a change that others were faster with is tried again at once.
    pub const API_CONFLICTS: u32 = 5;
    /// A notice whose deadline is further away than this does not taint the node yet: maintenance is told days ahead.
    pub const TAINT_AHEAD: Duration = Duration::from_secs(3600);
    /// How long a TLS handshake may take.
    pub const HANDSHAKE: Duration = Duration::from_secs(10);
    /// Request line and headers together.
    pub const HEADER_BYTES: u16 = 16 << 10;
    /// Requests at once on one HTTP/2 connection.
    pub const STREAMS: u32 = 16;
    /// How often files of settings and certificates are looked at.
    pub const FILE_POLL: Duration = Duration::from_secs(2);
    /// How long a reading of them, or of a batch system's folder, may take before it is told of: files may lie on a network.
    pub const FILE_WAIT: Duration = Duration::from_secs(5);
    /// How long open requests may take to finish after a stop was asked for.
    pub const DRAIN: Duration = Duration::from_secs(2);
}

/// windlass-agent: tells Prometheus which pod and container uses which GPU, and how much.
#[derive(Debug, Parser)]
#[command(name = "windlass-agent", version)]
pub struct Args {
    /// Address and port of /metrics, /usage, /healthz and /readyz
    #[arg(long, env = "WINDLASS_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:9400", value_parser = address)]
    pub listen: SocketAddr,
    /// The NVML library to load [default: the usual places: the loader's path, distributions, driver container, GKE]
    #[arg(long, env = "WINDLASS_NVML_LIBRARY", value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
    /// The kubelet's PodResources socket; empty on a machine without Kubernetes
    #[arg(
        long,
        env = "WINDLASS_KUBELET_SOCKET",
        value_name = "PATH",
        default_value = "/var/lib/kubelet/pod-resources/kubelet.sock"
    )]
    pub kubelet_socket: String,
    /// The kubelet's device checkpoint, used to name containers whose logs do not; empty to leave it alone
    #[arg(
        long,
        env = "WINDLASS_KUBELET_CHECKPOINT",
        value_name = "PATH",
        default_value = "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"
    )]
    pub kubelet_checkpoint: String,
    /// The kubelet's Pods API (Kubernetes 1.36 and newer, behind a feature gate), for pod uids, labels and container ids; empty to leave it alone
    #[arg(
        long,
        env = "WINDLASS_KUBELET_PODS_SOCKET",
        value_name = "PATH",
        default_value = "/var/lib/kubelet/pods-api/pods-api.sock"
    )]
    pub kubelet_pods_socket: String,
    /// Pod labels to show as label_NAME on the pod's series, and as NAME on its DCGM_* ones, where they are known, 16 at most: a regular expression for whole label names [default: none]
    #[arg(long, env = "WINDLASS_POD_LABELS", value_name = "REGEX", value_parser = LabelNames::parse)]
    pub pod_labels: Option<LabelNames>,
    /// Show the pod's uid as pod_uid on its series, where it is known
    #[arg(long, env = "WINDLASS_POD_UID")]
    pub pod_uid: bool,
    /// The host's /proc: process ids from NVML are the host's
    #[arg(long, env = "WINDLASS_HOST_PROC", value_name = "PATH", default_value = "/proc")]
    pub host_proc: PathBuf,
    /// The host's /var/log: the names of the kubelet's log files tell which container an id is (their content is not read)
    #[arg(long, env = "WINDLASS_HOST_LOGS", value_name = "PATH", default_value = "/var/log")]
    pub host_logs: PathBuf,
    /// The instance metadata service that tells of interruptions and maintenance; empty to ask none
    #[arg(long, env = "WINDLASS_METADATA_ENDPOINT", value_name = "URL", default_value = "http://169.254.169.254", value_parser = endpoint)]
    pub metadata_endpoint: Endpoint,
    /// How often the GPUs are read: 100ms to 1m
    #[arg(long, env = "WINDLASS_SAMPLE_INTERVAL", value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub sample_interval: Duration,
    /// The node's name in Kubernetes [default: the host's name]
    #[arg(long, env = "WINDLASS_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Series under dcgm-exporter's names: as dashboards and rules know them, as DCGM 4.6 renamed them, or none
    #[arg(long, env = "WINDLASS_DCGM_NAMES", value_name = "NAMES", default_value = "compat")]
    pub dcgm_names: DcgmNames,
    #[expect(missing_docs, reason = "clap would show it as a heading")]
    #[command(flatten)]
    pub kubernetes: Kubernetes,
    /// Which DCGM families are shown, and under which names: a counters CSV in dcgm-exporter's format, read again when it changes
    #[arg(long, env = "WINDLASS_COLLECTORS", value_name = "FILE")]
    pub collectors: Option<PathBuf>,
    /// TLS, basic authentication, headers: a file in the format of Prometheus' exporter-toolkit, read again when it changes
    #[arg(long, env = "WINDLASS_WEB_CONFIG_FILE", value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,
    /// A folder in which a batch system's prolog writes the ids of jobs, a file for each GPU, as for dcgm-exporter
    #[arg(long, env = "WINDLASS_HPC_JOB_MAPPING_DIR", value_name = "PATH")]
    pub hpc_job_mapping_dir: Option<PathBuf>,
    /// Most series on a page: what is over is left out and counted, so that a wrong plugin does not fill a Prometheus
    #[arg(long, env = "WINDLASS_MAX_SERIES", value_name = "NUMBER", default_value = "20000", value_parser = at_least_one)]
    pub max_series: usize,
    /// How much is logged
    #[arg(long, env = "WINDLASS_LOG", value_name = "LEVEL", default_value = "info")]
    pub log: tracing::Level,
    /// A settings file, YAML: keys are flags without their dashes; a flag or its twin in the environment counts more
    #[arg(long, env = "WINDLASS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read once, print a table for people, and exit
    #[arg(long)]
    pub once: bool,
    /// With --once or doctor: print JSON
    #[arg(long)]
    pub json: bool,
}

/// A metadata service, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub Option<Authority>);

/// Which names the DCGM series carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum DcgmNames {
    /// `DCGM_FI_DEV_GPU_UTIL` and label `Hostname`: what dashboards and rules have used for years.
    #[default]
    Compat,
    /// `DCGM_FI_DEV_GPU_UTIL_RATIO` and label `hostname`: DCGM 4.6 and newer exporters. Values are the same.
    #[value(name = "4.6")]
    V46,
    /// No DCGM series.
    Off,
}

/// The agent's settings, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// The only library tried; without it the usual places are searched.
    pub nvml_library: Option<PathBuf>,
    /// The PodResources socket; without it nothing has an owner.
    pub kubelet_socket: Option<PathBuf>,
    /// The device manager's checkpoint.
    pub kubelet_checkpoint: Option<PathBuf>,
    /// The socket of the kubelet's Pods API.
    pub kubelet_pods_socket: Option<PathBuf>,
    /// What of a pod's identity becomes labels of its series.
    pub shown: Shown,
    /// The host's `/proc`.
    pub host_proc: PathBuf,
    /// The host's `/var/log`.
    pub host_logs: PathBuf,
    /// The instance metadata service; without it the cloud's notices are not read.
    pub metadata: Option<Authority>,
    /// What is done at the Kubernetes API.
    pub kubernetes: Kubernetes,
    /// Time between two readings.
    pub sample_interval: Duration,
    /// The `node` label.
    pub node_name: String,
    /// Names of the DCGM series.
    pub dcgm_names: DcgmNames,
    /// A counters CSV.
    pub collectors: Option<PathBuf>,
    /// TLS and basic authentication.
    pub web_config_file: Option<PathBuf>,
    /// Where a batch system tells its jobs.
    pub hpc_job_mapping_dir: Option<PathBuf>,
    /// Most series on a page.
    pub max_series: usize,
    /// How much is logged.
    pub log: tracing::Level,
    /// How long GPUs that once answered may be out of reach before `/healthz` fails.
    pub out_of_reach: Duration,
    /// The command line that all this came from, so that its settings file can be read again; empty where there was none.
    pub line: Vec<std::ffi::OsString>,
    /// The settings file.
    pub file: Option<PathBuf>,
}

impl Default for Config {
    /// Loopback, a port of the kernel's choice, no kubelet, no cloud: what a test or a demo starts from.
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            nvml_library: None,
            kubelet_socket: None,
            kubelet_checkpoint: None,
            kubelet_pods_socket: None,
            shown: Shown::default(),
            host_proc: "/proc".into(),
            host_logs: "/var/log".into(),
            metadata: None,
            kubernetes: Kubernetes::default(),
            sample_interval: Duration::from_secs(1),
            node_name: "localhost".into(),
            dcgm_names: DcgmNames::Compat,
            collectors: None,
            web_config_file: None,
            hpc_job_mapping_dir: None,
            max_series: 20_000,
            log: tracing::Level::INFO,
            out_of_reach: limits::OUT_OF_REACH,
            line: Vec::new(),
            file: None,
        }
    }
}

impl From<Args> for Config {
    fn from(args: Args) -> Self {
        let given = |file: &PathBuf| !file.as_os_str().is_empty();
        let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
        Self {
            listen: args.listen,
            nvml_library: args.nvml_library,
            kubelet_socket: path(args.kubelet_socket),
            kubelet_checkpoint: path(args.kubelet_checkpoint),
            kubelet_pods_socket: path(args.kubelet_pods_socket),
            shown: Shown { uid: args.pod_uid, labels: args.pod_labels },
            node_name: args.node_name.filter(|name| !name.is_empty()).unwrap_or_else(host_name),
            host_proc: args.host_proc,
            host_logs: args.host_logs,
            metadata: args.metadata_endpoint.0,
            kubernetes: args.kubernetes,
            sample_interval: args.sample_interval,
            dcgm_names: args.dcgm_names,
            collectors: args.collectors.filter(given),
            web_config_file: args.web_config_file.filter(given),
            hpc_job_mapping_dir: args.hpc_job_mapping_dir.filter(given),
            max_series: args.max_series,
            log: args.log,
            out_of_reach: limits::OUT_OF_REACH,
            line: Vec::new(),
            file: args.config.filter(given),
        }
    }
}

/// Kubernetes names nodes after the host unless told otherwise.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown".into() } else { name.into() }
}

/// `http://169.254.169.254`, or nothing.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    if text.is_empty() { Ok(Endpoint(None)) } else { text.parse().map(|authority| Endpoint(Some(authority))) }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 0.0.0.0:9400 or [::]:9400".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "must be a whole number from 1".into())
}

/// `500ms`, `1s`, `1m`.
fn interval(text: &str) -> Result<Duration, String> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| "write it as 500ms, 1s or 1m".to_owned())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => return Err("write it as 500ms, 1s or 1m".into()),
    };
    match milliseconds {
        Some(milliseconds @ 100..=60_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err("must be from 100ms to 1m".into()),
    }
}

#[cfg(test)]
mod tests;
