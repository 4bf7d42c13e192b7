//! Whether real nodes carry the GPU label. Nothing here asks the Kubernetes API: a running provider has seen the nodes
//! that cluster-autoscaler showed it, and says so in its metrics.

use super::Finding;
use crate::{expander::plural, fleet::template::Dialect, metrics::snapshot::UNLABELLED, snapshot::Snapshot};

const ABOUT: &str = "GPU label";

pub(super) fn examine(running: Result<&str, &str>, snapshot: &Snapshot, label: &str) -> Vec<Finding> {
    if !snapshot.fleet.groups().any(|view| view.group.shape.gpus.as_ref().is_some_and(Dialect::labels_gpus)) {
        return Vec::new();
    }
    let by_hand = format!("`kubectl get nodes -L {label}` shows which nodes lack it");
    match running {
        Ok(text) => told(text, label, &by_hand),
        Err(why) => vec![Finding::note(ABOUT, format!("{why}; only a running one has seen the nodes"), by_hand)],
    }
}

/// What a running provider's metrics tell.
fn told(text: &str, label: &str, by_hand: &str) -> Vec<Finding> {
    let series = text.lines().filter_map(|line| line.strip_prefix(UNLABELLED)?.rsplit_once(' '));
    let lacking: Vec<_> = series
        .filter_map(|(labels, value)| Some((labels.split('"').nth(1)?, value.parse::<u32>().ok()?)))
        .filter(|(_, count)| *count > 0)
        .collect();
    if lacking.is_empty() {
        return vec![Finding::ok(ABOUT, format!("no GPU node that cluster-autoscaler showed lacks {label}"))];
    }
    let finding = |(group, count): (&str, u32)| {
        Finding::mend(
            ABOUT,
            format!(
                "{} of {group} registered without {label}: cluster-autoscaler takes such a node for one without GPUs and buys more",
                plural(count, "node")
            ),
            format!(
                "set it with the kubelet's --node-labels, in the launch template or the node group's labels; {by_hand}"
            ),
        )
    };
    lacking.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_running_providers_metrics_tell() {
        let check = |text: &str, grade: Grade, said: &str| {
            let found = told(text, "gpu-model", "look");
            assert!(found.len() == 1 && found[0].grade == grade && found[0].what.contains(said), "{found:?}");
        };
        let build = "windlass_provider_build_info{version=\"1\"} 1\n";
        check(build, Grade::Ok, "gpu-model");
        check(
            &format!("{build}{UNLABELLED}{{group=\"spot\"}} 2\n{UNLABELLED}{{group=\"od\"}} 0\n"),
            Grade::Mend,
            "2 nodes of spot",
        );
    }
}
