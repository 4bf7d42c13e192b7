//! The loop that asks the kubelet: every ten seconds, and soon when a stranger shows up; a failure keeps the last good map and is asked after
//! again with growing pauses. Publishes immutable values that the sampler reads and never waits for.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::checkpoint::{self, Names};
use super::identity::{Identities, Known, Shown, Source};
use super::kubelet::pods::PodsApi;
use super::kubelet::{Kubelet, Refusal};
use super::{Holders, Owner};
use crate::clock::Clock;
use crate::config::limits;
use crate::live::Live;
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
    /// Whether the Pods API answered last; `None` where the kubelet has none.
    pub identified: Option<bool>,
}

/// What the sampler and the loop share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The value in use.
    pub pods: ArcSwap<Pods>,
    /// Uids and labels of pods, from the kubelet or from an informer.
    pub identities: Known,
    /// Rung when a process of an unknown container, or a new device, appears.
    pub stranger: Notify,
}

/// What the loop works with.
#[derive(Debug)]
pub struct Poll {
    /// The kubelet's socket.
    pub socket: PathBuf,
    /// The socket of the kubelet's Pods API, which few kubelets have yet.
    pub pods_socket: Option<PathBuf>,
    /// What of a pod's identity becomes labels is in the settings.
    pub live: Arc<Live>,
    /// The device manager's checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Where the map is published.
    pub shared: Arc<Shared>,
    /// For the map's age.
    pub clock: Clock,
    /// Told when the first answer came.
    pub ready: Ready,
}

/// How the asking goes, from question to question.
#[derive(Debug, Default)]
struct Pace {
    /// Refusals in a row.
    refusals: u32,
    /// Whether a stranger asked for this question.
    rung: bool,
    /// When every pod was last asked for, monotonic, and what of each was to be shown.
    identified: Option<(Duration, Shown)>,
}

impl Pace {
    /// How long to wait after an answer, and after how long a stranger is heard. One that is refused asks again after one second, two, four…:
    /// a kubelet that restarts is found soon, one that limits calls is not pressed, and strangers wait.
    fn pauses(&self) -> (Duration, Duration) {
        let Some(doublings) = self.refusals.checked_sub(1) else {
            return (limits::PODS_INTERVAL, limits::PODS_INTERVAL_MIN);
        };
        let pause = limits::PODS_RETRY.saturating_mul(1 << doublings.min(8)).min(limits::PODS_INTERVAL);
        (pause, limits::PODS_INTERVAL)
    }

    /// Whether what the Pods API said is told no longer, once: it is away for a moment while the kubelet restarts, and for good where the kubelet starts
    /// without it. Pods made again under their names are others by then. Asked in time and refused once, it may still be asked again.
    fn outlived(&mut self, now: Duration) -> bool {
        self.identified.take_if(|(at, _)| now.saturating_sub(*at) >= limits::IDENTITY_INTERVAL * 2).is_some()
    }
}

impl Poll {
    /// Asks for as long as the agent runs. Ends only when cancelled, or when a socket's path is no path.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut kubelet = Kubelet::new(&self.socket).map_err(|error| {
            anyhow::anyhow!("--kubelet-socket {}: {error}; give an absolute path", self.socket.display())
        })?;
        let mut api = self.pods_api()?;
        let mut pace = Pace::default();
        let mut changes = self.live.changes();
        loop {
            let before = Pods::clone(&self.shared.pods.load());
            let shown = self.live.config().shown.clone();
            let answer = kubelet.holders().await;
            pace.refusals = if answer.is_ok() { 0 } else { pace.refusals.saturating_add(1) };
            let mut next = self.next(before, answer);
            if let Some(api) = &mut api {
                self.identify(api, &shown, &mut next, &mut pace).await;
            }
            self.shared.pods.store(Arc::new(next));
            let (pause, deaf) = pace.pauses();
            pace.rung = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => false,
                () = rung(&self.shared.stranger, deaf) => true,
                changed = changes.wait_for(|config| config.shown != shown) => changed.map(|_| false)?,
            };
        }
    }

    fn pods_api(&self) -> anyhow::Result<Option<PodsApi>> {
        let api = self.pods_socket.as_deref().map(|socket| {
            PodsApi::new(socket).map_err(|error| {
                anyhow::anyhow!("--kubelet-pods-socket {}: {error}; give an absolute path", socket.display())
            })
        });
        api.transpose()
    }

    /// Asks the Pods API when there is a reason: a holder without identity, a stranger, or labels that may have changed.
    async fn identify(&self, api: &mut PodsApi, shown: &Shown, pods: &mut Pods, pace: &mut Pace) {
        let now = self.clock.now();
        if !api.exists() {
            pods.identified = None;
            self.forget(now, pace);
            return;
        }
        let known = self.shared.identities.current();
        let fresh = pace
            .identified
            .as_ref()
            .is_some_and(|(at, as_shown)| now.saturating_sub(*at) < limits::IDENTITY_INTERVAL && as_shown == shown);
        if fresh && pods.identified == Some(true) && !pace.rung && !misses(&known, &pods.holders) {
            return;
        }
        match api.pods().await {
            Ok(found) => {
                if pods.identified != Some(true) {
                    tracing::info!(pods = found.len(), "the kubelet's Pods API answers");
                }
                (pods.identified, pace.identified) = (Some(true), Some((now, shown.clone())));
                let identities = Identities::new(found, shown);
                self.shared.identities.publish(Source::Kubelet, Some(identities));
            }
            Err(Refusal { reason, .. }) => {
                if pods.identified != Some(false) {
                    tracing::warn!("the kubelet's Pods API does not answer: {reason}");
                }
                pods.identified = Some(false);
                self.forget(now, pace);
            }
        }
    }

    /// Gives up what the Pods API said when it was too long ago; an informer, where there is one, is heard instead.
    fn forget(&self, now: Duration, pace: &mut Pace) {
        if pace.outlived(now) {
            self.shared.identities.publish(Source::Kubelet, None);
        }
    }

    fn next(&self, before: Pods, answer: Result<Holders, Refusal>) -> Pods {
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
                let same = *before.holders == holders;
                Pods {
                    // What knows the containers of the answer before goes on to know them.
                    holders: if same { Arc::clone(&before.holders) } else { Arc::new(holders) },
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

/// Whether a holder is not known, or only the pod that had its name before: the checkpoint has the uid of the one that is there.
fn misses(known: &Identities, holders: &Holders) -> bool {
    let another = |uid: &str, owner: &Owner| known.of(owner).is_some_and(|identity| *identity.uid != *uid);
    holders.assignments.iter().any(|assignment| known.of(&assignment.owner).is_none())
        || holders.names.iter().any(|((uid, _), owner)| another(uid, owner))
}

/// A ring is heard, but not before this much time has passed.
async fn rung(stranger: &Notify, deaf: Duration) {
    tokio::time::sleep(deaf).await;
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

#[cfg(test)]
mod tests {
    use super::super::Assignment;
    use super::super::identity::Pod;
    use super::*;

    #[test]
    fn a_kubelet_that_refuses_is_asked_with_growing_pauses() {
        let after = |refusals| Pace { refusals, ..Pace::default() }.pauses();
        let seconds = Duration::from_secs;
        assert_eq!(after(0), (seconds(10), seconds(2)));
        let pauses: Vec<u64> = (1..7).map(|refusals| after(refusals).0.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert_eq!(after(u32::MAX), (seconds(10), seconds(10)), "strangers wait");
    }

    #[test]
    fn a_pod_made_again_under_its_name_is_asked_for() {
        let owner = Owner { namespace: "ml".into(), pod: "a".into(), container: "main".into() };
        let holders = |uid: &str| {
            let given = Assignment { owner: Arc::new(owner.clone()), device_id: "GPU-1".into(), claimed: false };
            let names = [((uid.to_owned(), "main".to_owned()), Arc::clone(&given.owner))].into();
            Holders { names, ..Holders::new(vec![given]) }
        };
        let pod = Pod { namespace: "ml".into(), name: "a".into(), uid: "one".into(), ..Pod::default() };
        let known = Identities::new([pod], &Shown::default());
        let all = [(&Identities::default(), "one"), (&known, "one"), (&known, "two")];
        assert_eq!(all.map(|(known, uid)| misses(known, &holders(uid))), [true, false, true]);
    }

    #[test]
    fn what_a_pods_api_said_that_is_gone_is_forgotten_after_two_minutes() {
        let seconds = Duration::from_secs;
        let mut pace = Pace { identified: Some((seconds(100), Shown::default())), ..Pace::default() };
        assert_eq!([110, 219, 220, 300].map(|now| pace.outlived(seconds(now))), [false, false, true, false]);
    }
}
