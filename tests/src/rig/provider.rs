//! Our provider as the program that users run: built by cargo, configured by a file, killed and started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use windlass_proto::externalgrpc::{RefreshRequest, cloud_provider_client::CloudProviderClient};

use super::{
    aws,
    certificates::Mutual,
    process::Process,
    world::{GPU_LABEL, World},
};
use crate::port::Port;

/// How long the provider may take until it answers `Refresh`.
const READY: Duration = Duration::from_mins(2);

/// Builds the provider as this workspace's tests were built, and answers where it lies.
///
/// # Errors
/// With what the compiler said.
pub fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The same packages and features as the test itself: nothing that both need is compiled twice.
    let out = Command::new(cargo)
        .args(["build", "--quiet", "--no-default-features", "--message-format=json-render-diagnostics"])
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

/// Where a provider can be reached.
#[derive(Clone, Debug)]
pub enum Door {
    /// A unix socket.
    Unix(PathBuf),
    /// A port of `localhost`, with certificates on both sides.
    Mutual(Arc<Port>, Mutual),
}

impl Door {
    /// A channel that connects when it is first used, and again when it must.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn channel(&self) -> Result<Channel> {
        match self {
            Self::Unix(path) => Ok(Endpoint::from_shared(format!("unix://{}", path.display()))?.connect_lazy()),
            Self::Mutual(port, mutual) => {
                let client = Identity::from_pem(fs::read(&mutual.client.certificate)?, fs::read(&mutual.client.key)?);
                tls_channel(port, &mutual.authority, |tls| tls.identity(client))
            }
        }
    }

    /// The `--cloud-config` of an autoscaler that comes through it.
    #[must_use]
    pub fn cloud_config(&self) -> Value {
        match self {
            Self::Unix(path) => json!({"address": format!("unix://{}", path.display())}),
            Self::Mutual(port, mutual) => json!({
                "address": format!("localhost:{}", port.number()), "cacert": mutual.authority,
                "cert": mutual.client.certificate, "key": mutual.client.key,
            }),
        }
    }

    /// `provider` of the provider's own configuration.
    fn setting(&self) -> Value {
        match self {
            Self::Unix(path) => json!({"listen": format!("unix://{}", path.display())}),
            Self::Mutual(port, Mutual { authority, server, .. }) => json!({
                "listen": port.address(),
                "tls": {"cert": server.certificate, "key": server.key, "clientCa": authority},
            }),
        }
    }
}

/// A channel to `localhost` with TLS.
fn tls_channel(port: &Port, roots: &Path, more: impl FnOnce(ClientTlsConfig) -> ClientTlsConfig) -> Result<Channel> {
    let pem = fs::read(roots).with_context(|| format!("reading {}", roots.display()))?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)).domain_name("localhost");
    Ok(Endpoint::from_shared(format!("https://{}", port.address()))?.tls_config(more(tls))?.connect_lazy())
}

/// Which cloud a provider scales.
#[derive(Clone, Debug)]
pub enum Cloud<'a> {
    /// The embedded one, with these machines.
    Sim(&'a World),
    /// AWS: the section of the configuration.
    Aws(Value),
}

/// A provider with its configuration, running or not.
#[derive(Debug)]
pub struct Provider {
    program: PathBuf,
    dir: PathBuf,
    process: Option<Process>,
    environment: &'static [(&'static str, &'static str)],
    /// Where it serves the cloud provider's calls.
    pub door: Door,
    /// Where it serves the expander's, on loopback.
    pub expander: Port,
    /// Where `/decisions` and `/metrics` are, on loopback.
    pub http: Port,
}

impl Provider {
    /// Writes the configuration into `dir`, and the scenario of an embedded cloud beside it;
    /// `settings` go over the configuration's own keys, section by section.
    ///
    /// # Errors
    /// When a file cannot be written or no port is to be had.
    pub fn new(program: &Path, dir: &Path, door: Door, cloud: Cloud<'_>, settings: &Value) -> Result<Self> {
        let provider = Self {
            program: program.to_owned(),
            dir: dir.to_owned(),
            process: None,
            environment: if matches!(cloud, Cloud::Aws(_)) { &aws::ENVIRONMENT } else { &[] },
            door,
            expander: Port::hold()?,
            http: Port::hold()?,
        };
        let cloud = match cloud {
            Cloud::Aws(cloud) => cloud,
            Cloud::Sim(world) => {
                let scenario = dir.join("scenario.yaml");
                fs::write(&scenario, world.scenario().to_string()).context("writing the scenario")?;
                json!({"kind": "sim", "scenario": scenario, "state": dir.join("cloud.json")})
            }
        };
        let mut config = json!({
            "cloud": cloud,
            "provider": provider.door.setting(),
            "expander": {
                "listen": provider.expander.address(),
                "selfSigned": {"caFile": provider.expander_roots(), "names": ["localhost"]},
            },
            "http": {"listen": provider.http.address()},
            "gpuLabel": GPU_LABEL,
            "refresh": "1s",
            "state": dir.join("state.json"),
        });
        for (key, value) in settings.as_object().into_iter().flatten() {
            match (config[key].as_object_mut(), value.as_object()) {
                (Some(section), Some(more)) => section.extend(more.clone()),
                _ => config[key] = value.clone(),
            }
        }
        fs::write(provider.config(), config.to_string()).context("writing the configuration")?;
        Ok(provider)
    }

    /// Starts it and waits until it answers `Refresh`.
    ///
    /// # Errors
    /// When it ends, or does not answer in time; with the end of its log.
    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        let mut client = CloudProviderClient::new(self.door.channel()?);
        let begun = Instant::now();
        while let Err(status) = client.refresh(RefreshRequest {}).await {
            self.alive()?;
            if begun.elapsed() > READY {
                let tail = self.process.as_ref().map(Process::tail).unwrap_or_default();
                bail!("the provider does not answer Refresh: {status}; the end of its log:\n{tail}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Starts it, and does not wait for anything.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        let arguments = ["--config".into(), self.config().into_os_string()];
        let process = Process::start_with("windlass-provider", &self.program, arguments, &self.dir, self.environment);
        self.process = Some(process?);
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

    /// A channel to its expander, which trusts what the provider says of itself now and not what it says later.
    ///
    /// # Errors
    /// When it has not said it yet.
    pub fn expander_channel(&self) -> Result<Channel> {
        tls_channel(&self.expander, &self.expander_roots(), |tls| tls)
    }

    /// What it answers at a path of its HTTP listener.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.http.address()).await.context("reaching the provider's HTTP")?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.with_context(|| format!("asking for {path}"))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.with_context(|| format!("reading {path}"))?;
        Ok(answer)
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
