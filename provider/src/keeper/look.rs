//! What a keeper would publish after one listing, for whoever only wants to look: the same state file, the same reading of
//! the cloud, and nothing written, bought or ended.

use std::{io, path::Path};

use super::{clock, state};
use crate::{
    cloud::{Cloud, Look},
    config::Config,
    fleet::{Fleet, listing::Reading, template::Dialect},
    snapshot::{Snapshot, Troubles},
};

/// What is wrong with the state file.
#[derive(Debug)]
pub enum Unfit {
    /// What it holds cannot be read, in words of its own.
    Unreadable(anyhow::Error),
    /// It cannot be replaced.
    Unwritable(io::Error),
}

/// Reads the state file and tries whether it could be replaced; changes nothing.
///
/// # Errors
/// What a provider would fail at.
pub fn state_file(file: &Path) -> Result<(), Unfit> {
    let file = state::File::new(file.to_owned());
    file.read().map_err(Unfit::Unreadable)?;
    file.try_write().map_err(Unfit::Unwritable)
}

/// Lists the cloud once.
///
/// # Errors
/// A state file that is there and cannot be read; a cloud that cannot be listed, in its own words.
pub async fn look(config: &Config, cloud: &dyn Cloud, dialect: &Dialect) -> anyhow::Result<Snapshot> {
    let file = config.state.clone().map(state::File::new);
    let mut kept = file.as_ref().map(state::File::read).transpose()?.flatten().unwrap_or_default();
    kept.offerings.backoff = config.offerings;
    let mut fleet = Fleet::restore(kept.fleet);
    let begun = clock();
    let mut listing = cloud.list(Look { now: begun, awaited: false }).await?;
    let now = clock();
    listing.look_for(config.groups.keys());
    fleet.listed(listing.groups, Reading { begun, now, dialect, overrides: &config.groups });
    Ok(Snapshot {
        fleet: fleet.into(),
        bought: kept.bought.into(),
        offerings: kept.offerings.into(),
        synced_at: Some(begun),
        troubles: Troubles { missing: listing.missing.into(), failing: None },
        at: now,
    })
}
