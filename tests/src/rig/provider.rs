//! Our provider as the program that users run: built by cargo, configured by a file, killed and started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_proto::externalgrpc::{RefreshRequest, cloud_provider_client::CloudProviderClient};

use super::{
    process::{Process, free_port},
    relay::unix_channel,
    world::{GPU_LABEL, World},
};

/// How long the provider may take until it answers `Refresh`.
const READY: Duration = Duration::from_secs(30);

/// Builds the provider as this workspace's tests were built, and answers where it lies.
///
/// # Errors
/// With what the compiler said.
pub fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The same packages and features as the test itself: nothing that both need is compiled twice.
    let out = Command::new(cargo)
        .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
        .args(["-p", "windlass-tests", "--features", "windlass-tests/rig", "-p", "windlass-provider", "--bin"])
        .arg("windlass-provider")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo to build windlass-provider")?;
    ensure!(out.status.success(), "cargo could not build windlass-provider");
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "windlass-provider").then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    String::from_utf8_lossy(&out.stdout).lines().find_map(executable).context("cargo named no windlass-provider")
}

/// A provider with its configuration, running or not.
#[derive(Debug)]
pub struct Provider {
    program: PathBuf,
    dir: PathBuf,
    process: Option<Process>,
    /// Where it serves the cloud provider's calls.
    pub socket: PathBuf,
    /// Where it serves the expander's, on loopback.
    pub expander: u16,
    /// Where `/decisions` and `/metrics` are, on loopback.
    pub http: u16,
}

impl Provider {
    /// Writes the scenario and the configuration into `dir`; `settings` go over the configuration's own top-level keys.
    ///
    /// # Errors
    /// When a file cannot be written or no port is free.
    pub fn new(program: &Path, dir: &Path, world: &World, settings: &Value) -> Result<Self> {
        let provider = Self {
            program: program.to_owned(),
            dir: dir.to_owned(),
            process: None,
            socket: dir.join("provider.sock"),
            expander: free_port()?,
            http: free_port()?,
        };
        fs::write(dir.join("scenario.yaml"), world.scenario().to_string()).context("writing the scenario")?;
        let mut config = json!({
            "cloud": {"kind": "sim", "scenario": dir.join("scenario.yaml"), "state": dir.join("cloud.json")},
            "provider": {"listen": format!("unix://{}", provider.socket.display())},
            "expander": {
                "listen": format!("127.0.0.1:{}", provider.expander),
                "selfSigned": {"caFile": provider.expander_roots(), "names": ["localhost"]},
            },
            "http": {"listen": format!("127.0.0.1:{}", provider.http)},
            "gpuLabel": GPU_LABEL,
            "refresh": "1s",
            "state": dir.join("state.json"),
        });
        if let (Some(config), Some(settings)) = (config.as_object_mut(), settings.as_object()) {
            config.extend(settings.clone());
        }
        fs::write(provider.config(), config.to_string()).context("writing the configuration")?;
        Ok(provider)
    }

    /// Starts it and waits until it answers `Refresh`.
    ///
    /// # Errors
    /// When it ends, or does not answer in time; with the end of its log.
    pub async fn start(&mut self) -> Result<()> {
        let arguments = ["--config".into(), self.config().into_os_string()];
        let mut process = Process::start("windlass-provider", &self.program, arguments, &self.dir)?;
        let mut client = CloudProviderClient::new(unix_channel(self.socket.clone())?);
        let begun = Instant::now();
        while let Err(status) = client.refresh(RefreshRequest {}).await {
            process.alive()?;
            if begun.elapsed() > READY {
                bail!("the provider does not answer Refresh: {status}; the end of its log:\n{}", process.tail());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.process = Some(process);
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Fails when it was started and has ended by itself.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn alive(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::alive)
    }

    /// Where the certificate lies that its expander is trusted by.
    #[must_use]
    pub fn expander_roots(&self) -> PathBuf {
        self.dir.join("expander-ca.crt")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("config.yaml")
    }
}
