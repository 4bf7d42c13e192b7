//! What the pods of one candidate ask for together: counted by kind first, since thousands of pods are of a few kinds.

use std::collections::{BTreeMap, HashMap};

use super::{Needs, PodAsk};

/// Pods with the same needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind<'a> {
    /// One of them, to be named.
    pub(super) pod: &'a PodAsk,
    /// How many they are.
    pub(super) count: u64,
}

/// Sums that cannot overflow: they stop at the largest number.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand<'a> {
    pub(super) kinds: Vec<Kind<'a>>,
    pub(super) pods: u64,
    /// Pods that ask for a GPU or a part of one.
    pub(super) gpu_pods: u64,
    pub(super) cpu_milli: u64,
    pub(super) memory: u64,
    extended: BTreeMap<&'a str, u64>,
}

impl<'a> Demand<'a> {
    pub(super) fn of(pods: impl Iterator<Item = &'a PodAsk>) -> Self {
        let mut kinds: Vec<Kind<'a>> = Vec::new();
        // By place in memory: pods read from one request share what is equal, and others are only a longer list.
        let mut places: HashMap<*const Needs, usize> = HashMap::new();
        for pod in pods {
            let place = *places.entry(std::ptr::from_ref(&*pod.needs)).or_insert(kinds.len());
            match kinds.get_mut(place) {
                Some(kind) => kind.count += 1,
                None => kinds.push(Kind { pod, count: 1 }),
            }
        }
        let mut sum = Self::default();
        for Kind { pod, count } in &kinds {
            sum.pods += count;
            sum.gpu_pods += if pod.needs.asks_gpu() { *count } else { 0 };
            sum.cpu_milli = sum.cpu_milli.saturating_add(pod.needs.cpu_milli.saturating_mul(*count));
            sum.memory = sum.memory.saturating_add(pod.needs.memory.saturating_mul(*count));
            for (name, asked) in &pod.needs.extended {
                let total = sum.extended.entry(name).or_default();
                *total = total.saturating_add(asked.saturating_mul(*count));
            }
        }
        Self { kinds, ..sum }
    }

    /// How many of a resource.
    pub(super) fn of_resource(&self, name: &str) -> u64 {
        self.extended.get(name).copied().unwrap_or(0)
    }
}
