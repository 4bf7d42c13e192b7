//! One device's use, divided among its holders and whoever else is measured on it; the same rules for a whole GPU and for a MIG instance. Pure.

use std::sync::Arc;

use super::Processes;
use super::tally::{Measured, Tally};
use crate::gpu::{Process, ProcessUtilization};
use crate::pods::Owner;

/// A device, as far as the division looks at it.
#[derive(Debug)]
pub(super) struct Device<'a> {
    /// Percent of its time that was used.
    pub(super) busy: Option<f64>,
    /// Bytes held.
    pub(super) memory: Option<u64>,
    /// Who has a context; absent when the lists could not be read.
    pub(super) contexts: Option<Vec<&'a Process>>,
    /// Measured time per process; absent when the driver tells none.
    pub(super) used: Option<&'a [ProcessUtilization]>,
}

/// One container's piece.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) owner: Arc<Owner>,
    pub(super) held: bool,
    pub(super) utilization: Option<f64>,
    pub(super) memory: Option<u64>,
}

/// The pieces, in order of name, and the rest.
#[derive(Debug, Default)]
pub(super) struct Divided {
    pub(super) pieces: Vec<Piece>,
    pub(super) rest_utilization: Option<f64>,
    pub(super) rest_memory: Option<u64>,
    /// Percent that the node itself used.
    pub(super) host: f64,
    /// Busy processes without a name.
    pub(super) unknown_busy: usize,
}

/// `holders` are in order of name.
pub(super) fn divide(device: &Device<'_>, holders: &[Arc<Owner>], processes: &Processes) -> Divided {
    let tally = Tally::of(device, holders, processes);
    let mut pieces = match holders {
        [holder] => alone(device, &tally, holder),
        _ => together(device, &tally),
    };
    if !tally.strangers.is_empty() {
        pieces.sort_by(|a, b| a.owner.cmp(&b.owner));
    }
    let utilization: f64 = pieces.iter().filter_map(|piece| piece.utilization).sum();
    let memory: u64 = pieces.iter().filter_map(|piece| piece.memory).sum();
    Divided {
        // Sums of shares that make up the whole may miss it by rounding: a millionth of a percent is nobody's use.
        rest_utilization: device.busy.map(|busy| Some(busy - utilization).filter(|rest| *rest > 1e-6).unwrap_or(0.0)),
        rest_memory: device.memory.map(|held| held.saturating_sub(memory)),
        host: tally.host.sm,
        unknown_busy: tally.unknown_busy,
        pieces,
    }
}

/// One holder: everything is its own but what is certainly another's.
fn alone(device: &Device<'_>, tally: &Tally<'_>, holder: &Arc<Owner>) -> Vec<Piece> {
    // Where processes have no times, the only container that is inside has it all, holder or not.
    let stranger_alone = device.used.is_none() && tally.sole().is_some_and(|owner| owner != holder);
    let (mut time, mut memory) = (tally.host.sm, tally.host.memory);
    let mut pieces = Vec::new();
    for (owner, measured) in &tally.strangers {
        let utilization = match device.used {
            Some(_) => Some(measured.sm),
            None => device.busy.filter(|_| stranger_alone),
        };
        time += utilization.unwrap_or(0.0);
        memory += measured.memory;
        let held = (device.contexts.is_some() && !measured.blind).then_some(measured.memory);
        pieces.push(Piece { owner: Arc::clone(owner), held: false, utilization, memory: held });
    }
    pieces.push(Piece {
        owner: Arc::clone(holder),
        held: true,
        utilization: device.busy.map(|busy| (busy - time).max(0.0)),
        memory: device.memory.map(|held| held.saturating_sub(memory)),
    });
    pieces
}

/// Several holders, or none: each has what is measured for it.
fn together(device: &Device<'_>, tally: &Tally<'_>) -> Vec<Piece> {
    let piece = |(owner, measured): (&Arc<Owner>, &Measured), held| Piece {
        owner: Arc::clone(owner),
        held,
        utilization: time(device, tally, owner, measured),
        memory: memory(device, tally, measured),
    };
    let held = tally.held().map(|measured| piece(measured, true));
    held.chain(tally.strangers.iter().map(|measured| piece(measured, false))).collect()
}

/// A container's time. A process that nobody can name may be the container's: without measured use of its own, its 0 would be a guess.
fn time(device: &Device<'_>, tally: &Tally<'_>, owner: &Arc<Owner>, measured: &Measured) -> Option<f64> {
    if device.busy.is_some_and(|busy| busy <= 0.0) {
        return Some(0.0);
    }
    if device.used.is_some() {
        return (measured.sm > 0.0 || tally.unknown.sm <= 0.0).then_some(measured.sm);
    }
    let sole = tally.sole().filter(|_| device.contexts.is_some())?;
    device.busy.map(|busy| if sole == owner { busy } else { 0.0 })
}

fn memory(device: &Device<'_>, tally: &Tally<'_>, measured: &Measured) -> Option<u64> {
    device.contexts.as_ref()?;
    // As with time: somebody without a name may be this container's process.
    let known = if measured.contexts > 0 { !measured.blind } else { tally.unknown.contexts == 0 };
    known.then_some(measured.memory)
}
