//! The least of what nobody asked for: GPUs, then GPU memory, then CPU, then memory, compared in that order over all
//! machines of the option. Integers; what has no capacity never wins against what has.

use super::{Candidate, Policy, Word};

/// Unused shares in thousandths. GPU memory is MiB bought for each GPU asked: pods ask for GPUs and seldom say how much
/// memory each must have, so of two groups that waste no GPU, the one with the smaller GPUs wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waste {
    gpu: u64,
    gpu_memory_mib: u64,
    cpu: u64,
    memory: u64,
}

pub(super) fn judge(row: &[Candidate<'_>], _: &Policy) -> Vec<Word> {
    let wastes: Vec<_> = row.iter().map(waste).collect();
    let Some(least) = wastes.iter().flatten().min() else {
        return row.iter().map(|_| Word::Keep("no capacity known".to_owned())).collect();
    };
    let word = |waste: &Option<Waste>| match waste {
        None => Word::Drop("no capacity known".to_owned()),
        Some(waste) if waste == least => Word::Keep(format!("least waste: {waste}")),
        Some(waste) => Word::Drop(format!("wastes more: {waste}, where {}", waste.first_excess(least))),
    };
    wastes.iter().map(word).collect()
}

/// None when the group is unknown or a machine of it has no CPU or no memory.
fn waste(candidate: &Candidate<'_>) -> Option<Waste> {
    let shape = &candidate.choice.group?.shape;
    let machines = u64::from(candidate.launch.max(1));
    let demand = &candidate.demand;
    let (mut gpu, mut gpu_memory_mib) = (0, 0);
    if let Some(gpus) = &shape.gpus {
        let bought = u64::from(gpus.count).saturating_mul(machines);
        let asked = demand.of_resource(&gpus.resource);
        gpu = unused(bought, asked)?;
        gpu_memory_mib = bought.saturating_mul(gpus.memory_mib) / asked.max(1);
    }
    Some(Waste {
        gpu,
        gpu_memory_mib,
        cpu: unused(shape.cpu_milli.saturating_mul(machines), demand.cpu_milli)?,
        memory: unused(shape.memory.saturating_mul(machines), demand.memory)?,
    })
}

/// Thousandths of `bought` that were not asked for; None when nothing was bought.
fn unused(bought: u64, asked: u64) -> Option<u64> {
    let spare = u128::from(bought.saturating_sub(asked)) * 1000;
    u64::try_from(spare.checked_div(u128::from(bought))?).ok()
}

impl Waste {
    /// The first thing of which this wastes more than the least one, and how much that one does.
    fn first_excess(&self, least: &Self) -> String {
        match () {
            () if self.gpu != least.gpu => format!("the best wastes {} ‰ of its GPUs", least.gpu),
            () if self.gpu_memory_mib != least.gpu_memory_mib => {
                format!("the best buys {} MiB for each GPU", least.gpu_memory_mib)
            }
            () if self.cpu != least.cpu => format!("the best wastes {} ‰ of its CPU", least.cpu),
            () => format!("the best wastes {} ‰ of its memory", least.memory),
        }
    }
}

impl std::fmt::Display for Waste {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.gpu_memory_mib > 0 {
            write!(out, "{} ‰ of GPU, {} MiB for each asked, ", self.gpu, self.gpu_memory_mib)?;
        }
        write!(out, "{} ‰ of CPU, {} ‰ of memory", self.cpu, self.memory)
    }
}
