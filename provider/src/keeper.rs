//! The one writer. It lists the cloud at its own pace, carries out what CA asks, and publishes a new [`Snapshot`]
//! before it answers, so that CA's next question sees what its last one did.

mod calls;
mod carry;
mod clock;
pub mod look;
mod loops;
mod state;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, oneshot},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::Cloud,
    config::{Config, limits},
    expander::bought::{Bought, Offer},
    fleet::{
        Fleet,
        group::{GroupId, GroupSettings, InstanceId},
        intents::IntentId,
        learned::Learned,
        ledger::{Denied, Named},
        notices::Notice,
        offering::Offerings,
        template::Dialect,
    },
    metrics::Metrics,
    ready::Guard,
    snapshot::{Snapshot, Troubles},
    timestamp::Timestamp,
};

pub(crate) use clock::clock;
#[cfg(feature = "aws")]
pub(crate) use clock::wall;

/// What the keeper answers to a change.
pub type Reply = oneshot::Sender<Result<(), Denied>>;

/// What the keeper can be asked. A request whose asker has gone away is dropped without effect.
#[derive(Debug)]
pub enum Command {
    /// `delta` more machines.
    Increase {
        /// The group's id.
        group: String,
        /// As CA sent it.
        delta: i32,
        /// Answered when the snapshot shows it.
        reply: Reply,
    },
    /// `-delta` machines that are not there yet are not wanted any more.
    Decrease {
        /// The group's id.
        group: String,
        /// As CA sent it.
        delta: i32,
        /// Answered when the snapshot shows it.
        reply: Reply,
    },
    /// Exactly these are to go.
    Delete {
        /// The group's id.
        group: String,
        /// As CA named them.
        nodes: Vec<Named>,
        /// Answered when the snapshot shows it.
        reply: Reply,
    },
    /// The expander answered; this is what it was asked about.
    Offered(Vec<Offer>),
    /// CA showed this machine as a real Node.
    Seen(String),
    /// CA plans with these real nodes.
    Learned(Vec<(GroupId, Learned)>),
    /// A machine's end was announced.
    Noticed(Notice),
    /// CA begins a loop: answered when what the cloud owed an answer to is known, or was asked for a moment ago.
    Attend(oneshot::Sender<()>),
    /// Another configuration is in force.
    Reload(Box<Config>),
}

/// How everyone else reaches the keeper. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// When CA last called Refresh, in milliseconds; 0 for never.
    called: Arc<AtomicU64>,
}

/// Why a command got no answer of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// The keeper's answer.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nothing happened: too much was waiting, or the answer would have come too late.
    #[error("the provider is too busy; nothing was changed")]
    Busy,
}

impl Handle {
    /// Of a keeper that is gone: whatever it is told, nobody hears it.
    #[cfg(all(test, feature = "aws"))]
    pub(crate) fn gone() -> Self {
        Self { commands: mpsc::channel(1).0, snapshot: Arc::default(), called: Arc::default() }
    }

    /// The newest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Asks for a change and waits until the snapshot shows it.
    ///
    /// # Errors
    /// What the change was denied for, or that nobody had time for it; nothing has changed then.
    pub async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<(), Unheard> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|_| Unheard::Busy)?;
        match time::timeout(limits::COMMAND, answer).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) | Err(_) => Err(Unheard::Busy),
        }
    }

    /// Tells the keeper something that wants no answer; dropped when it is too busy.
    pub fn tell(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            tracing::debug!("the keeper is busy, a note to it was dropped");
        }
    }

    /// Waits until a note is accepted, which matters before an answer that CA acts upon.
    ///
    /// # Errors
    /// The keeper is gone or too busy.
    pub async fn note(&self, command: Command) -> Result<(), Unheard> {
        let sent = time::timeout(limits::COMMAND, self.commands.send(command)).await;
        sent.map_err(|_| Unheard::Busy)?.map_err(|_| Unheard::Busy)
    }

    /// CA called.
    pub fn called(&self) {
        self.called.store(clock().0, Ordering::Relaxed);
    }
}

/// What the keeper goes by, as far as the configuration can change it.
#[derive(Clone, Debug)]
struct Settings {
    refresh: Duration,
    reap_after: Duration,
    overrides: BTreeMap<String, GroupSettings>,
}

impl Settings {
    fn of(config: &Config) -> Self {
        let reap_after = config.unregistered.reap_after;
        Self { refresh: config.refresh(), reap_after, overrides: config.groups.clone() }
    }
}

/// The writer itself.
pub struct Keeper {
    fleet: Fleet,
    bought: Bought,
    offerings: Offerings,
    settings: Settings,
    dialect: Arc<Dialect>,
    metrics: Arc<Metrics>,
    calls: calls::Calls,
    file: Option<state::File>,
    started: Timestamp,
    intents: u64,
    /// When machines were ended that a listing still shows.
    ended: BTreeMap<InstanceId, Timestamp>,
    synced_at: Option<Timestamp>,
    troubles: Troubles,
    empty_listings: u32,
    /// Since when CA has been calling without a pause.
    calling_since: Option<Timestamp>,
    next_listing: Timestamp,
    next_sweep: Timestamp,
    attended: loops::Attended,
    /// Held until the first listing.
    unsynced: Option<Guard>,
    commands: mpsc::Receiver<Command>,
    handle: Handle,
    changed: Changed,
}

/// What differs from what was published last.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    fleet: bool,
    bought: bool,
    offerings: bool,
}

/// What a keeper is built from.
pub struct Parts {
    /// The cloud, already patient and metered.
    pub cloud: Arc<dyn Cloud>,
    /// How nodes are labelled.
    pub dialect: Arc<Dialect>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// Dropped after the first listing.
    pub unsynced: Guard,
}

impl Keeper {
    /// Builds the keeper and reads its state file.
    ///
    /// # Errors
    /// A state file that is there and cannot be read: going on without it could buy twice.
    pub fn new(config: &Config, parts: Parts) -> anyhow::Result<(Self, Handle)> {
        let (sender, commands) = mpsc::channel(limits::COMMANDS);
        let handle = Handle { commands: sender, snapshot: Arc::default(), called: Arc::default() };
        let file = config.state.clone().map(state::File::new);
        let kept = file.as_ref().map(state::File::read).transpose()?.flatten().unwrap_or_default();
        let started = clock();
        let mut keeper = Self {
            fleet: Fleet::restore(kept.fleet),
            bought: kept.bought,
            offerings: kept.offerings,
            settings: Settings::of(config),
            dialect: parts.dialect,
            metrics: parts.metrics,
            calls: calls::Calls::new(parts.cloud),
            file,
            started,
            intents: 0,
            ended: BTreeMap::new(),
            synced_at: None,
            troubles: Troubles::default(),
            empty_listings: 0,
            calling_since: None,
            next_listing: started,
            next_sweep: started,
            attended: loops::Attended::default(),
            unsynced: Some(parts.unsynced),
            commands,
            handle: handle.clone(),
            changed: Changed { fleet: true, bought: true, offerings: true },
        };
        keeper.configure(config);
        keeper.publish();
        Ok((keeper, handle))
    }

    fn configure(&mut self, config: &Config) {
        self.settings = Settings::of(config);
        self.bought.set_limits(config.purchase_memory.clone());
        self.offerings.backoff = config.offerings;
        self.changed = Changed { fleet: true, bought: true, offerings: true };
        self.next_listing = clock();
    }

    /// Works until told to stop. What is under way at the cloud then is left to the next process, which repeats it
    /// under the same tokens.
    ///
    /// # Errors
    /// None; the type is that of a task.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        let mut tick = time::interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.commands.recv_many(&mut batch, 256) => {
                    if count == 0 {
                        break;
                    }
                    self.obey(&mut batch).await;
                }
                outcome = self.calls.next() => self.hear(outcome).await,
                _ = tick.tick() => self.tick().await,
            }
        }
        self.persist().await;
        Ok(())
    }

    /// Carries out a batch, publishes once, and only then answers.
    async fn obey(&mut self, batch: &mut Vec<Command>) {
        let now = clock();
        let mut replies = Vec::new();
        for command in batch.drain(..) {
            match command {
                Command::Increase { reply, .. } | Command::Decrease { reply, .. } | Command::Delete { reply, .. }
                    if reply.is_closed() => {}
                Command::Increase { group, delta, reply } => replies.push((reply, self.increase(&group, delta, now))),
                Command::Decrease { group, delta, reply } => replies.push((reply, self.decrease(&group, delta, now))),
                Command::Delete { group, nodes, reply } => replies.push((reply, self.delete(&group, &nodes, now))),
                Command::Offered(offers) => {
                    self.bought.offered(offers, now);
                    self.changed.bought = true;
                }
                Command::Seen(instance) => self.seen(&instance, now),
                Command::Learned(nodes) => {
                    nodes.into_iter().for_each(|(group, node)| self.fleet.learn(group, node));
                    self.changed.fleet = true;
                }
                Command::Noticed(notice) => self.noticed(&notice, now),
                Command::Attend(reply) => self.attend(reply, now),
                Command::Reload(config) => self.configure(&config),
            }
        }
        // Launches begin after they are written down, so that a restart knows of them.
        self.settle().await;
        for (reply, answer) in replies {
            let _ = reply.send(answer);
        }
    }

    /// Writes, publishes, and lets the calls begin that were put down.
    async fn settle(&mut self) {
        if self.changed.fleet {
            self.persist().await;
        }
        self.publish();
        self.calls.begin();
    }

    async fn tick(&mut self) {
        let now = clock();
        self.watch_caller(now);
        if now >= self.next_listing {
            self.list(now);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + Duration::from_secs(1);
            self.changed.fleet |= self.fleet.expire(now);
            self.bought.expire(now);
            self.offerings.expire(now);
            self.reap(now);
            self.take_leave(now);
            if self.changed.fleet {
                self.settle().await;
            }
        }
    }

    fn publish(&mut self) {
        let before = self.handle.snapshot.load();
        let fresh = Snapshot {
            fleet: if self.changed.fleet { Arc::new(self.fleet.clone()) } else { before.fleet.clone() },
            bought: if self.changed.bought { Arc::new(self.bought.clone()) } else { before.bought.clone() },
            offerings: if self.changed.offerings { Arc::new(self.offerings.clone()) } else { before.offerings.clone() },
            synced_at: self.synced_at,
            troubles: self.troubles.clone(),
            at: clock(),
        };
        self.handle.snapshot.store(Arc::new(fresh));
        self.changed = Changed::default();
    }

    async fn persist(&mut self) {
        let Some(file) = &mut self.file else { return };
        let kept =
            state::Kept { fleet: self.fleet.saved(), bought: self.bought.clone(), offerings: self.offerings.clone() };
        if let Err(error) = file.write(&kept).await {
            self.metrics.state_failed();
            tracing::error!(
                "the state could not be kept; a restart now could buy twice; make room, or let the folder be written: {error:#}"
            );
        }
    }

    fn next_intent(&mut self) -> IntentId {
        self.intents += 1;
        IntentId::new(self.intents, self.started)
    }
}

#[cfg(test)]
mod tests;
