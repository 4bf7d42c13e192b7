//! How many machines some pods need: first-fit in the order given, in integers. It is what CA's own estimator does,
//! without the constraints that only a scheduler knows (anti-affinity, spread, DaemonSets), so it is a lower bound.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Needs, PodAsk, demand::Kind};
use crate::fleet::group::Shape;

/// What one machine of a group leaves for pods: allocatable, not capacity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
    /// Most pods.
    pub pods: u64,
    /// Extended resources by name, whole units.
    pub extended: BTreeMap<String, u64>,
}

impl Room {
    /// The room on one machine of this shape.
    #[must_use]
    pub fn of(shape: &Shape) -> Self {
        let gpus = shape.gpus.iter().map(|gpus| (gpus.resource.clone(), u64::from(gpus.count)));
        let extended = shape.extended.clone().into_iter().chain(gpus).collect();
        Self {
            cpu_milli: shape.cpu_milli.saturating_sub(shape.reserved_cpu_milli),
            memory: shape.memory.saturating_sub(shape.reserved_memory),
            pods: u64::from(shape.pods),
            extended,
        }
    }

    /// Takes the pod's share away; false, and nothing taken, when it does not fit. Only resources that the room knows
    /// are looked at: one that it does not know (a MIG slice, say) is no reason to call a machine too small.
    fn take(&mut self, pod: &Needs) -> bool {
        let scarce = pod.extended.iter().any(|(name, asked)| self.extended.get(name).is_some_and(|left| left < asked));
        if self.pods == 0 || self.cpu_milli < pod.cpu_milli || self.memory < pod.memory || scarce {
            return false;
        }
        self.pods -= 1;
        self.cpu_milli -= pod.cpu_milli;
        self.memory -= pod.memory;
        for (name, asked) in &pod.extended {
            if let Some(left) = self.extended.get_mut(name) {
                *left -= asked;
            }
        }
        true
    }
}

/// The machine each pod would land on, counted from 0, in the order of `pods`. At most `most` machines are opened;
/// None stands for a pod that found no place.
#[must_use]
pub fn first_fit<'a>(pods: impl Iterator<Item = &'a PodAsk>, room: &Room, most: u32) -> Vec<Option<u32>> {
    let mut machines: Vec<Room> = Vec::new();
    // Machines only fill up, so a pod never fits below where its twin last landed.
    let mut from: HashMap<*const Needs, usize> = HashMap::new();
    pods.map(|pod| {
        let start = from.entry(std::ptr::from_ref(&*pod.needs)).or_default();
        while *start < most as usize {
            let Some(machine) = machines.get_mut(*start) else {
                // What does not fit on an empty machine fits on none, however many there may be.
                let mut empty = room.clone();
                return empty.take(&pod.needs).then(|| machines.push(empty)).and(u32::try_from(*start).ok());
            };
            if machine.take(&pod.needs) {
                return u32::try_from(*start).ok();
            }
            *start += 1;
        }
        None
    })
    .collect()
}

/// The fewest machines that could hold all of them, by sums alone: cheap enough for every candidate of a question.
#[must_use]
pub(super) fn least_machines<'a>(kinds: impl Iterator<Item = &'a Kind<'a>>, room: &Room) -> u64 {
    let (mut pods, mut cpu, mut memory) = (0_u64, 0_u64, 0_u64);
    let mut extended: BTreeMap<&str, u64> = BTreeMap::new();
    for Kind { pod, count } in kinds {
        pods += count;
        cpu = cpu.saturating_add(pod.needs.cpu_milli.saturating_mul(*count));
        memory = memory.saturating_add(pod.needs.memory.saturating_mul(*count));
        for (name, asked) in &pod.needs.extended {
            let sum = extended.entry(name).or_default();
            *sum = sum.saturating_add(asked.saturating_mul(*count));
        }
    }
    let machines = |asked: u64, each: u64| if each == 0 { 0 } else { asked.div_ceil(each) };
    let scarcest =
        extended.iter().map(|(name, asked)| machines(*asked, room.extended.get(*name).copied().unwrap_or(0)));
    scarcest
        .chain([machines(pods, room.pods), machines(cpu, room.cpu_milli), machines(memory, room.memory)])
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_fits_on_no_machine_costs_nothing_however_many_there_may_be() {
        let pod = |cpu_milli| {
            let needs = Needs { cpu_milli, ..Needs::default() };
            PodAsk { uid: "".into(), name: "".into(), needs: Arc::new(needs) }
        };
        let pods = [pod(9_000), pod(3_000), pod(9_000), pod(3_000), pod(1_000)];
        let room = Room { cpu_milli: 4_000, pods: 110, ..Room::default() };
        assert_eq!(first_fit(pods.iter(), &room, u32::MAX), [None, Some(0), None, Some(1), Some(0)]);
        assert_eq!(first_fit(pods.iter(), &room, 1), [None, Some(0), None, None, Some(0)]);
    }
}
