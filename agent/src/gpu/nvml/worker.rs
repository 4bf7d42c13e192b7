//! The thread that makes calls, and what happens when a call does not come back: the work in hand stays with its thread, and a fresh thread takes
//! the rest. A hung GPU costs one thread and its own figures, nobody else's.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// How long the work on one thing may take before its thread is left alone with it…
const BUDGET: Duration = Duration::from_secs(1);
/// …and how long it may take at least, when those before it have used up the time of all.
const BUDGET_MIN: Duration = Duration::from_millis(50);

type Job = Box<dyn FnOnce() + Send>;

/// What became of the work on one thing: its result, or where the result comes later.
pub(super) type Outcome<O> = Result<O, Receiver<O>>;

/// Where the result of work that was given up comes later, and what had not been begun then.
type GivenUp<I, O> = (Receiver<O>, VecDeque<I>);

/// A thread for calls that may hang.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Sender<Job>,
    clock: Clock,
}

impl Worker {
    /// Starts the thread. It ends when the worker is dropped and the job in hand is done.
    pub(super) fn start() -> std::io::Result<Self> {
        Ok(Self { jobs: thread()?, clock: Clock::start() })
    }

    /// Has the thread work on each item in turn and waits for all of them, the thread's one wake-up and the caller's: not longer than a second for
    /// each, and for all of them not much longer than `all`. The outcomes are in the items' order.
    pub(super) fn round<I: Send + 'static, O: Send + 'static>(
        &mut self,
        items: Vec<I>,
        all: Duration,
        work: impl Fn(I) -> O + Clone + Send + 'static,
    ) -> Vec<Outcome<O>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut todo = VecDeque::from(items);
        let until = self.clock.now().saturating_add(all);
        while !todo.is_empty() {
            let round = Arc::new(Round::new(todo, until, self.clock));
            let (theirs, work) = (Arc::clone(&round), work.clone());
            // The thread ends only with this sender: a job always arrives.
            let _sent = self.jobs.send(Box::new(move || theirs.work(work)));
            let (done, late) = round.wait();
            outcomes.extend(done.into_iter().map(Ok));
            let Some((late, rest)) = late else { break };
            outcomes.push(Err(late));
            todo = rest;
            match thread() {
                Ok(fresh) => self.jobs = fresh,
                Err(error) => {
                    tracing::warn!(%error, "no second thread for NVML calls: the rest waits behind a hung call");
                }
            }
        }
        outcomes
    }
}

fn thread() -> std::io::Result<Sender<Job>> {
    let (jobs, inbox) = channel::<Job>();
    std::thread::Builder::new().name("nvml-calls".into()).spawn(move || inbox.iter().for_each(|job| job()))?;
    Ok(jobs)
}

/// What the thread that works and the one that waits have in common.
struct Round<I, O> {
    state: Mutex<State<I, O>>,
    over: Condvar,
    until: Duration,
    clock: Clock,
}

struct State<I, O> {
    todo: VecDeque<I>,
    done: Vec<O>,
    /// Whether the thread has one of them in hand.
    in_hand: bool,
    /// When that one, or the first where the thread has not come to it, is given up.
    deadline: Duration,
    /// Where its result goes after that.
    late: Option<Sender<O>>,
}

impl<I, O> Round<I, O> {
    fn new(todo: VecDeque<I>, until: Duration, clock: Clock) -> Self {
        let done = Vec::with_capacity(todo.len());
        let state = State { todo, done, in_hand: false, deadline: deadline(clock.now(), until), late: None };
        Self { state: Mutex::new(state), over: Condvar::new(), until, clock }
    }

    /// Nobody holds it over a call, and a panic cannot leave it half written.
    fn open(&self) -> MutexGuard<'_, State<I, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on everything that is left to do.
    fn work(&self, work: impl Fn(I) -> O) {
        let mut state = self.open();
        while let Some(item) = state.todo.pop_front() {
            (state.in_hand, state.deadline) = (true, deadline(self.clock.now(), self.until));
            drop(state);
            let result = work(item);
            state = self.open();
            state.in_hand = false;
            if let Some(late) = state.late.take() {
                // Nobody waits any more when the session has ended meanwhile.
                let _unheard = late.send(result);
                return;
            }
            state.done.push(result);
        }
        drop(state);
        self.over.notify_one();
    }

    /// Waits for all, or until one is given up.
    fn wait(&self) -> (Vec<O>, Option<GivenUp<I, O>>) {
        let mut state = self.open();
        while state.in_hand || !state.todo.is_empty() {
            let left = state.deadline.saturating_sub(self.clock.now());
            if left.is_zero() {
                let (sender, late) = channel();
                state.late = Some(sender);
                let given_up = usize::from(!state.in_hand);
                let rest = state.todo.split_off(given_up);
                return (std::mem::take(&mut state.done), Some((late, rest)));
            }
            state = self.over.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        (std::mem::take(&mut state.done), None)
    }
}

/// When work that begins `now` is given up, where all of it should end at `until`.
fn deadline(now: Duration, until: Duration) -> Duration {
    now + until.saturating_sub(now).clamp(BUDGET_MIN, BUDGET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_hangs_does_not_stop_the_next() {
        let mut worker = Worker::start().unwrap();
        let (release, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let work = move |item: u32| {
            if item == 1 {
                gate.lock().unwrap().recv().unwrap();
            }
            item * 10
        };
        // However slow the machine is, a result that is late comes.
        let value =
            |outcome: Outcome<u32>| outcome.unwrap_or_else(|late| late.recv_timeout(Duration::from_secs(60)).unwrap());
        let mut outcomes = worker.round(vec![1, 2, 3], Duration::ZERO, work.clone()).into_iter();
        let hung = outcomes.next().unwrap().unwrap_err();
        assert_eq!(outcomes.map(value).collect::<Vec<_>>(), [20, 30]);
        assert!(hung.try_recv().is_err(), "still in hand");
        assert_eq!(worker.round(vec![4], BUDGET, work).into_iter().map(value).collect::<Vec<_>>(), [40]);
        release.send(()).unwrap();
        assert_eq!(hung.recv(), Ok(10));
    }

    #[test]
    fn each_has_a_second_as_long_as_all_have_time() {
        let seconds = Duration::from_secs;
        assert_eq!(deadline(seconds(10), seconds(13)), seconds(11));
        assert_eq!(deadline(seconds(10), seconds(10) + BUDGET / 4), seconds(10) + BUDGET / 4);
        assert_eq!(deadline(seconds(10), seconds(9)), seconds(10) + BUDGET_MIN, "something, even then");
    }
}
