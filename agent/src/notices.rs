//! What the cloud tells the machine about its own end: spot interruptions, rebalance hints, maintenance, scale-in. Read from the instance metadata
//! service, which needs no right in any cloud; on a machine without one it is silent, and asks again rarely.
//!
//! | kind | cloud | action | deadline |
//! |---|---|---|---|
//! | `spot_interruption` | EC2 | `terminate`, `stop`, `hibernate` | two minutes after the notice |
//! | `rebalance_recommendation` | EC2 | `rebalance` | none: it may come to nothing |
//! | `maintenance` | EC2, GCE | `system-reboot`, `instance-retirement`, …; `terminate_on_host_maintenance` | EC2: the window's beginning |
//! | `scale_in` | EC2 | `terminate`: the Auto Scaling group ends the machine | none |
//! | `preemption` | GCE | `preempt` | none: about 30 s, which the service does not say |

pub mod dates;
pub mod ec2;
pub mod gce;
pub mod metadata;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::limits;
use crate::live::Live;
use crate::notices::metadata::{Authority, Metadata};

/// Whose machine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

impl Cloud {
    /// As in labels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Cloud::Ec2 => "ec2",
            Cloud::Gce => "gce",
        }
    }
}

/// What a notice is about; the table is above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Kind {
    /// EC2 takes a spot machine back.
    SpotInterruption,
    /// GCE takes a spot or preemptible machine back.
    Preemption,
    /// The Auto Scaling group ends the machine.
    ScaleIn,
    /// The host under the machine is worked on.
    Maintenance,
    /// EC2 sees a higher risk of interruption. Often nothing comes of it.
    RebalanceRecommendation,
}

impl Kind {
    /// As in labels and in the JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::SpotInterruption => "spot_interruption",
            Kind::Preemption => "preemption",
            Kind::ScaleIn => "scale_in",
            Kind::Maintenance => "maintenance",
            Kind::RebalanceRecommendation => "rebalance_recommendation",
        }
    }
}

/// One notice that stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notice {
    /// What it is about.
    pub kind: Kind,
    /// What will be done, in the cloud's word.
    pub action: Arc<str>,
    /// When it was given, seconds since 1970; when the agent first saw it, where the cloud does not say.
    pub at: f64,
    /// When the machine goes, seconds since 1970; `null` when the cloud does not say.
    pub deadline: Option<f64>,
}

/// What is known of the machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Whose machine it is; `None` off-cloud, and until it is known.
    pub cloud: Option<Cloud>,
    /// The machine as Kubernetes names it, `aws:///<zone>/<id>` or `gce://<project>/<zone>/<name>`. `None` until what the cloud announces has been
    /// read once: whoever sees it knows that notices which are not there do not stand.
    pub provider_id: Option<Arc<str>>,
    /// How the machine is paid for: `spot`, `on-demand`, `capacity-block`, `preemptible`…
    pub market: Option<Arc<str>>,
    /// The state in which its Auto Scaling group wants the machine: `InService`, `Terminated`…
    pub lifecycle: Option<Arc<str>>,
    /// What stands, most urgent first.
    pub notices: Vec<Notice>,
    /// Whether the last question was answered; `None` off-cloud.
    pub up: Option<bool>,
    /// Time of the last good answer, seconds since 1970.
    pub last_success: Option<f64>,
    /// Questions that failed since the start.
    pub failures: u64,
}

impl Seen {
    /// Replaces the notices of some kinds with what was heard at `unix`. One that stood before, and has no earlier time of its own, keeps the time at
    /// which it was first seen.
    fn replace(&mut self, kinds: &[Kind], new: Vec<Notice>, unix: f64) {
        let before = std::mem::take(&mut self.notices);
        let same = |a: &Notice, b: &Notice| a.kind == b.kind && a.action == b.action && a.deadline == b.deadline;
        let (stood, others): (Vec<_>, Vec<_>) = before.into_iter().partition(|notice| kinds.contains(&notice.kind));
        self.notices = others;
        for mut notice in new.into_iter().take(limits::NOTICES) {
            match stood.iter().find(|old| same(old, &notice)) {
                Some(old) if notice.at >= unix => notice.at = old.at,
                Some(_) => {}
                None => tracing::warn!(
                    kind = notice.kind.word(),
                    action = &*notice.action,
                    deadline = notice.deadline,
                    "the cloud gives notice"
                ),
            }
            self.notices.push(notice);
        }
        for gone in stood.iter().filter(|old| !self.notices.iter().any(|notice| same(old, notice))) {
            tracing::info!(kind = gone.kind.word(), action = &*gone.action, "a notice is taken back");
        }
        self.notices.sort_by(|a, b| (a.kind, &a.action).cmp(&(b.kind, &b.action)));
    }
}

/// Where what was seen is published.
#[derive(Debug, Default)]
pub struct Board {
    seen: ArcSwap<Seen>,
}

impl Board {
    /// The latest.
    #[must_use]
    pub fn load(&self) -> Arc<Seen> {
        self.seen.load_full()
    }

    /// Changes what is published. The watch of one cloud is one task: nobody writes beside it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = Seen::clone(&self.seen.load());
        change(&mut seen);
        self.seen.store(Arc::new(seen));
    }

    fn good(&self, unix: f64) {
        self.change(|seen| {
            if seen.up == Some(false) {
                tracing::info!("the instance metadata service answers again");
            }
            (seen.up, seen.last_success) = (Some(true), Some(unix));
        });
    }

    fn bad(&self, reason: &metadata::Failure) {
        self.change(|seen| {
            if seen.up != Some(false) {
                tracing::warn!("{reason}; notices from the cloud may be missed");
            }
            (seen.up, seen.failures) = (Some(false), seen.failures + 1);
        });
    }
}

/// The task that looks for a cloud and then listens to it.
#[derive(Debug)]
pub struct Watch {
    /// The metadata service.
    pub authority: Authority,
    /// Where it is published.
    pub board: Arc<Board>,
    /// For times.
    pub clock: Clock,
}

/// Listens to the metadata service of the settings until cancelled; to another one, or to none, when they change.
pub async fn follow(live: Arc<Live>, board: Arc<Board>, clock: Clock, stop: CancellationToken) -> anyhow::Result<()> {
    let mut changes = live.changes();
    loop {
        let asked = changes.borrow_and_update().metadata.clone();
        let watch = async {
            match asked.clone() {
                Some(authority) => Watch { authority, board: Arc::clone(&board), clock }.watch().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = watch => return Ok(()),
            changed = changes.wait_for(|config| config.metadata != asked) => drop(changed?),
        }
        // What one service said is no word of another's.
        board.change(|seen| *seen = Seen::default());
    }
}

impl Watch {
    /// A cloud that was found stays the machine's cloud; without one the question is put again, more and more rarely.
    async fn watch(&self) {
        let mut pause = limits::METADATA_ABSENT_FIRST;
        loop {
            match cloud(&self.authority).await {
                Some(cloud) => {
                    tracing::info!(cloud = cloud.word(), "the instance metadata service answers");
                    self.board.change(|seen| seen.cloud = Some(cloud));
                    return match cloud {
                        Cloud::Ec2 => ec2::watch(self).await,
                        Cloud::Gce => gce::watch(self).await,
                    };
                }
                None => tracing::debug!(address = %self.authority, "no instance metadata: not a machine of EC2 or GCE"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(limits::METADATA_ABSENT_LAST);
        }
    }
}

/// Whose machine this is, by one or two short questions; `None` where nobody answers in a known way.
pub async fn cloud(authority: &Authority) -> Option<Cloud> {
    let mut metadata = Metadata::new(authority.clone());
    let greeting = metadata.get("/", &[gce::FLAVOR], limits::METADATA_PROBE).await.ok()?;
    if greeting.header(gce::FLAVOR.0) == Some(gce::FLAVOR.1) {
        return Some(Cloud::Gce);
    }
    // Behind a hop too many EC2's service greets, but its token never arrives: it is EC2 all the same, and the log says what to do.
    let named = greeting.header("server").is_some_and(|server| server.starts_with("EC2ws"));
    (named || ec2::token(&mut metadata).await.is_ok_and(|token| token.is_dated())).then_some(Cloud::Ec2)
}

/// A foreign word as a label can carry it: short, printable, one word. `None` for anything else.
#[must_use]
pub fn word(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
    (!text.is_empty() && text.len() <= limits::METADATA_WORD && text.bytes().all(plain)).then(|| text.into())
}

/// How long to wait after this many failures in a row: the usual pause at first, up to a minute.
fn patience(usual: Duration, failures: u32) -> Duration {
    (usual * 2_u32.saturating_pow(failures.min(8))).min(limits::METADATA_BACKOFF).max(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(kind: Kind, action: &str, at: f64, deadline: Option<f64>) -> Notice {
        Notice { kind, action: action.into(), at, deadline }
    }

    #[test]
    fn a_notice_keeps_the_time_at_which_it_was_first_seen() {
        let mut seen = Seen::default();
        let spot = |at, deadline| vec![notice(Kind::SpotInterruption, "terminate", at, Some(deadline))];
        seen.replace(&[Kind::SpotInterruption], spot(10.0, 130.0), 10.0);
        seen.replace(&[Kind::Maintenance], vec![notice(Kind::Maintenance, "system-reboot", 12.0, None)], 12.0);
        seen.replace(&[Kind::SpotInterruption], spot(15.0, 130.0), 15.0);
        let kept: Vec<_> = seen.notices.iter().map(|notice| (notice.kind.word(), notice.at)).collect();
        assert_eq!(kept, [("spot_interruption", 10.0), ("maintenance", 12.0)]);
        seen.replace(&[Kind::SpotInterruption], Vec::new(), 20.0);
        assert_eq!(seen.notices.len(), 1, "what is taken back is gone");
        let hint = |at| vec![notice(Kind::RebalanceRecommendation, "rebalance", at, None)];
        for (at, unix, expect) in
            [(100.0, 110.0, 100.0), (100.0, 900.0, 100.0), (950.0, 960.0, 950.0), (970.0, 970.0, 950.0)]
        {
            seen.replace(&[Kind::RebalanceRecommendation], hint(at), unix);
            assert!((seen.notices[1].at - expect).abs() < 1e-9, "a later hint is a new one, {at} at {unix}");
        }
    }

    #[test]
    fn a_foreign_word_is_short_and_plain_or_nothing() {
        for (text, expect) in [
            ("terminate", Some("terminate")),
            (" InService\n", Some("InService")),
            ("Warmed:Pending:Wait", Some("Warmed:Pending:Wait")),
            ("", None),
            ("two words", None),
            ("<html>", None),
            (&"a".repeat(65), None),
        ] {
            assert_eq!(word(text).as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn failures_are_followed_by_longer_pauses() {
        let seconds = Duration::from_secs;
        let pauses: Vec<_> = [0, 1, 2, 3, 4, 40].map(|failures| patience(seconds(5), failures).as_secs()).into();
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    }

    /// Every parser of the two services at once.
    fn read_all(bytes: &[u8]) {
        let _ec2 = (ec2::instance_action(bytes, 1.0), ec2::rebalance(bytes, 1.0), ec2::maintenance(bytes, 1.0));
        let _market = gce::market(bytes);
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _gce = (gce::preempted(text, 1.0), gce::maintenance(text, 1.0), word(text));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            read_all(&bytes);
        }

        #[test]
        fn what_is_nearly_right_is_read_without_a_panic(
            key in "action|time|noticeTime|NotBefore|Code|State|preemptible",
            value in r#""[^"]{0,30}"|null|[0-9]{1,30}|\[\]|\{\}"#,
            open in r"\{|\[\{|",
        ) {
            read_all(format!("{open}\"{key}\":{value}}}").as_bytes());
            read_all(format!("[{{\"{key}\":{value}}}]").as_bytes());
        }
    }
}
