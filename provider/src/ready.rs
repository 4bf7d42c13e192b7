//! Readiness as named guards: the program is ready when nobody holds one, and says by name what it still waits for.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// What is still pending. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    pending: Arc<Mutex<BTreeSet<String>>>,
}

/// Stands for one thing that must happen first; dropping it says that it has.
#[derive(Debug)]
pub struct Guard {
    ready: Ready,
    name: String,
}

impl Ready {
    /// Readiness now also waits for `name`.
    #[must_use]
    pub fn wait_for(&self, name: &str) -> Guard {
        self.lock().insert(name.to_owned());
        Guard { ready: self.clone(), name: name.to_owned() }
    }

    /// What is still waited for, by name; empty means ready.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.ready.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_has_a_name_until_it_is_done() {
        let ready = Ready::default();
        let (cloud, config) = (ready.wait_for("first listing of the cloud"), ready.wait_for("configuration"));
        assert_eq!(ready.pending(), ["configuration", "first listing of the cloud"]);
        drop(config);
        drop(cloud);
        assert!(ready.pending().is_empty());
    }
}
