//! From a configuration to a running program: bind first, then work. Every task is owned by one set; the first to end,
//! ends the process with its reason.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinSet, time};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;

use crate::{
    Shared,
    cloud::{Cloud, metered::Metered, patient::Patient, sim::SimCloud},
    config::{CloudKind, Config, Listen, limits},
    fleet::template::Dialect,
    grpc::{self, listen::Bound, tls::Tls},
    http,
    keeper::{Keeper, Parts},
    metrics::Metrics,
    policy::Policies,
    ready::Ready,
    usage, watch,
};

/// Where the cloud provider can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix://{}", path.display()),
            Self::Tcp(address) => address.fmt(out),
        }
    }
}

/// A running provider. Dropping it ends it at once; [`Running::stop`] ends it gently.
pub struct Running {
    /// Where CA reaches the cloud provider.
    pub provider: Address,
    /// Where CA reaches the expander.
    pub expander: SocketAddr,
    /// Where metrics, health and the page are.
    pub http: SocketAddr,
    /// What every door looks at.
    pub shared: Arc<Shared>,
    doors: Tasks,
    /// What the doors rest on; ends after them, so that a request under way still gets its answer.
    behind: Tasks,
}

impl Running {
    /// Begins a gentle end: no new connection, what is under way is answered, the state is written.
    pub fn stop(&self) {
        self.doors.stop.cancel();
    }

    /// What [`Running::stop`] does, for whoever waits in [`Running::finished`] meanwhile.
    #[must_use]
    pub fn stopper(&self) -> CancellationToken {
        self.doors.stop.clone()
    }

    /// Waits for the end: the first task to end ends the others, and gives the reason.
    ///
    /// # Errors
    /// Why a task ended that should not have.
    pub async fn finished(mut self) -> anyhow::Result<()> {
        let first = tokio::select! {
            first = self.doors.set.join_next() => first,
            first = self.behind.set.join_next() => first,
        };
        self.doors.end().await;
        self.behind.end().await;
        first.unwrap_or(Ok(Ok(()))).context("a task of the provider died")?
    }
}

/// Starts everything a configuration asks for, and returns when it listens.
///
/// # Errors
/// An address that cannot be had, a certificate, scenario or state file that cannot be used.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %config.file.display(), cloud = ?config.cloud.kind, "starting");
    tracing::debug!(?config, "every setting, defaults included");
    let metrics = Arc::new(Metrics::new()?);
    let ready = Ready::default();
    let (cloud, gpu_label) = cloud(&config, &metrics, Purpose::Whole).await?;
    let cloud = Patient::new(Arc::new(Metered::new(cloud, metrics.clone())), limits::CLOUD_CALL);
    let dialect = Arc::new(dialect(&config, gpu_label));
    let policies = Policies::default();
    policies.configure(&config.expander, &dialect.gpu_label);
    let unsynced = ready.wait_for("the first listing of the cloud");
    let parts = Parts { cloud: Arc::new(cloud), dialect: dialect.clone(), metrics: metrics.clone(), unsynced };
    let (keeper, handle) = Keeper::new(&config, parts)?;
    let shared = Arc::new(Shared {
        keeper: handle,
        dialect,
        policies,
        decisions: Arc::default(),
        metrics,
        ready,
        unlabelled: crate::unlabelled::Unlabelled::default(),
        names: config.usage.agents.is_some().then(usage::names::Names::default),
        warned: Mutex::default(),
    });
    let (mut doors, mut behind) = (Tasks::default(), Tasks::default());
    let provider = serve_provider(&config, &shared, &mut doors).await?;
    let expander = serve_expander(&config, &shared, &mut doors).await?;
    let http = serve_http(&config, &shared, &mut doors).await?;
    behind.own("keeper", keeper.run(behind.stop.clone()));
    follow_interruptions(&config, &shared, &mut behind).await?;
    if let Some(agents) = config.usage.agents.clone() {
        behind.own("agents", usage::agents::follow(agents, shared.clone(), behind.stop.clone()));
    }
    behind.own("configuration", watch::follow(config, shared.clone(), behind.stop.clone()));
    tracing::info!(%provider, %expander, %http, "listening");
    Ok(Running { provider, expander, http, shared, doors, behind })
}

/// The owner of some tasks.
#[derive(Default)]
struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Tasks {
    fn own(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let stop = self.stop.clone();
        self.set.spawn(async move {
            task.await.with_context(|| format!("{name} failed"))?;
            anyhow::ensure!(stop.is_cancelled(), "{name} ended by itself");
            Ok(())
        });
    }

    /// Ends them gently; what has not ended in time is cut.
    async fn end(&mut self) {
        self.stop.cancel();
        let all = async { while self.set.join_next().await.is_some() {} };
        if time::timeout(limits::DRAIN, all).await.is_err() {
            tracing::warn!("what did not end in time is cut");
            self.set.shutdown().await;
        }
    }
}

/// How nodes are labelled: the configuration's word on the GPU label goes first, then the cloud's.
pub(crate) fn dialect(config: &Config, gpu_label: Option<String>) -> Dialect {
    let mut dialect = if config.cloud.kind == CloudKind::Aws { Dialect::aws() } else { Dialect::sim() };
    dialect.gpu_label = config.gpu_label.clone().or(gpu_label).unwrap_or(dialect.gpu_label);
    dialect
}

/// The configured cloud for whoever only looks: the embedded one then writes no state.
pub(crate) async fn glance(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(Arc<dyn Cloud>, Option<String>)> {
    let (cloud, label) = cloud(config, metrics, Purpose::Glance).await?;
    Ok((Arc::new(Patient::new(cloud, limits::CLOUD_CALL)), label))
}

/// The configured cloud, and the GPU label it asks for.
async fn cloud(
    config: &Config,
    metrics: &Arc<Metrics>,
    purpose: Purpose,
) -> anyhow::Result<(Arc<dyn Cloud>, Option<String>)> {
    match config.cloud.kind {
        CloudKind::Sim => {
            let scenario = config.cloud.scenario.as_deref().context("cloud.scenario is missing")?;
            let open = if purpose == Purpose::Glance { SimCloud::glance } else { SimCloud::open };
            let sim = open(scenario, config.cloud.state.as_deref())?;
            let label = sim.gpu_label();
            Ok((Arc::new(sim), label))
        }
        CloudKind::Aws => Ok((aws(config, metrics.clone(), purpose).await?, None)),
    }
}

/// What a cloud is had for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Everything.
    Whole,
    /// One look, for a person who waits.
    Glance,
}

#[cfg(feature = "aws")]
async fn aws(config: &Config, metrics: Arc<Metrics>, purpose: Purpose) -> anyhow::Result<Arc<dyn Cloud>> {
    use crate::cloud::aws::{AutoScaling, Settings};
    let settings = if purpose == Purpose::Glance { Settings::glance(config) } else { Settings::of(config) };
    Ok(Arc::new(AutoScaling::connect(settings?, metrics).await?))
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "the twin with the cloud's SDK waits")]
async fn aws(_config: &Config, _metrics: Arc<Metrics>, _purpose: Purpose) -> anyhow::Result<Arc<dyn Cloud>> {
    anyhow::bail!("cloud.kind: this build does not know aws; take a build with the cargo feature `aws`")
}

/// Notices of interruptions, where a queue is configured.
#[cfg(feature = "aws")]
async fn follow_interruptions(config: &Config, shared: &Arc<Shared>, tasks: &mut Tasks) -> anyhow::Result<()> {
    use crate::cloud::aws::{Settings, interruptions::Interruptions};
    let Some(url) = config.cloud.interruption_queue.clone().filter(|_| config.cloud.kind == CloudKind::Aws) else {
        return Ok(());
    };
    let queue = Interruptions::connect(&Settings::of(config)?, url, shared.metrics.clone()).await?;
    tasks.own("interruption queue", queue.follow(shared.keeper.clone(), tasks.stop.clone()));
    Ok(())
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "the twin with the cloud's SDK waits")]
async fn follow_interruptions(_config: &Config, _shared: &Arc<Shared>, _tasks: &mut Tasks) -> anyhow::Result<()> {
    Ok(())
}

async fn serve_provider(config: &Config, shared: &Arc<Shared>, tasks: &mut Tasks) -> anyhow::Result<Address> {
    let (shared, stop) = (shared.clone(), tasks.stop.clone());
    match grpc::listen::bind(&config.provider.listen).await? {
        Bound::Unix(listener, file) => {
            tasks.own("cloud provider", async move {
                let served = grpc::serve_provider(UnixListenerStream::new(listener), shared, stop).await;
                drop(file);
                served
            });
            match &config.provider.listen {
                Listen::Unix(path) => Ok(Address::Unix(path.clone())),
                Listen::Tcp(address) => Ok(Address::Tcp(*address)),
            }
        }
        Bound::Tcp(listener) => {
            let address = listener.local_addr()?;
            match &config.provider.tls {
                Some(files) => {
                    let tls = Tls::from_files(files.into()).context("provider.tls")?;
                    let (incoming, accepting) = grpc::tls::incoming(listener, tls, stop.clone());
                    tasks.own("cloud provider's TLS", accepting);
                    tasks.own("cloud provider", grpc::serve_provider(incoming, shared, stop));
                }
                None => {
                    anyhow::ensure!(config.provider.insecure, "provider.listen is TCP without TLS");
                    tracing::warn!(%address, "plaintext: whoever reaches this port can delete nodes");
                    tasks.own("cloud provider", grpc::serve_provider(TcpListenerStream::new(listener), shared, stop));
                }
            }
            Ok(Address::Tcp(address))
        }
    }
}

async fn serve_expander(config: &Config, shared: &Arc<Shared>, tasks: &mut Tasks) -> anyhow::Result<SocketAddr> {
    let settings = &config.expander;
    // The file that CA trusts is there before the port is, so that a CA that waits for it finds a listener soon.
    let tls = match &settings.tls {
        Some(files) => Tls::from_files(files.into()).context("expander.tls")?,
        None => Tls::self_signed(&settings.self_signed)?,
    };
    let listener = listen(settings.listen).await?;
    let address = listener.local_addr()?;
    let (incoming, accepting) = grpc::tls::incoming(listener, tls, tasks.stop.clone());
    tasks.own("expander's TLS", accepting);
    tasks.own("expander", grpc::serve_expander(incoming, shared.clone(), tasks.stop.clone()));
    Ok(address)
}

async fn serve_http(config: &Config, shared: &Arc<Shared>, tasks: &mut Tasks) -> anyhow::Result<SocketAddr> {
    let listener = listen(config.http.listen).await?;
    let address = listener.local_addr()?;
    tasks.own("http", http::serve(listener, shared.clone(), tasks.stop.clone()));
    Ok(address)
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}; is the port in use?"))
}
