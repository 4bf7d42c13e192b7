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

/// What the loop works with.
#[derive(Debug)]
pub struct Poll {
    /// The kubelet's socket.
    pub socket: PathBuf,
    /// The device manager's checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Where the map is published.
    pub shared: Arc<Shared>,
    /// For the map's age.
    pub clock: Clock,
    /// Told when the first answer came.
    pub ready: Ready,
}

impl Poll {
    /// Asks for as long as the agent runs. Ends only when cancelled, or when the socket's path is no path.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut kubelet = Kubelet::new(&self.socket).map_err(|error| {
            anyhow::anyhow!("--kubelet-socket {}: {error}; give an absolute path", self.socket.display())
        })?;
        loop {
            let before = Pods::clone(&self.shared.pods.load());
            let answer = kubelet.holders().await;
            self.shared.pods.store(Arc::new(self.next(before, answer)));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(limits::PODS_INTERVAL) => {}
                () = rung(&self.shared.stranger) => {}
            }
        }
    }

    fn next(&self, before: Pods, answer: Result<Holders, String>) -> Pods {
        let socket = self.socket.display();
        match answer {
            Ok(mut holders) => {
                if before.up != Some(true) {
                    tracing::info!(%socket, devices = holders.assignments.len(), "the kubelet answers");
                }
                self.ready.done("kubelet");
                if let Some(path) = &self.checkpoint {
                    holders.names = names(path, &holders);
                }
                Pods {
                    holders: Arc::new(holders),
                    made: Some((self.clock.now(), self.clock.unix())),
                    up: Some(true),
                    ..before
                }
            }
            Err(reason) => {
                let message = format!("{socket} does not answer: {reason}");
                if before.up != Some(false) {
                    tracing::warn!("{message}");
                }
                if before.made.is_none() {
                    self.ready.pending("kubelet", message);
                }
                Pods { up: Some(false), failures: before.failures + 1, ..before }
            }
        }
    }
}

/// A ring is heard, but not before the shortest interval has passed.
async fn rung(stranger: &Notify) {
    tokio::time::sleep(limits::PODS_INTERVAL_MIN).await;
    stranger.notified().await;
}

/// The checkpoint's names; none when it is not there or broken, since it is only the last way to a name.
#[must_use]
pub fn names(path: &Path, holders: &Holders) -> Names {
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
