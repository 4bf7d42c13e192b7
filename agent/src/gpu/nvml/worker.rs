//! The thread that makes calls, and what happens when a call does not come back: the work in hand stays with its thread, and a fresh thread takes
//! the rest. A hung GPU costs one thread and its own figures, nobody else's.

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// A thread for calls that may hang.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Sender<Job>,
}

impl Worker {
    /// Starts the thread. It ends when the worker is dropped and the job in hand is done.
    pub(super) fn start() -> std::io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        std::thread::Builder::new().name("nvml-calls".into()).spawn(move || inbox.iter().for_each(|job| job()))?;
        Ok(Self { jobs })
    }

    /// Does a job and waits for it, but not longer than `budget`: then the result comes later through what is given back.
    pub(super) fn run<T: Send + 'static>(
        &mut self,
        budget: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Receiver<T>> {
        let (result, done) = sync_channel(1);
        let job = move || {
            // Nobody waits any more when the session has ended meanwhile.
            let _unheard = result.send(job());
        };
        // The thread ends only with this sender: a job always arrives.
        let _sent = self.jobs.send(Box::new(job));
        done.recv_timeout(budget).map_err(|_late| {
            match Self::start() {
                Ok(fresh) => *self = fresh,
                Err(error) => {
                    tracing::warn!(%error, "no second thread for NVML calls: the rest waits behind a hung call")
                }
            }
            done
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_hangs_does_not_stop_the_next() {
        let mut worker = Worker::start().unwrap();
        let (release, gate) = channel::<()>();
        let late = worker.run(Duration::from_millis(10), move || gate.recv().map(|()| 1).unwrap_or(0)).unwrap_err();
        assert_eq!(worker.run(Duration::from_secs(60), || 2).unwrap(), 2);
        assert!(late.try_recv().is_err(), "still in hand");
        release.send(()).unwrap();
        assert_eq!(late.recv(), Ok(1));
    }
}
