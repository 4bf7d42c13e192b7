//! The places that connections have. There are few, so that a flood costs little memory; a newcomer gets the place of whoever asked nothing for longest,
//! so that silent and slow clients, however many, keep neither a kubelet's probe nor Prometheus out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Who is served.
#[derive(Debug)]
pub(super) struct Places {
    count: usize,
    /// Requests and connections so far: what orders them without a clock.
    turns: Arc<AtomicU64>,
    taken: Vec<(Arc<Place>, AbortHandle)>,
}

/// One connection's place.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<AtomicU64>,
    /// The turn at which it asked last; at first, when it came.
    last: AtomicU64,
    asked: Notify,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self { count, turns: Arc::default(), taken: Vec::with_capacity(count) }
    }

    /// A place for a connection that has come.
    pub(super) fn place(&self) -> Arc<Place> {
        let place = Place { turns: Arc::clone(&self.turns), last: AtomicU64::default(), asked: Notify::new() };
        place.asks();
        Arc::new(place)
    }

    /// Seats it; where all places are taken, the one that asked nothing for longest is cut off.
    pub(super) fn seat(&mut self, place: Arc<Place>, connection: AbortHandle) {
        self.taken.retain(|(_, connection)| !connection.is_finished());
        let quiet = self.taken.iter().enumerate().min_by_key(|(_, (place, _))| place.last.load(Ordering::Relaxed));
        if let Some((quiet, _)) = quiet.filter(|_| self.taken.len() >= self.count) {
            self.taken.swap_remove(quiet).1.abort();
        }
        self.taken.push((place, connection));
    }
}

impl Place {
    /// A request came.
    pub(super) fn asks(&self) {
        self.last.store(self.turns.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// Waits until no request came for this long. What keeps a connection alive without asking anything, such as HTTP/2's pings, does not count.
    pub(super) async fn silence(&self, long: Duration) {
        while tokio::time::timeout(long, self.asked.notified()).await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn a_newcomer_gets_the_place_of_who_asked_nothing_for_longest() {
        let (mut places, mut tasks) = (Places::new(2), JoinSet::new());
        let mut come = |places: &mut Places| {
            let place = places.place();
            let task = tasks.spawn(std::future::pending::<()>());
            places.seat(Arc::clone(&place), task.clone());
            (place, task)
        };
        let (first, second) = (come(&mut places), come(&mut places));
        first.0.asks();
        let third = come(&mut places);
        let ended = async |task: &AbortHandle| {
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        ended(&second.1).await;
        third.1.abort();
        ended(&third.1).await;
        let fourth = come(&mut places);
        assert!(!first.1.is_finished() && !fourth.1.is_finished(), "who has left makes room first");
        assert_eq!(places.taken.len(), 2);
    }
}
