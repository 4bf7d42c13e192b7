//! What is measured for each container on one device; the node's own and the nameless processes apart. Pure.
//! MPS's server has no use of its own: what the driver books on it goes to its clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Processes;
use super::divide::Device;
use crate::pods::{Owner, Whose};

/// What is measured for one container, or for the node itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    /// Percent of the device's time.
    pub(super) sm: f64,
    /// Bytes held.
    pub(super) memory: u64,
    /// Processes with a context.
    pub(super) contexts: usize,
    /// Whether the driver kept the memory of one of them to itself.
    pub(super) blind: bool,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) containers: BTreeMap<Arc<Owner>, Measured>,
    pub(super) host: Measured,
    pub(super) unknown: Measured,
    pub(super) unknown_busy: usize,
}

impl Tally {
    pub(super) fn of(device: &Device<'_>, holders: &[Arc<Owner>], processes: &Processes) -> Self {
        let mut tally = Self::default();
        let contexts = device.contexts.as_deref().unwrap_or_default();
        let named = |pid| matches!(processes.get(&pid), Some(Whose::MpsServer(_)));
        let clients: BTreeSet<u32> =
            contexts.iter().filter(|process| process.mps && !named(process.pid)).map(|process| process.pid).collect();
        // Any process can take that name: without a client, a holder's works for itself.
        let holds = |pid| matches!(processes.get(&pid), Some(Whose::MpsServer(Some(owner))) if holders.contains(owner));
        let is_server = |pid| named(pid) && !(clients.is_empty() && holds(pid));
        let mut server = Measured::default();
        for process in contexts {
            let slot = if is_server(process.pid) { &mut server } else { tally.slot(process.pid, processes) };
            slot.memory += process.memory.unwrap_or(0);
            slot.blind |= process.memory.is_none();
            slot.contexts += 1;
        }
        let mut told = false;
        for used in device.used.unwrap_or_default().iter().filter(|used| used.sm > 0.0) {
            if is_server(used.pid) {
                server.sm += used.sm;
                continue;
            }
            told |= clients.contains(&used.pid);
            tally.slot(used.pid, processes).sm += used.sm;
            tally.unknown_busy += usize::from(matches!(processes.get(&used.pid), Some(Whose::Unknown) | None));
        }
        tally.serve(&clients, processes, server, told);
        tally.scale(device);
        tally
    }

    fn slot(&mut self, pid: u32, processes: &Processes) -> &mut Measured {
        match processes.get(&pid) {
            Some(Whose::Container(owner) | Whose::MpsServer(Some(owner))) => {
                self.containers.entry(Arc::clone(owner)).or_default()
            }
            Some(Whose::Host | Whose::MpsServer(None)) => &mut self.host,
            Some(Whose::Unknown) | None => &mut self.unknown,
        }
    }

    /// Time of the MPS server: its clients', in equal parts, since nothing tells them apart. A driver that tells of clients (`told`) has booked it
    /// there already. Its memory is its own context's.
    fn serve(&mut self, clients: &BTreeSet<u32>, processes: &Processes, server: Measured, told: bool) {
        self.host.memory += server.memory;
        self.host.contexts += server.contexts;
        if server.sm <= 0.0 || told {
            return;
        }
        if clients.is_empty() {
            self.host.sm += server.sm;
        }
        for &client in clients {
            self.slot(client, processes).sm += server.sm / clients.len() as f64;
            self.unknown_busy += usize::from(matches!(processes.get(&client), Some(Whose::Unknown) | None));
        }
    }

    /// Concurrent processes (MPS) can add up to more than the time in which the device was busy: then each has its part of that time. Lists are
    /// read a moment before or after the memory they add up to: then each has its part of that memory.
    fn scale(&mut self, device: &Device<'_>) {
        let (mut sm, mut memory) = (0.0, 0_u64);
        for measured in self.slots() {
            sm += measured.sm;
            memory = memory.saturating_add(measured.memory);
        }
        let busy = device.busy.unwrap_or(100.0);
        let time = if sm > busy { busy / sm } else { 1.0 };
        let held = device.memory.filter(|held| memory > *held);
        for measured in self.slots() {
            measured.sm *= time;
            if let Some(held) = held {
                // In 128 bits no product of two sizes overflows; rounding down keeps the sum within what is held.
                let part = u128::from(measured.memory) * u128::from(held) / u128::from(memory);
                measured.memory = u64::try_from(part).unwrap_or(held);
            }
        }
    }

    fn slots(&mut self) -> impl Iterator<Item = &mut Measured> {
        self.containers.values_mut().chain([&mut self.host, &mut self.unknown])
    }

    /// The one container that has a context here, when nobody else has: the device's use can only be its own.
    pub(super) fn sole(&self) -> Option<&Arc<Owner>> {
        let alone = self.host.contexts == 0 && self.unknown.contexts == 0;
        let mut inside = self.containers.iter().filter(|(_, measured)| measured.contexts > 0);
        let (first, _) = inside.next().filter(|_| alone)?;
        inside.next().is_none().then_some(first)
    }
}
