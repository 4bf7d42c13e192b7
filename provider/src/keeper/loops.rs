//! Loops of CA that begin while the cloud has not said what becomes of something: they wait a moment for its answer, since
//! CA reads right after, and would else learn of a refusal one loop late.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{sync::oneshot, time};

use super::{Command, Handle, Keeper, limits};
use crate::{cloud::Look, timestamp::Timestamp};

/// Loops that wait.
#[derive(Debug, Default)]
pub(super) struct Attended {
    /// For a listing that has not begun yet.
    waiting: Vec<oneshot::Sender<()>>,
    /// For the listing that is under way.
    served: Vec<oneshot::Sender<()>>,
    /// For launches that are under way.
    launching: Vec<oneshot::Sender<()>>,
    /// When the last listing for one began, or an order was given that the cloud needs a moment for.
    last: Timestamp,
}

impl Handle {
    /// CA begins a loop. Where the cloud has not said what becomes of a launch or an order, this waits for it, for
    /// [`limits::LOOP_WAIT`] at most; else it does not wait at all.
    pub async fn attend(&self) {
        if !self.snapshot().fleet.groups().any(|view| view.in_flight()) {
            return;
        }
        let (done, answer) = oneshot::channel();
        if self.commands.try_send(Command::Attend(done)).is_ok() {
            // In time or not, the loop goes on with what is known then.
            let _ = time::timeout(limits::LOOP_WAIT, answer).await;
        }
    }
}

impl Keeper {
    /// A loop of CA begins. However often one does, the cloud is not asked about orders more often than every few seconds.
    pub(super) fn attend(&mut self, reply: oneshot::Sender<()>, now: Timestamp) {
        let ordered = self.fleet.groups().any(|view| view.ordered() > 0);
        let attended = &mut self.attended;
        if ordered && now.since(attended.last) >= limits::ORDERS_AGAIN {
            attended.waiting.push(reply);
            self.list(now);
        } else if !attended.served.is_empty() {
            attended.served.push(reply);
        } else if self.is_launching() {
            self.attended.launching.push(reply);
        }
    }

    /// Begins a listing, unless one is under way.
    pub(super) fn list(&mut self, now: Timestamp) {
        self.attended.waiting.retain(|reply| !reply.is_closed());
        let awaited = !self.attended.waiting.is_empty();
        if !self.calls.list(Look { now, awaited }) {
            return;
        }
        if awaited {
            self.attended.served.append(&mut self.attended.waiting);
            self.attended.last = now;
        }
        let busy = self.fleet.groups().any(|view| view.is_moving());
        let pace = if busy { self.settings.refresh.min(Duration::from_secs(2)) } else { self.settings.refresh };
        self.next_listing = now + pace;
    }

    /// CA counts as calling while its Refresh comes often enough.
    pub(super) fn watch_caller(&mut self, now: Timestamp) {
        let called = Timestamp(self.handle.called.load(Ordering::Relaxed));
        if called.0 == 0 || now.since(called) > limits::CALLER_GONE {
            self.calling_since = None;
        } else {
            self.calling_since.get_or_insert(called);
        }
    }

    /// The cloud took an order that it needs a moment for.
    pub(super) fn ordered(&mut self, now: Timestamp) {
        self.attended.last = now;
    }

    /// Something came of a call, and the snapshot shows it.
    pub(super) fn heard(&mut self, listed: bool, now: Timestamp) {
        if listed {
            answer(&mut self.attended.served);
        }
        if !self.is_launching() {
            answer(&mut self.attended.launching);
        }
        if !self.attended.waiting.is_empty() {
            self.list(now);
        }
    }

    fn is_launching(&self) -> bool {
        self.fleet.groups().any(|view| view.is_launching())
    }
}

fn answer(loops: &mut Vec<oneshot::Sender<()>>) {
    // One that has waited too long has gone on by itself.
    loops.drain(..).for_each(|reply| _ = reply.send(()));
}
