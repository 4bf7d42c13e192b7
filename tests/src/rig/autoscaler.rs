//! Who drives a scenario: a real cluster-autoscaler where its user has one, and always our model of its loop.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{
    journal::Journal,
    model::Model,
    process::{Process, on_path},
    provider::Door,
};
use crate::golang::cache_dir;

/// A cluster-autoscaler, real or modelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `windlass_provider::replay::autoscaler`, as of its newest era.
    Model,
    /// A binary that was given.
    Real(Binary),
}

/// A real cluster-autoscaler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// What it calls itself.
    pub version: String,
    /// Everything that `--help` lists, with the dashes.
    flags: Arc<Vec<String>>,
}

impl Driver {
    /// One word for the name of a test.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Real(_) => "real",
        }
    }
}

impl Binary {
    /// `CLUSTER_AUTOSCALER`, else `cluster-autoscaler` on PATH, else `~/.cache/windlass/cluster-autoscaler`; None when
    /// there is none of these.
    ///
    /// # Errors
    /// When the one that was given does not run.
    pub fn find() -> Result<Option<Self>> {
        let given = std::env::var_os("CLUSTER_AUTOSCALER").filter(|path| !path.is_empty()).map(PathBuf::from);
        let cached = || cache_dir().ok().map(|dir| dir.join("cluster-autoscaler")).filter(|path| path.is_file());
        let Some(path) = given.or_else(|| on_path("cluster-autoscaler")).or_else(cached) else { return Ok(None) };
        let help = Command::new(&path).arg("--help").output();
        let help = help.with_context(|| format!("asking {} for its flags", path.display()))?;
        let text = [help.stdout, help.stderr].concat();
        let flags = String::from_utf8_lossy(&text)
            .split_whitespace()
            .filter(|word| word.starts_with("--"))
            .map(|word| word.split('=').next().unwrap_or(word).trim_end_matches([',', ':']).to_owned())
            .collect();
        let version = version(&path).unwrap_or_else(|| "unknown".to_owned());
        Ok(Some(Self { path, version, flags: Arc::new(flags) }))
    }

    /// 36 of `1.36.1`; None for one that names no release.
    #[must_use]
    pub fn minor(&self) -> Option<u32> {
        self.version.split('.').nth(1)?.parse().ok()
    }

    /// Those of `wanted` that this release knows.
    fn known(&self, wanted: Vec<String>) -> Vec<String> {
        let known = |flag: &String| {
            let name = flag.split('=').next().unwrap_or(flag);
            self.flags.iter().any(|known| known == name)
        };
        wanted.into_iter().filter(known).collect()
    }
}

/// The version in the first lines of its log: it is told when the program starts, before it misses a cluster.
fn version(path: &Path) -> Option<String> {
    let out = Command::new(path).args(["--kubeconfig=/nonexistent", "--v=1"]).output().ok()?;
    let log = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    log.lines().find_map(|line| line.split("] Cluster Autoscaler ").nth(1).map(|rest| rest.trim().to_owned()))
}

/// Everything a cluster-autoscaler needs to know of its surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// For the apiserver.
    pub kubeconfig: PathBuf,
    /// The provider, or the relay before it.
    pub provider: Door,
    /// The expander, or the relay before it.
    pub expander: SocketAddr,
    /// The expander's trust root, or the relay's.
    pub expander_roots: PathBuf,
    /// `--expander`.
    pub expanders: String,
    /// `--frequent-loops-enabled`; None leaves the release its own default.
    pub frequent_loops: Option<bool>,
    /// `--scan-interval`.
    pub scan_interval: Duration,
    /// `--max-node-group-backoff-duration`; None leaves the default.
    pub max_backoff: Option<Duration>,
    /// Logs, and the cloud configuration.
    pub dir: PathBuf,
    /// For what the model does to the cluster.
    pub journal: Arc<Journal>,
}

/// One running cluster-autoscaler.
#[derive(Debug)]
pub enum Autoscaler {
    /// Ours.
    Model(Model),
    /// The real one.
    Real(Process),
}

impl Autoscaler {
    /// Starts the driver.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(driver: &Driver, surroundings: &Surroundings) -> Result<Self> {
        surroundings.journal.act("autoscaler-started", json!({}));
        match driver {
            Driver::Model => Model::start(surroundings.clone()).map(Self::Model),
            Driver::Real(binary) => real(binary, surroundings).map(Self::Real),
        }
    }

    /// Fails when the apiserver refused it something: the rights of our manifests were not enough.
    ///
    /// # Errors
    /// With the line of its log.
    pub fn had_every_right(&self) -> Result<()> {
        let Self::Real(process) = self else { return Ok(()) };
        let log = fs::read(process.log()).context("reading the autoscaler's log")?;
        let log = String::from_utf8_lossy(&log);
        let refused = log.lines().find(|line| line.contains("is forbidden"));
        refused.map_or(Ok(()), |line| bail!("a right is missing in the manifests: {line}"))
    }

    /// Fails when it has ended by itself.
    ///
    /// # Errors
    /// Says why it ended.
    pub fn alive(&mut self) -> Result<()> {
        match self {
            Self::Model(model) => model.alive(),
            Self::Real(process) => process.alive(),
        }
    }
}

fn real(binary: &Binary, around: &Surroundings) -> Result<Process> {
    let config = around.dir.join("cloud-config.yaml");
    fs::write(&config, around.provider.cloud_config().to_string()).context("writing the cloud configuration")?;
    let mut flags = vec![
        format!("--kubeconfig={}", around.kubeconfig.display()),
        "--cloud-provider=externalgrpc".to_owned(),
        format!("--cloud-config={}", config.display()),
        format!("--expander={}", around.expanders),
        format!("--grpc-expander-url=localhost:{}", around.expander.port()),
        format!("--grpc-expander-cert={}", around.expander_roots.display()),
        "--leader-elect=false".to_owned(),
        "--address=127.0.0.1:0".to_owned(),
        format!("--scan-interval={}s", around.scan_interval.as_secs()),
        "--scale-down-delay-after-add=5s".to_owned(),
        "--scale-down-unneeded-time=8s".to_owned(),
        "--scale-down-unready-time=20s".to_owned(),
        "--unremovable-node-recheck-timeout=5s".to_owned(),
        "--node-delete-delay-after-taint=1s".to_owned(),
        "--max-node-provision-time=20s".to_owned(),
        "--initial-node-group-backoff-duration=15s".to_owned(),
        // Any value switches off the 30 s that pods with GPUs wait.
        "--bypassed-scheduler-names=rig-unused".to_owned(),
        "--v=4".to_owned(),
    ];
    flags.extend(around.frequent_loops.map(|on| format!("--frequent-loops-enabled={on}")));
    flags.extend(around.max_backoff.map(|most| format!("--max-node-group-backoff-duration={}s", most.as_secs())));
    Process::start("cluster-autoscaler", &binary.path, binary.known(flags), &around.dir)
}
