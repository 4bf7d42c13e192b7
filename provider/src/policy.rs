//! The operator's part in a decision, kept up to date: the priority list is read again when its file changes (a mounted
//! ConfigMap changes in place), and a list that is wrong leaves the one before it in force.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use crate::{
    config,
    expander::{Policy, priority::Priorities},
};

/// The policy in force. Cheap to clone.
#[derive(Clone, Default)]
pub struct Policies {
    current: Arc<ArcSwap<Policy>>,
    source: Arc<Mutex<Source>>,
}

/// What the policy in force was made from.
#[derive(Default)]
struct Source {
    settings: config::Expander,
    gpu_label: String,
    /// The text of the file as it was read last, good or bad.
    text: Option<String>,
}

impl Policies {
    /// The policy of a configuration. A priority list that is wrong is said so in the policy's warnings, and the last
    /// good one (none, at start: spot first) stands.
    pub fn configure(&self, settings: &config::Expander, gpu_label: &str) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.settings = settings.clone();
        gpu_label.clone_into(&mut source.gpu_label);
        source.text = file(settings).and_then(|file| config::read_text(file).ok());
        let policy = source.policy(&self.current.load());
        policy.warnings.iter().for_each(|warning| tracing::warn!("the priority list: {warning}"));
        self.current.store(Arc::new(policy));
    }

    /// Reads the priority file again; true when it had changed. To be called every [`config::limits::FILE_POLL`].
    #[must_use]
    pub fn poll(&self) -> bool {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = file(&source.settings) else { return false };
        let text = config::read_text(file).ok();
        if text == source.text {
            return false;
        }
        source.text = text;
        let policy = source.policy(&self.current.load());
        match policy.warnings.as_slice() {
            [] => tracing::info!("the priority list was read again"),
            warnings => tracing::warn!("the priority list: {}", warnings.join("; ")),
        }
        self.current.store(Arc::new(policy));
        true
    }

    /// The policy in force.
    #[must_use]
    pub fn current(&self) -> Arc<ArcSwap<Policy>> {
        self.current.clone()
    }
}

fn file(settings: &config::Expander) -> Option<&Path> {
    match &settings.priorities {
        Some(config::Priorities::File(file)) => Some(file),
        _ => None,
    }
}

impl Source {
    fn policy(&self, before: &Policy) -> Policy {
        let config = || "expander.priorities".to_owned();
        let list = match (&self.settings.priorities, &self.text) {
            (None, _) => None,
            (Some(config::Priorities::List(list)), _) => Some(Priorities::compile(list, &config())),
            (Some(config::Priorities::File(file)), Some(text)) => {
                Some(Priorities::parse(text, &file.display().to_string()))
            }
            (Some(config::Priorities::File(file)), None) => {
                let warning = format!("{} cannot be read; the last good list stands", file.display());
                return self.with(before.priorities.clone(), vec![warning]);
            }
        };
        match list {
            None => self.with(None, Vec::new()),
            Some(Ok(list)) => {
                let warnings = list.warnings().to_vec();
                self.with(Some(Arc::new(list)), warnings)
            }
            Some(Err(wrong)) => {
                self.with(before.priorities.clone(), vec![format!("{wrong}; the last good list stands")])
            }
        }
    }

    fn with(&self, priorities: Option<Arc<Priorities>>, warnings: Vec<String>) -> Policy {
        Policy {
            filters: self.settings.filters.clone(),
            priorities,
            gpu_label: self.gpu_label.as_str().into(),
            warnings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &Path) -> config::Expander {
        config::Expander { priorities: Some(config::Priorities::File(file.to_owned())), ..config::Expander::default() }
    }

    /// What the policy in force says of a spot group, and its warnings.
    fn rank(policies: &Policies) -> (Option<i64>, String) {
        let policy = policies.current().load_full();
        (policy.priorities.as_ref().and_then(|list| list.of("a10g-spot")), policy.warnings.join("; "))
    }

    #[test]
    fn a_changed_file_takes_effect_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("priorities");
        std::fs::write(&file, "10: [spot]").unwrap();
        let policies = Policies::default();
        policies.configure(&settings(&file), "gpu");
        assert_eq!(rank(&policies), (Some(10), String::new()));
        assert!(!policies.poll());
        std::fs::write(&file, "20: [spot]").unwrap();
        assert!(policies.poll());
        assert_eq!(rank(&policies), (Some(20), String::new()));
        std::fs::write(&file, "20: [spot]\nthirty: [spot]").unwrap();
        assert!(policies.poll());
        let (rank_now, warning) = rank(&policies);
        assert_eq!(rank_now, Some(20));
        assert!(warning.contains("priorities:2:1: ") && warning.ends_with("the last good list stands"), "{warning}");
        std::fs::remove_file(&file).unwrap();
        assert!(policies.poll());
        assert_eq!(rank(&policies).0, Some(20));
        assert!(rank(&policies).1.contains("cannot be read"));
    }

    #[test]
    fn a_file_that_is_wrong_from_the_start_lets_spot_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let policies = Policies::default();
        policies.configure(&settings(&folder.path().join("absent")), "gpu");
        assert_eq!(rank(&policies).0, None);
        assert!(rank(&policies).1.contains("cannot be read"));
    }
}
