//! What was read of launch templates, images, types and node groups, kept beside the state file: a restart describes every
//! group at once as before, and asks AWS only for what is due. Losing it costs nothing but calls.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Facts;

/// Where facts are kept.
#[derive(Clone, Debug)]
pub(in crate::cloud::aws) struct File(PathBuf);

impl File {
    /// Beside a state file.
    pub(in crate::cloud::aws) fn beside(state: &Path) -> Self {
        let mut path = state.as_os_str().to_owned();
        path.push(".templates");
        Self(path.into())
    }

    /// What was kept; None when nothing was, or nothing that can be read.
    pub(super) fn read(&self) -> Option<Facts> {
        let text = match fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            text => text.map_err(|error| error.to_string()),
        };
        let facts = text.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
        let told = |why| tracing::warn!("{} cannot be read, everything is asked of AWS anew: {why}", self.0.display());
        facts.map_err(told).ok()
    }

    /// Replaces it, beside and then by name, so that a reader sees the old or the new.
    pub(super) fn write(&self, facts: &Facts) {
        let mut beside = self.0.as_os_str().to_owned();
        beside.push(".new");
        let text = serde_json::to_vec(facts).map_err(io::Error::other);
        let written = text.and_then(|text| fs::write(&beside, text)).and_then(|()| fs::rename(&beside, &self.0));
        if let Err(error) = written {
            tracing::warn!("{} cannot be written, the next start asks AWS anew: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::aws::{
            eks,
            template::{Image, Recipe, Reference, kept::FRESH},
            types::shipped,
        },
        timestamp::Timestamp,
    };

    const NOW: Timestamp = Timestamp(1_000_000);

    #[test]
    fn what_was_read_is_known_after_a_restart_and_asked_for_when_it_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::beside(&folder.path().join("state.json"));
        assert!(file.read().is_none(), "nothing was ever kept");
        let mut facts = Facts::default();
        let reference = Reference { template: "lt-1".to_owned(), version: "1".to_owned() };
        let recipe = Recipe { volumes: vec![("/dev/xvda".to_owned(), 1 << 30)], ..Recipe::default() };
        let name = eks::Name { cluster: "c1".to_owned(), nodegroup: "gpu".to_owned() };
        facts.templates.put(reference.clone(), Ok(recipe.clone()), FRESH, NOW);
        facts.images.put("ami-1".to_owned(), Ok(Image::default()), FRESH, NOW);
        facts.types.put("g5.xlarge".to_owned(), Ok(shipped("g5.xlarge").unwrap()), FRESH, NOW);
        facts.nodegroups.put(name.clone(), Err("throttled".to_owned()), FRESH, NOW);
        file.write(&facts);
        let mut again = file.read().unwrap();
        assert_eq!(again.templates.get(&reference), Some(&recipe));
        assert_eq!(again.types.get(&"g5.xlarge".to_owned()), shipped("g5.xlarge").as_ref());
        assert_eq!((again.nodegroups.get(&name), again.nodegroups.failure(&name)), (None, Some("throttled")));
        assert_eq!(again.templates.due([reference.clone()], NOW + FRESH / 2), []);
        assert_eq!(again.templates.due([reference.clone()], NOW + FRESH * 2), [reference]);
        fs::write(&file.0, "{\"templates\": 7}").unwrap();
        assert!(file.read().is_none(), "what cannot be read is as if it were not there");
    }
}
