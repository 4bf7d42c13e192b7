//! Real nodes with GPUs that cluster-autoscaler showed us without the GPU label: it takes such a node for one without GPUs
//! while its device plugin starts, and buys another. Told on the page, in the metrics and by `doctor`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use crate::fleet::{Fleet, GroupView, group::GroupId, template::Dialect};

/// Nodes by group.
pub type Counts = BTreeMap<GroupId, u32>;

/// Whom we have seen.
#[derive(Debug, Default)]
pub struct Unlabelled(Mutex<BTreeMap<GroupId, BTreeSet<String>>>);

impl Unlabelled {
    /// A real node of this group was shown with these labels; true when it is the first of its group to lack the label.
    pub fn seen(&self, of: &GroupView, provider_id: &str, labels: &HashMap<String, String>, label: &str) -> bool {
        if !of.group.shape.gpus.as_ref().is_some_and(Dialect::labels_gpus) {
            return false;
        }
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !labels.contains_key(label) {
            let lacking = nodes.entry(of.group.id.clone()).or_default();
            return lacking.insert(provider_id.to_owned()) && lacking.len() == 1;
        }
        if let Some(lacking) = nodes.get_mut(&of.group.id) {
            lacking.remove(provider_id);
        }
        false
    }

    /// How many each group has; nodes whose machine is gone are forgotten.
    pub fn counts(&self, fleet: &Fleet) -> Counts {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|group, lacking| {
            let view = fleet.group(group.as_str());
            lacking.retain(|id| view.is_some_and(|view| view.instance(id).is_some()));
            !lacking.is_empty()
        });
        let count = |lacking: &BTreeSet<String>| u32::try_from(lacking.len()).unwrap_or(u32::MAX);
        nodes.iter().map(|(group, lacking)| (group.clone(), count(lacking))).collect()
    }
}
