//! Readiness as named guards: the agent is ready when nothing is pending, and `/readyz` says what is.
//! A guard can come back: a source that is lost makes the agent unready again, with its reason.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What is pending, by name, with the reason.
#[derive(Debug, Clone, Default)]
pub struct Ready(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Ready {
    /// Something has to happen before the agent is ready; said again, the reason changes.
    pub fn pending(&self, name: &'static str, reason: impl Into<String>) {
        self.lock().insert(name, reason.into());
    }

    /// It happened.
    pub fn done(&self, name: &'static str) {
        self.lock().remove(name);
    }

    /// `Ok` when nothing is pending, else a line per guard.
    pub fn check(&self) -> Result<(), String> {
        let pending = self.lock();
        if pending.is_empty() {
            return Ok(());
        }
        Err(pending.iter().map(|(name, reason)| format!("{name}: {reason}\n")).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        // A panic while holding this lock cannot leave the map half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_is_named() {
        let ready = Ready::default();
        assert_eq!(ready.check(), Ok(()));
        ready.pending("nvml", "no driver");
        ready.pending("kubelet", "no answer yet");
        ready.done("kubelet");
        assert_eq!(ready.check(), Err("nvml: no driver\n".into()));
        ready.done("nvml");
        assert_eq!(ready.check(), Ok(()));
    }
}
