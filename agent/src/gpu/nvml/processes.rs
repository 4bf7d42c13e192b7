//! Who is on a GPU and how much of it each process used: the driver's lists, merged, and its samples, averaged.
//! A list is the costliest call there is (4.5 ms were seen): that of graphics is asked rarely, and that of MPS while nobody is known to be in it.

use std::time::Duration;

use super::calls::{Calls, Outcome, Paced};
use super::mig::{self, Slice};
use super::raw::Handle;
use super::samples::{Seen, processes_since};
use crate::gpu::{Process, ProcessUtilization};

/// How often the graphics list is asked for, and that of MPS while it is empty and the same processes compute.
const RARE_INTERVAL: Duration = Duration::from_secs(5);
/// For how long the last measured split of a busy GPU stands while the driver has no newer process samples: twice its longest period, since a busy
/// process must not flicker to 0 when we look more often than it samples.
const HOLD: Duration = Duration::from_secs(2);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct Processes {
    seen: Seen,
    held: Vec<ProcessUtilization>,
    /// When that was measured.
    measured: Duration,
    graphics: Paced<Vec<Process>>,
    /// The look at the MPS list once in a while.
    look: Paced<()>,
    /// The clients of MPS at the last look.
    clients: Vec<Process>,
    /// Who computed in the pass before: clients are in that list too.
    computing: Vec<u32>,
}

impl Processes {
    /// Everyone with a context; absent when the lists cannot be read.
    pub(super) fn list(
        &mut self,
        gpu: &Handle,
        slices: Option<&[Slice]>,
        calls: &mut Calls<'_>,
    ) -> Option<Vec<Process>> {
        let compute = calls.ask("compute_processes", || gpu.compute_processes());
        let compute = compute.or_else(|| mig::processes(slices?, calls));
        let mps = self.mps(gpu, compute.as_deref().unwrap_or_default(), calls);
        let ask = |calls: &mut Calls<'_>| calls.ask("graphics_processes", || gpu.graphics_processes());
        let graphics = calls.paced(&mut self.graphics, RARE_INTERVAL, ask).unwrap_or_default();
        let mps = mps.into_iter().map(|process| Process { mps: true, ..process });
        compute.map(|compute| merge(compute.into_iter().chain(mps).chain(graphics)))
    }

    /// Clients of MPS: looked for in each pass while there are any, when others compute than before, and once in a while. Those of before stand where
    /// the driver does not say for the moment: without them the server's time would be the node's.
    fn mps(&mut self, gpu: &Handle, compute: &[Process], calls: &mut Calls<'_>) -> Vec<Process> {
        let computing: Vec<u32> = compute.iter().map(|process| process.pid).collect();
        let changed = std::mem::replace(&mut self.computing, computing) != self.computing;
        let mut due = changed || !self.clients.is_empty();
        calls.paced(&mut self.look, RARE_INTERVAL, |_| {
            due = true;
            Some(())
        });
        if due {
            match calls.ask("mps_processes", || gpu.mps_processes()) {
                Some(found) => self.clients = found,
                None if calls.refuses("mps_processes") => self.clients.clear(),
                None => {}
            }
        }
        self.clients.clone()
    }

    /// What each process used since the last pass; absent when the driver does not tell. `busy` is the GPU's own figure.
    pub(super) fn utilization(
        &mut self,
        gpu: &Handle,
        busy: Option<f64>,
        calls: &mut Calls<'_>,
    ) -> Option<Vec<ProcessUtilization>> {
        let newest = self.seen.newest;
        let fresh = match calls.make("process_utilization", || gpu.process_samples(newest)) {
            Outcome::Value(samples) => processes_since(&mut self.seen, &samples),
            Outcome::Nothing => Vec::new(),
            Outcome::Failed => return None,
        };
        let busy = busy.is_none_or(|percent| percent > 0.0);
        if self.seen.is_suspicious(!fresh.is_empty(), busy) {
            let whole = calls.ask("process_utilization", || gpu.process_samples(0)).unwrap_or_default();
            self.seen.rewind(whole.iter().map(|(_, timestamp, _)| *timestamp));
        }
        if fresh.is_empty() && busy && calls.now.saturating_sub(self.measured) <= HOLD {
            return Some(self.held.clone());
        }
        self.measured = calls.now;
        self.held.clone_from(&fresh);
        Some(fresh)
    }
}

/// A process that is in several lists is one process, with the largest memory that a list gives it.
fn merge(all: impl Iterator<Item = Process>) -> Vec<Process> {
    let place = |process: &Process| (process.pid, process.gpu_instance, process.compute_instance);
    let mut processes: Vec<Process> = all.filter(|process| process.pid != 0).collect();
    processes.sort_unstable_by_key(place);
    processes.dedup_by(|again, process| {
        let same = place(again) == place(process);
        if same {
            process.memory = process.memory.max(again.memory);
            process.mps |= again.mps;
        }
        same
    });
    processes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_in_two_lists_counts_once() {
        let process = |pid, memory| Process { pid, memory, ..Process::default() };
        let merged =
            merge([process(7, Some(10)), process(8, None), process(7, Some(12)), process(0, Some(1))].into_iter());
        assert_eq!(merged, [process(7, Some(12)), process(8, None)]);
        let client = Process { mps: true, ..process(7, Some(10)) };
        assert_eq!(merge([process(7, Some(10)), client].into_iter()), [client]);
    }
}
