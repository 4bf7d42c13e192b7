//! What is measured for each container on one device; the node's own and the nameless processes apart. Pure.
//! MPS's server has no use of its own: what the driver books on it goes to its clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Processes;
use super::divide::Device;
use crate::gpu::Process;
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
pub(super) struct Tally<'a> {
    holders: &'a [Arc<Owner>],
    /// Of each holder, in their order.
    held: Vec<Measured>,
    /// Of containers that hold nothing of the device.
    pub(super) strangers: BTreeMap<Arc<Owner>, Measured>,
    pub(super) host: Measured,
    pub(super) unknown: Measured,
    pub(super) unknown_busy: usize,
}

impl<'a> Tally<'a> {
    /// `holders` are in order of name.
    pub(super) fn of(device: &Device<'_>, holders: &'a [Arc<Owner>], processes: &Processes) -> Self {
        let mut tally = Self { holders, held: vec![Measured::default(); holders.len()], ..Self::default() };
        let contexts = device.contexts.as_deref().unwrap_or_default();
        let named = |whose: Option<&Whose>| matches!(whose, Some(Whose::MpsServer(_)));
        let is_client = |process: &&&Process| process.mps && !named(processes.get(&process.pid));
        let clients: BTreeSet<u32> = contexts.iter().filter(is_client).map(|process| process.pid).collect();
        // Any process can take that name: without a client, a holder's works for itself.
        let holds = |owner: &Arc<Owner>| holders.contains(owner);
        let is_server = |whose: Option<&Whose>| match whose {
            Some(Whose::MpsServer(owner)) => !clients.is_empty() || !owner.as_ref().is_some_and(holds),
            _ => false,
        };
        let mut server = Measured::default();
        for process in contexts {
            let whose = processes.get(&process.pid);
            let slot = if is_server(whose) { &mut server } else { tally.slot(whose) };
            slot.memory += process.memory.unwrap_or(0);
            slot.blind |= process.memory.is_none();
            slot.contexts += 1;
        }
        let mut told = false;
        for used in device.used.unwrap_or_default().iter().filter(|used| used.sm > 0.0) {
            let whose = processes.get(&used.pid);
            if is_server(whose) {
                server.sm += used.sm;
                continue;
            }
            told |= clients.contains(&used.pid);
            tally.use_time(whose, used.sm);
        }
        tally.serve(&clients, processes, server, told);
        tally.scale(device);
        tally
    }

    fn slot(&mut self, whose: Option<&Whose>) -> &mut Measured {
        match whose {
            Some(Whose::Container(owner) | Whose::MpsServer(Some(owner))) => self.container(owner),
            Some(Whose::Host | Whose::MpsServer(None)) => &mut self.host,
            Some(Whose::Unknown) | None => &mut self.unknown,
        }
    }

    fn container(&mut self, owner: &Arc<Owner>) -> &mut Measured {
        // As a rule it is the very value that the kubelet's answer has, and names need not be read.
        let same = self.holders.iter().position(|holder| Arc::ptr_eq(holder, owner));
        let at = same.or_else(|| self.holders.binary_search(owner).ok());
        match at.and_then(|at| self.held.get_mut(at)) {
            Some(held) => held,
            None => self.strangers.entry(Arc::clone(owner)).or_default(),
        }
    }

    fn use_time(&mut self, whose: Option<&Whose>, sm: f64) {
        self.slot(whose).sm += sm;
        self.unknown_busy += usize::from(matches!(whose, Some(Whose::Unknown) | None));
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
            self.use_time(processes.get(&client), server.sm / clients.len() as f64);
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
        self.held.iter_mut().chain(self.strangers.values_mut()).chain([&mut self.host, &mut self.unknown])
    }

    /// What is measured for each holder, in order of name.
    pub(super) fn held(&self) -> impl Iterator<Item = (&Arc<Owner>, &Measured)> {
        self.holders.iter().zip(&self.held)
    }

    /// The one container that has a context here, when nobody else has: the device's use can only be its own.
    pub(super) fn sole(&self) -> Option<&Arc<Owner>> {
        let alone = self.host.contexts == 0 && self.unknown.contexts == 0;
        let mut inside = self.held().chain(&self.strangers).filter(|(_, measured)| measured.contexts > 0);
        let (first, _) = inside.next().filter(|_| alone)?;
        inside.next().is_none().then_some(first)
    }
}
