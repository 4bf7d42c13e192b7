//! The state file: the ledger and both memories as JSON, replaced whole, so that a killed provider goes on where it
//! ended.

use std::{fs, io, io::Write as _, path::PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::{task::JoinHandle, time};

use crate::{
    config::limits,
    expander::bought::Bought,
    fleet::{offering::Offerings, saved::Saved},
};

/// What is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    pub(super) fleet: Saved,
    pub(super) bought: Bought,
    pub(super) offerings: Offerings,
}

/// Where it is kept.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// What the file holds, so that nothing is written twice; None while that is not known.
    last: Option<Vec<u8>>,
    /// A write that took too long and goes on.
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl File {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, last: None, writing: None }
    }

    /// What was kept; None when nothing ever was.
    pub(super) fn read(&self) -> anyhow::Result<Option<Kept>> {
        let path = self.path.display();
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read the state file {path}; check the key `state`"))?,
        };
        let kept = serde_json::from_slice(&text);
        kept.map(Some).with_context(|| {
            format!("the state file {path} is damaged; move it away to start without it (machines on their way may be bought again)")
        })
    }

    /// Replaces the file.
    pub(super) async fn write(&mut self, kept: &Kept) -> anyhow::Result<()> {
        let text = serde_json::to_vec(kept).context("encoding the state")?;
        if self.last.as_ref() == Some(&text) {
            return Ok(());
        }
        if let Some(writing) = &self.writing {
            anyhow::ensure!(writing.is_finished(), "an earlier write to {} still hangs", self.path.display());
        }
        self.last = None;
        let (path, bytes) = (self.path.clone(), text.clone());
        let mut writing = tokio::task::spawn_blocking(move || replace(&path, &bytes));
        match time::timeout(limits::STATE_WRITE, &mut writing).await {
            Ok(done) => done?.with_context(|| format!("writing {}", self.path.display()))?,
            Err(_) => {
                self.writing = Some(writing);
                anyhow::bail!("writing {} takes longer than {:?}", self.path.display(), limits::STATE_WRITE);
            }
        }
        self.last = Some(text);
        Ok(())
    }
}

/// Writes beside and renames, so that a reader sees the old text or the new one.
fn replace(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&beside, path)?;
    // Else the old text may be back after a loss of power; file systems that cannot do this have no need of it.
    let _best_effort = path.parent().map(fs::File::open).transpose()?.map(|folder| folder.sync_all());
    Ok(())
}
