//! What of the ledger outlives the process: everything that the cloud cannot tell again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::fleet::{
    Fleet, Gone,
    group::{GroupId, InstanceId},
    intents::Intent,
    learned::Learned,
    notices::{self, Leaving},
};

/// What must outlive the process, beyond what the cloud can tell again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    pub(super) intents: Vec<Intent>,
    pub(super) doomed: BTreeMap<InstanceId, GroupId>,
    /// Those of them that are ended because they are no Nodes.
    pub(super) returned: BTreeSet<InstanceId>,
    pub(super) gone: BTreeMap<InstanceId, Gone>,
    /// Machines of groups that still wait for some: what is not among them, came of what was asked for.
    pub(super) known: BTreeMap<GroupId, BTreeSet<InstanceId>>,
    /// Machines whose end was announced.
    pub(super) leaving: BTreeMap<InstanceId, Leaving>,
    pub(super) learned: BTreeMap<GroupId, Learned>,
}

impl Fleet {
    /// A fleet that goes on where another process ended; nothing of it shows before the first listing.
    #[must_use]
    pub fn restore(mut saved: Saved) -> Self {
        let gone = std::mem::take(&mut saved.gone);
        let learned = std::mem::take(&mut saved.learned);
        Self { gone: gone.into(), learned: learned.into(), unplaced: saved, ..Self::default() }
    }

    /// What a later process needs.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let mut saved = self.unplaced.clone();
        saved.gone = (*self.gone).clone();
        saved.learned = (*self.learned).clone();
        for view in self.groups.values() {
            saved.intents.extend(view.intents.iter().cloned());
            let doomed = view.instances.iter().filter(|it| it.doomed);
            saved.doomed.extend(doomed.map(|it| (it.id.clone(), view.group.id.clone())));
            saved.returned.extend(view.instances.iter().filter(|it| it.doomed && it.returned).map(|it| it.id.clone()));
            saved.leaving.extend(notices::leaving(view));
            if view.in_flight() || view.owed() > 0 {
                let known = view.instances.iter().map(|it| it.id.clone()).collect();
                saved.known.insert(view.group.id.clone(), known);
            }
        }
        saved
    }
}
