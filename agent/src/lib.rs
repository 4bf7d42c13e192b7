//! windlass-agent: which pod and container uses which GPU, and how much.
//!
//! One tick goes left to right: the driver's thread gives a [`gpu::Reading`], [`pods`] says who holds what and whose each process is,
//! [`attribution`] makes a snapshot of both, [`exposition`] renders the rows of [`families`], and [`http`] hands out the bytes.
//! [`start`] binds first, then works; whichever task ends first ends the agent with its reason.

pub mod attribution;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod exposition;
pub mod families;
pub mod gpu;
pub mod http;
pub mod jobs;
#[cfg(feature = "kube")]
pub mod kube_api;
pub mod live;
pub mod log;
pub mod look;
pub mod notices;
pub mod once;
pub mod pods;
pub mod ready;
pub mod sampler;
pub mod usage;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, limits};
use crate::gpu::thread::GpuThread;
use crate::live::Live;
use crate::ready::Ready;
use crate::sampler::{Latest, Sampler};

/// An agent at work.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

/// Binds and starts. Fails only for what no retry mends: the address, the thread.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    let clock = Clock::start();
    let live = Arc::new(Live::new(config, clock)?);
    let config = live.config();
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| anyhow::anyhow!("--listen {}: {error}; {}", config.listen, unbound(&error)))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, node = config.node_name, every = ?config.sample_interval, "windlass-agent {} listens", env!("CARGO_PKG_VERSION"));
    let gpus = GpuThread::start(config.nvml_library.clone()).context("the NVML thread could not be started")?;
    let (ready, stop) = (Ready::default(), CancellationToken::new());
    let (pods, latest) = (Arc::<pods::poll::Shared>::default(), Latest::default());
    let mut tasks = JoinSet::new();
    if let Some(socket) = config.kubelet_socket.clone() {
        ready.pending("kubelet", "no answer yet");
        let (checkpoint, shared) = (config.kubelet_checkpoint.clone(), Arc::clone(&pods));
        let (pods_socket, live) = (config.kubelet_pods_socket.clone(), Arc::clone(&live));
        let poll = pods::poll::Poll { socket, pods_socket, live, checkpoint, shared, clock, ready: ready.clone() };
        tasks.spawn(poll.run(stop.clone()));
    }
    let board = Arc::<notices::Board>::default();
    #[cfg(feature = "kube")]
    {
        let (live, board, pods) = (Arc::clone(&live), Arc::clone(&board), Arc::clone(&pods));
        let world = kube_api::World { config: Arc::clone(&config), live, board, pods, clock };
        kube_api::start(world, &mut tasks, &stop).await?;
    }
    #[cfg(not(feature = "kube"))]
    if let Some(flag) = config.kubernetes.wants() {
        anyhow::bail!(
            "{flag}: this build cannot speak to the Kubernetes API; build it with --features kube, or leave the flag out"
        );
    }
    tasks.spawn(notices::follow(Arc::clone(&live), Arc::clone(&board), clock, stop.clone()));
    let jobs = jobs::Latest::default();
    tasks.spawn(jobs::follow(Arc::clone(&live), Arc::clone(&jobs), stop.clone()));
    let sampler =
        Sampler::new(Arc::clone(&live), gpus, (pods, board, jobs), (clock, ready.clone()), Arc::clone(&latest));
    tasks.spawn(sampler.run(stop.clone()));
    tasks.spawn(http::serve(listener, http::Views { latest, ready, clock, live: Arc::clone(&live) }, stop.clone()));
    tasks.spawn(live.follow(stop.clone()));
    Ok(Running { address, tasks, stop })
}

/// What to try where an address could not be had.
fn unbound(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "is another exporter on that port?",
        std::io::ErrorKind::PermissionDenied => "take a port from 1024 on, or give the container NET_BIND_SERVICE",
        _ => "name an address of this machine, or 0.0.0.0 for all of them",
    }
}

impl Running {
    /// Ends when any task ends, with its reason. Never ends well by itself.
    pub async fn finished(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Ok(()))) => anyhow::anyhow!("a task ended without being asked to"),
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => anyhow::anyhow!("a task broke: {panic}"),
            None => anyhow::anyhow!("nothing runs"),
        }
    }

    /// Lets open requests finish, up to a deadline, and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limits::DRAIN + limits::READING, ended).await.is_err() {
            tracing::warn!("a task did not end in time and is dropped");
        }
    }
}

/// Runs until a signal: the first one drains, a second one ends at once.
pub async fn run(config: Config) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut running = start(config).await?;
    tokio::select! {
        reason = running.finished() => return Err(reason),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; a second signal ends at once");
    tokio::select! {
        () = running.stop() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
