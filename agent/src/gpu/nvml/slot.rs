//! The place of one GPU in a session: its card is here, or away with a thread whose call has not come back.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use super::device::{Broken, Card};
use super::raw::Handle;
use super::worker::Outcome;
use crate::gpu::{Gpu, Identity, MigInstance};

/// What the thread brings back: the card, and the reading if it was asked for one.
pub(super) type Brought = (Box<Card>, Option<(Gpu, Broken)>);

/// One GPU's place.
pub(super) struct Slot {
    identity: Arc<Identity>,
    card: Place,
    told: State,
    answered: Option<Duration>,
    /// How the GPU was divided when it answered last.
    layout: Option<Vec<MigInstance>>,
    /// Whether it was down since it was looked up: what answers under its handle then may be another GPU.
    stale: bool,
}

enum Place {
    Home(Box<Card>),
    /// In the hands of the thread that is waited for.
    Lent,
    /// In the hands of a thread whose call has not come back.
    Away(Receiver<Brought>),
}

/// What the log was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Hangs,
}

impl Slot {
    /// A GPU that has not been looked up.
    pub(super) fn new(index: u32) -> Self {
        let identity = Arc::new(Identity { index, ..Identity::default() });
        let card = Place::Home(Box::new(Card::new(Arc::clone(&identity))));
        Self { identity, card, told: State::Up, answered: None, layout: None, stale: false }
    }

    /// Takes back a card whose call has come back since.
    pub(super) fn come_home(&mut self) {
        let Place::Away(late) = &self.card else { return };
        match late.try_recv() {
            Ok((card, _too_late)) => self.home(card),
            Err(TryRecvError::Empty) => {}
            // The thread broke and the card with it.
            Err(TryRecvError::Disconnected) => self.home(Box::new(Card::new(Arc::clone(&self.identity)))),
        }
    }

    fn home(&mut self, card: Box<Card>) {
        if self.identity.uuid != card.identity.uuid {
            // Another GPU is in its place.
            (self.answered, self.layout) = (None, None);
        }
        self.identity = Arc::clone(&card.identity);
        self.card = Place::Home(card);
    }

    /// Gives the card away for a piece of work; nothing where a call hangs that has it.
    pub(super) fn lend(&mut self) -> Option<Box<Card>> {
        match std::mem::replace(&mut self.card, Place::Lent) {
            Place::Home(card) => Some(card),
            elsewhere => {
                self.card = elsewhere;
                None
            }
        }
    }

    /// Whether the card was given away and is to be taken back.
    pub(super) fn is_lent(&self) -> bool {
        matches!(self.card, Place::Lent)
    }

    /// Takes the card back with what was read, or knows from now on that a call hangs.
    pub(super) fn take_back(&mut self, outcome: Outcome<Brought>) -> Option<(Gpu, Broken)> {
        match outcome {
            Ok((card, reading)) => {
                self.home(card);
                reading
            }
            Err(late) => {
                self.card = Place::Away(late);
                None
            }
        }
    }

    /// Whether a call of this GPU has not come back.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.card, Place::Away(_))
    }

    /// Whether the driver has to be asked anew: for a handle, or for a name that it did not tell with one. Without it nobody holds the GPU.
    pub(super) fn needs_look_up(&self) -> bool {
        matches!(&self.card, Place::Home(card) if card.handle.is_none() || card.identity.uuid.is_empty())
    }

    /// The handle with the GPU's uuid.
    pub(super) fn named_handle(&self) -> Option<(Handle, Arc<str>)> {
        let Place::Home(card) = &self.card else { return None };
        Some((card.handle.clone()?, Arc::clone(&card.identity.uuid)))
    }

    /// Forgets the handle.
    pub(super) fn drop_handle(&mut self) {
        if let Place::Home(card) = &mut self.card {
            card.handle = None;
        }
    }

    /// The driver was asked for it anew.
    pub(super) fn looked_up(&mut self) {
        self.stale = false;
    }

    /// Whether it is back and has to be looked up before anything is said of it: after a reset the driver's order may be another.
    pub(super) fn is_back(&self, gpu: &Gpu) -> bool {
        gpu.up && self.stale
    }

    /// The GPU as it shows until then.
    pub(super) fn down(&self) -> Gpu {
        Gpu { identity: Arc::clone(&self.identity), ..Gpu::default() }
    }

    /// The GPU as it shows while a call hangs.
    pub(super) fn hangs(&self) -> Gpu {
        Gpu { hangs: true, ..self.down() }
    }

    /// Notes when the GPU answered last, and its instances: they stay their holders' while it does not answer.
    pub(super) fn date(&mut self, gpu: &mut Gpu, now: Duration) {
        if gpu.up {
            self.answered = Some(now);
            if !self.knows(gpu.mig.as_deref()) {
                self.layout = gpu.mig.as_ref().map(|mig| mig.iter().map(MigInstance::unread).collect());
            }
        } else {
            gpu.mig.clone_from(&self.layout);
        }
        gpu.sample_age = self.answered.map(|at| now.saturating_sub(at));
    }

    /// Whether these instances are the ones that were remembered, out of one enumeration.
    fn knows(&self, mig: Option<&[MigInstance]>) -> bool {
        let same = |(a, b): (&MigInstance, &MigInstance)| Arc::ptr_eq(&a.uuid, &b.uuid);
        match (self.layout.as_deref(), mig) {
            (Some(known), Some(mig)) => known.len() == mig.len() && known.iter().zip(mig).all(same),
            (None, None) => true,
            _ => false,
        }
    }

    /// Logs that the GPU went or came back, once per change.
    pub(super) fn tell(&mut self, gpu: &Gpu) {
        let state = match gpu {
            Gpu { up: true, .. } => State::Up,
            Gpu { hangs: true, .. } => State::Hangs,
            _ => State::Down,
        };
        self.stale |= state == State::Down;
        let Identity { index, uuid, .. } = &*self.identity;
        match (self.told, state) {
            (told, state) if told == state => {}
            (_, State::Up) => tracing::info!(index, %uuid, "the GPU answers again"),
            (_, State::Hangs) => {
                tracing::warn!(index, %uuid, "a call to the GPU hangs; the others go on; look at dmesg for Xid errors");
            }
            (_, State::Down) => {
                tracing::warn!(index, %uuid, "the GPU does not answer; look at dmesg for Xid errors, reset it or reboot the node");
            }
        }
        self.told = state;
    }
}
