//! Which machine a node's name stands for, as cluster-autoscaler shows us nodes: for agents that cannot tell their machine.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{config::limits, fleet::Fleet};

/// Machines of our groups by the names of their nodes.
#[derive(Debug, Default)]
pub struct Names(Mutex<BTreeMap<String, String>>);

impl Names {
    /// The autoscaler showed this node of one of our machines.
    pub fn learn(&self, node: &str, machine: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.get(node).is_some_and(|known| known == machine) {
            return;
        }
        if names.len() < limits::NODE_NAMES || names.contains_key(node) {
            names.insert(node.to_owned(), machine.to_owned());
        }
    }

    /// The machine of that node.
    pub fn machine(&self, node: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// Forgets nodes whose machines are gone.
    pub fn forget_gone(&self, fleet: &Fleet) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, machine| fleet.has_instance(machine));
    }
}
