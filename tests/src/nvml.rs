//! GPUs for a test, the demo or a bench: a copy of the fake `libnvidia-ml.so.1` with a profile of its own beside it, which can be changed
//! while programs use it. What is true about the load is read from the same curves ([`Gpus::mean_sm`]).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
pub use fake_nvml::curve::{Curve, Shape};
pub use fake_nvml::fault::{Answer, AnswerName, Fault};
use fake_nvml::machine::Machine;
pub use fake_nvml::machine::{gpu_uuid, mig_uuid};
pub use fake_nvml::model::ModelName;
pub use fake_nvml::profile::{Costs, EccErrors, Gpu, Health, Kind, Mig, NvlinkCounters, Process, Profile, h200_costs};
use fake_nvml::timeline::Timeline;
use tempfile::TempDir;

const BUILT: &str = "libfake_nvml.so";

/// Where cargo put the fake library: beside this program, in `deps` below it, or above it.
pub fn library_path() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where this program lies")?;
    let folders = program.ancestors().skip(1).take(2).flat_map(|folder| [folder.join("deps"), folder.to_owned()]);
    let places: Vec<PathBuf> = folders.map(|folder| folder.join(BUILT)).collect();
    match places.iter().find(|place| place.exists()) {
        Some(place) => Ok(place.clone()),
        None => bail!("no {BUILT} in any of {places:?}; build it with `cargo build -p fake-nvml`"),
    }
}

/// A machine's GPUs, until dropped.
#[derive(Debug)]
pub struct Gpus {
    folder: TempDir,
    truth: Mutex<Timeline>,
}

impl Gpus {
    /// Puts a copy of the library and this profile into a folder of their own. A copy, because the loader takes two links to one file for one library.
    pub fn new(profile: &Profile) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the fake NVML")?;
        let library = library_path()?;
        std::fs::copy(&library, folder.path().join(fake_nvml::SONAME))
            .with_context(|| format!("copy {}", library.display()))?;
        let gpus = Self { folder, truth: Mutex::default() };
        gpus.set(profile)?;
        Ok(gpus)
    }

    /// The library, for `--nvml-library`.
    pub fn library(&self) -> PathBuf {
        self.folder.path().join(fake_nvml::SONAME)
    }

    /// The folder of the library, for `LD_LIBRARY_PATH`. Tests may put files of their own there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The GPUs are these from now on. Programs that have the library loaded see it within 10 ms.
    pub fn set(&self, profile: &Profile) -> anyhow::Result<()> {
        let machine = Machine::new(profile.clone()).map_err(anyhow::Error::msg)?;
        let written = self.folder.path().join("next.yaml");
        let path = self.folder.path().join(fake_nvml::PROFILE_FILE);
        std::fs::write(&written, serde_json::to_string_pretty(profile)?).context("write the profile")?;
        std::fs::rename(&written, &path).context("put the profile in place")?;
        let since = std::fs::metadata(&path)?.modified()?.duration_since(SystemTime::UNIX_EPOCH)?;
        self.truth().begin(micros(since), Arc::new(machine));
        Ok(())
    }

    /// Mean SM percent of process `pid` on GPU `gpu` between two moments since the Unix epoch.
    pub fn mean_sm(&self, gpu: u32, pid: u32, from: Duration, to: Duration) -> f64 {
        self.truth().mean_sm(gpu, pid, micros(from), micros(to))
    }

    /// Mean percent of GPU `gpu` between two moments since the Unix epoch.
    pub fn mean_gpu(&self, gpu: u32, from: Duration, to: Duration) -> f64 {
        self.truth().mean_gpu(gpu, micros(from), micros(to))
    }

    fn truth(&self) -> std::sync::MutexGuard<'_, Timeline> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_built_with_the_tests() {
        let gpus = Gpus::new(&Profile::idle(ModelName::T4, 1)).unwrap();
        assert!(gpus.library().metadata().unwrap().len() > 0);
    }
}
