//! Whether a pod fits a node: resources, taints, selectors, affinity.
//! The rules of kube-scheduler's default filters, as far as GPU scaling needs them.

use windlass_proto::core;

use super::{NodeView, PodView, Resources};

/// Adds one set of amounts to another.
pub fn add(sum: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.saturating_add(*amount);
    }
}

/// What is left of `whole` after `part`; never below zero.
pub(super) fn less(whole: &Resources, part: &Resources) -> Resources {
    whole
        .iter()
        .map(|(name, amount)| (name.clone(), amount.saturating_sub(part.get(name).copied().unwrap_or(0))))
        .collect()
}

/// Whether one more pod with these requests fits into what is free. A node that does not say how many pods it takes
/// takes none, as in Kubernetes.
#[must_use]
pub fn room(free: &Resources, requests: &Resources) -> bool {
    let has = |name: &str| free.get(name).copied().unwrap_or(0);
    has("pods") >= 1 && requests.iter().all(|(name, amount)| *amount == 0 || has(name) >= *amount)
}

/// Takes one pod with these requests out of what is free.
pub fn take(free: &mut Resources, requests: &Resources) {
    for (name, amount) in requests {
        if let Some(left) = free.get_mut(name) {
            *left = left.saturating_sub(*amount);
        }
    }
    if let Some(pods) = free.get_mut("pods") {
        *pods = pods.saturating_sub(1);
    }
}

/// Whether the node's taints, labels and `unschedulable` let the pod in, whatever room there is.
#[must_use]
pub fn admits(node: &NodeView, pod: &PodView) -> bool {
    let cordoned = core::Taint {
        key: Some("node.kubernetes.io/unschedulable".into()),
        value: None,
        effect: Some("NoSchedule".into()),
    };
    (!node.unschedulable || tolerated(&cordoned, &pod.tolerations))
        && node.taints.iter().all(|taint| taint.effect() == "PreferNoSchedule" || tolerated(taint, &pod.tolerations))
        && pod.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && (pod.affinity.is_empty() || pod.affinity.iter().any(|term| holds(node, term)))
}

fn tolerated(taint: &core::Taint, tolerations: &[core::Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let key = toleration.key();
        let exists = toleration.operator() == "Exists";
        (toleration.effect().is_empty() || toleration.effect() == taint.effect())
            && (key == taint.key() || key.is_empty() && exists)
            && (exists || toleration.value() == taint.value())
    })
}

/// An empty term matches nothing.
fn holds(node: &NodeView, term: &core::NodeSelectorTerm) -> bool {
    !term.match_expressions.is_empty()
        && term.match_expressions.iter().all(|rule| {
            let value = node.labels.get(rule.key());
            let listed = value.is_some_and(|value| rule.values.contains(value));
            let bound = || rule.values.first().and_then(|text| text.parse::<i64>().ok());
            let number = || value.and_then(|text| text.parse::<i64>().ok());
            match rule.operator() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                "Gt" => number().zip(bound()).is_some_and(|(number, bound)| number > bound),
                "Lt" => number().zip(bound()).is_some_and(|(number, bound)| number < bound),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(amounts: &[(&str, u64)]) -> Resources {
        amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
    }

    #[test]
    fn a_node_that_says_nothing_of_pods_takes_none() {
        assert!(!room(&resources(&[("cpu", 4000)]), &resources(&[("cpu", 1)])));
        assert!(room(&resources(&[("cpu", 4000), ("pods", 1)]), &resources(&[("cpu", 1)])));
    }

    #[test]
    fn tolerations_match_as_in_kubernetes() {
        let taint = |key: &str, value: &str| core::Taint {
            key: Some(key.into()),
            value: Some(value.into()),
            effect: Some("NoSchedule".into()),
        };
        let toleration = |key: &str, operator: &str, value: &str, effect: &str| core::Toleration {
            key: Some(key.into()),
            operator: Some(operator.into()),
            value: Some(value.into()),
            effect: Some(effect.into()),
        };
        let table = [
            (toleration("gpu", "Exists", "", ""), true),
            (toleration("gpu", "Exists", "", "NoExecute"), false),
            (toleration("gpu", "Equal", "yes", "NoSchedule"), true),
            (toleration("gpu", "", "yes", ""), true),
            (toleration("gpu", "", "no", ""), false),
            (toleration("", "Exists", "", ""), true),
            (toleration("", "", "", ""), false),
        ];
        for (toleration, expect) in table {
            assert_eq!(tolerated(&taint("gpu", "yes"), std::slice::from_ref(&toleration)), expect, "{toleration:?}");
        }
    }
}
