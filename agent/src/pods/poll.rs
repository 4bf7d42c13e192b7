//! The loop that asks the kubelet: every ten seconds, and at once when a stranger shows up; a failure keeps the last good map.
//! Publishes one immutable value that the sampler reads and never waits for.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Holders;
use super::checkpoint::{self, Names};
use super::kubelet::Kubelet;
use crate::clock::Clock;
use crate::config::limits;
use crate::ready::Ready;

/// The last good map, and how the asking goes.
#[derive(Debug, Clone, Default)]
pub struct Pods {
    /// Who holds what.
    pub holders: Arc<Holders>,
    /// Names out of the checkpoint.
    pub names: Arc<Names>,
    /// When the map was made: monotonic, and seconds since 1970.
    pub made: Option<(Duration, f64)>,
    /// Whether the last question was answered; `None` before the first, and without a kubelet.
    pub up: Option<bool>,
    /// Questions that failed.
    pub failures: u64,
}

/// What the sampler and the loop share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The value in use.
    pub pods: ArcSwap<Pods>,
    /// Rung when a process of an unknown container appears.
    pub stranger: Notify,
}

/// Asks for as long as the agent runs. Ends only when cancelled, or when the socket's path is no path.
pub async fn run(
    socket: PathBuf,
    checkpoint: Option<PathBuf>,
    shared: Arc<Shared>,
    (clock, ready): (Clock, Ready),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut kubelet = Kubelet::new(&socket)
        .map_err(|error| anyhow::anyhow!("--kubelet-socket {}: {error}; give an absolute path", socket.display()))?;
    loop {
        let before = Pods::clone(&shared.pods.load());
        let after = ask(&mut kubelet, checkpoint.as_deref(), before, &clock, &ready, &socket).await;
        shared.pods.store(Arc::new(after));
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(limits::PODS_INTERVAL) => {}
            () = rung(&shared.stranger) => {}
        }
    }
}

/// A ring is heard, but not before the shortest interval has passed.
async fn rung(stranger: &Notify) {
    tokio::time::sleep(limits::PODS_INTERVAL_MIN).await;
    stranger.notified().await;
}

async fn ask(
    kubelet: &mut Kubelet,
    checkpoint: Option<&Path>,
    before: Pods,
    clock: &Clock,
    ready: &Ready,
    socket: &Path,
) -> Pods {
    match kubelet.holders().await {
        Ok(holders) => {
            if before.up != Some(true) {
                tracing::info!(socket = %socket.display(), devices = holders.assignments.len(), "the kubelet answers");
            }
            ready.done("kubelet");
            let names = if *before.holders == holders && !before.names.is_empty() {
                before.names
            } else {
                Arc::new(checkpoint.map(|path| names(path, &holders)).unwrap_or_default())
            };
            Pods {
                holders: Arc::new(holders),
                names,
                made: Some((clock.now(), clock.unix())),
                up: Some(true),
                ..before
            }
        }
        Err(reason) => {
            let message =
                format!("{} does not answer: {reason}; is it mounted, and is the agent root?", socket.display());
            if before.up != Some(false) {
                tracing::warn!("{message}");
            }
            if before.made.is_none() {
                ready.pending("kubelet", message);
            }
            Pods { up: Some(false), failures: before.failures + 1, ..before }
        }
    }
}

/// The checkpoint's names; none when it is not there or broken, since it is only the second way to a name.
fn names(path: &Path, holders: &Holders) -> Names {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(limits::CHECKPOINT_MAX).read_to_end(&mut text));
    if let Err(error) = file {
        tracing::debug!(path = %path.display(), %error, "no checkpoint");
        return Names::new();
    }
    checkpoint::join(&text, &holders.assignments).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the kubelet's checkpoint is not understood");
        Names::new()
    })
}
