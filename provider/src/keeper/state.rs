//! The state file: the ledger and both memories as JSON, replaced whole, so that a killed provider goes on where it
//! ended.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::{task::JoinHandle, time};

use crate::{
    config::limits,
    expander::bought::Bought,
    fleet::{offering::Offerings, saved::Saved},
};

/// The format that is written. It is raised when a program of before would read a file wrongly; a field that such a
/// program may pass over, and that a later one can do without, is added as it is.
const FORMAT: u32 = 1;

/// What is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    pub(super) fleet: Saved,
    pub(super) bought: Bought,
    pub(super) offerings: Offerings,
}

/// The same as it is written.
#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    #[serde(flatten)]
    kept: &'a Kept,
}

/// What is read of it first.
#[derive(Deserialize)]
struct Head {
    /// Not written at first.
    #[serde(default)]
    format: u32,
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
        let away = "move it away to start without it: machines on their way may be bought again then";
        let head: Result<Head, _> = serde_json::from_slice(&text);
        if let Some(Head { format }) = head.ok().filter(|head| head.format > FORMAT) {
            anyhow::bail!(
                "the state file {path} was written by a newer windlass-provider (format {format}, this one knows {FORMAT}); \
                 run that one, or {away}"
            );
        }
        let kept = serde_json::from_slice(&text);
        kept.map(Some).with_context(|| format!("the state file {path} is damaged, or of another program; {away}"))
    }

    /// Whether the file could be replaced now: tried beside it, with a file that has no name and leaves nothing.
    pub(super) fn try_write(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = tempfile::tempfile_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(&[0; 4096])?;
        file.sync_data()
    }

    /// Replaces the file.
    pub(super) async fn write(&mut self, kept: &Kept) -> anyhow::Result<()> {
        let text = serde_json::to_vec(&Written { format: FORMAT, kept }).context("encoding the state")?;
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
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
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

#[cfg(test)]
mod tests;
