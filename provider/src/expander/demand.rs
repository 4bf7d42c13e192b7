//! What the pods of one candidate ask for together.

use std::collections::BTreeMap;

use super::PodAsk;

/// Sums that cannot overflow: they stop at the largest number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// Pods that ask for a GPU or a part of one.
    pub(super) gpu_pods: usize,
    pub(super) cpu_milli: u64,
    pub(super) memory: u64,
    pub(super) extended: BTreeMap<String, u64>,
}

impl Demand {
    pub(super) fn of(pods: &[&PodAsk]) -> Self {
        let mut sum = Self::default();
        for pod in pods {
            sum.cpu_milli = sum.cpu_milli.saturating_add(pod.cpu_milli);
            sum.memory = sum.memory.saturating_add(pod.memory);
            sum.gpu_pods += usize::from(pod.asks_gpu());
            for (name, asked) in &pod.extended {
                match sum.extended.get_mut(name) {
                    Some(total) => *total = total.saturating_add(*asked),
                    None => drop(sum.extended.insert(name.clone(), *asked)),
                }
            }
        }
        sum
    }

    /// How many of a resource.
    pub(super) fn of_resource(&self, name: &str) -> u64 {
        self.extended.get(name).copied().unwrap_or(0)
    }
}
