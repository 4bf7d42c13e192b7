//! How many nodes of a kind a set of pods needs: first fit, largest pods first.

use super::snapshot::Place;
use crate::replay::cluster::{NodeView, PodView, admits, room};

/// Nodes needed and the pods they would take, at most `limit` nodes.
pub(super) fn estimate(pods: &[PodView], template: &NodeView, limit: i64) -> (i64, Vec<PodView>) {
    let mut order: Vec<&PodView> = pods.iter().filter(|pod| fits_empty(pod, template)).collect();
    order.sort_by(|a, b| score(b, template).total_cmp(&score(a, template)).then_with(|| a.name.cmp(&b.name)));
    let mut places: Vec<Place> = Vec::new();
    let mut helped = Vec::new();
    for pod in order {
        if let Some(place) = places.iter_mut().find(|place| place.takes(pod)) {
            place.put(pod.clone());
        } else if i64::try_from(places.len()).is_ok_and(|count| count < limit) {
            let free = template.allocatable.clone();
            let mut place = Place { node: template.clone(), free, pods: Vec::new(), upcoming: true };
            place.put(pod.clone());
            places.push(place);
        } else {
            continue;
        }
        helped.push(pod.clone());
    }
    (i64::try_from(places.len()).unwrap_or(i64::MAX), helped)
}

/// Whether the pod would fit a fresh node.
pub(super) fn fits_empty(pod: &PodView, template: &NodeView) -> bool {
    admits(template, pod) && room(&template.allocatable, &pod.requests)
}

/// A pod's share of the node's cpu plus its share of the memory.
#[expect(clippy::cast_precision_loss, reason = "only compared")]
fn score(pod: &PodView, template: &NodeView) -> f64 {
    let share = |name: &str| {
        let whole = template.allocatable.get(name).copied().unwrap_or(0);
        let part = pod.requests.get(name).copied().unwrap_or(0);
        if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
    };
    share("cpu") + share("memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{replay::cluster::Resources, timestamp::Timestamp};

    fn amounts(list: &[(&str, u64)]) -> Resources {
        list.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
    }

    fn check(pods: &[&[(&str, u64)]], limit: i64, expect: (i64, usize)) {
        let allocatable = amounts(&[("cpu", 4000), ("memory", 1000), ("pods", 10), ("nvidia.com/gpu", 2)]);
        let template = NodeView { allocatable, ..NodeView::default() };
        let pods: Vec<PodView> = pods
            .iter()
            .enumerate()
            .map(|(number, list)| PodView::new(&format!("p{number}"), "", amounts(list), Timestamp(0)))
            .collect();
        let (nodes, helped) = estimate(&pods, &template, limit);
        assert_eq!((nodes, helped.len()), expect);
    }

    #[test]
    fn packs_by_every_resource_and_stops_at_the_limit() {
        let gpu: &[(&str, u64)] = &[("nvidia.com/gpu", 1)];
        let cpu: &[(&str, u64)] = &[("cpu", 3000)];
        let huge: &[(&str, u64)] = &[("cpu", 5000)];
        check(&[gpu, gpu, gpu], 9, (2, 3));
        check(&[gpu, gpu, gpu], 1, (1, 2));
        check(&[cpu, cpu, gpu], 9, (2, 3));
        check(&[huge], 9, (0, 0));
        check(&[], 9, (0, 0));
    }
}
