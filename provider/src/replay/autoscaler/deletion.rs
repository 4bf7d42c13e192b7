//! Nodes on their way out: marked, given a moment, drained, then handed to the provider one by one.
//! CA does this beside its loop; the model does what is due at the start of the next one.

use std::time::Duration;

use super::{
    Act,
    client::{Answer, Trouble, tolerate},
    flags::Era,
    pass::{Pass, wire},
    registry::Registry,
};
use crate::{
    replay::cluster::{Cluster, NodeView, PodView},
    timestamp::Timestamp,
};

/// How long the cloud may take to make a deleted node disappear.
const CLOUD_DELETION_TIME: Duration = Duration::from_secs(5 * 60);
/// How long pods may take to leave a drained node before the deletion is given up.
const DRAIN_TIME: Duration = Duration::from_secs(10 * 60);

/// One node on its way out.
#[derive(Debug)]
pub(super) struct Deletion {
    node: NodeView,
    group: String,
    evict: Vec<String>,
    started: Timestamp,
}

impl Deletion {
    pub(super) fn new(node: &NodeView, group: &str, evict: &[PodView], started: Timestamp) -> Self {
        let evict = evict.iter().map(|pod| pod.uid.clone()).collect();
        Self { node: node.clone(), group: group.to_owned(), evict, started }
    }
}

/// Those that the provider has not been told of yet.
#[derive(Debug, Default)]
pub(super) struct Deletions(Vec<Deletion>);

impl Deletions {
    pub(super) fn holds(&self, node: &str) -> bool {
        self.0.iter().any(|deletion| deletion.node.name == node)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many of them are being drained.
    pub(super) fn draining(&self) -> usize {
        self.0.iter().filter(|deletion| !deletion.evict.is_empty()).count()
    }

    /// How many of one group.
    pub(super) fn count(&self, group: &str) -> i64 {
        i64::try_from(self.0.iter().filter(|deletion| deletion.group == group).count()).unwrap_or(i64::MAX)
    }

    /// Marks the node and evicts its pods.
    pub(super) fn start(&mut self, pass: &mut Pass, deletion: Deletion) {
        let name = deletion.node.name.clone();
        let how = if deletion.evict.is_empty() { "ScaleDownEmpty" } else { "ScaleDown" };
        pass.event(how, &name, format!("removing node {name} of {}", deletion.group));
        pass.acts.push(Act::Taint { node: name });
        pass.acts.extend(deletion.evict.iter().map(|pod| Act::Evict { pod: pod.clone() }));
        self.0.push(deletion);
    }

    /// Deletes what is due.
    pub(super) fn carry_out(&mut self, pass: &mut Pass, registry: &mut Registry, cluster: &Cluster) -> Answer<()> {
        let delay = pass.flags().delete_delay_after_taint;
        for deletion in std::mem::take(&mut self.0) {
            let occupied = deletion.evict.iter().any(|uid| {
                cluster.pods.get(uid).is_some_and(|pod| pod.node.as_deref() == Some(deletion.node.name.as_str()))
            });
            if deletion.started + delay > pass.now {
                self.0.push(deletion);
            } else if !occupied {
                delete(pass, registry, &deletion)?;
            } else if deletion.started + DRAIN_TIME > pass.now {
                self.0.push(deletion);
            } else {
                give_up(pass, &deletion, "its pods did not leave");
            }
        }
        Ok(())
    }
}

fn give_up(pass: &mut Pass, deletion: &Deletion, why: &str) {
    let name = deletion.node.name.clone();
    pass.event("ScaleDownFailed", &name, format!("node {name} was not removed: {why}"));
    pass.acts.push(Act::Untaint { node: name });
}

fn delete(pass: &mut Pass, registry: &mut Registry, deletion: &Deletion) -> Answer<()> {
    let node = wire(&deletion.node);
    if pass.era() > Era::V1_27 && tolerate(pass.client.options(&deletion.group))?.is_none() {
        give_up(pass, deletion, "its group's options could not be read");
        return Ok(());
    }
    let answer = match pass.client.group_of(&node) {
        Ok(Some(group)) => pass.client.delete(&group.id, vec![node]),
        Ok(None) => {
            give_up(pass, deletion, "it belongs to no group");
            return Ok(());
        }
        Err(trouble) => Err(trouble),
    };
    match answer {
        Ok(()) => {
            registry.scale_downs.push((deletion.group.clone(), pass.now + CLOUD_DELETION_TIME));
            pass.event("ScaleDown", &deletion.node.name, "node removed by cluster autoscaler".into());
            if pass.era() >= Era::V1_36 {
                // For a metric's label.
                tolerate(pass.client.template(&format!("node {}", deletion.node.name), &deletion.group))?;
            }
            Ok(())
        }
        Err(Trouble::Failed(failure)) => {
            give_up(pass, deletion, &failure.to_string());
            Ok(())
        }
        Err(crash) => Err(crash),
    }
}
