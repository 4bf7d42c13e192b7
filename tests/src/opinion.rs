//! A second opinion: what `nvidia-ml-py` reads from an NVML library while the agent reads it, series by series under the agent's names, and
//! where the two differ. The library may be our fake, NVIDIA's mock or a real driver's.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tempfile::TempDir;

use crate::python;
use crate::scrape::Page;

/// So far outside of what was read at other moments a moving value may be: both look at times of their own.
const SLACK: f64 = 0.1;

/// What moves on its own between two looks, in its unit: the least that is allowed besides [`SLACK`].
const MOVING: [(&str, f64); 7] = [
    ("_ratio", 0.1),
    ("_watts", 5.0),
    ("_celsius", 2.0),
    ("_hertz", 3e7),
    ("_bytes_per_second", 5e6),
    ("_used_bytes", 0.0),
    ("_free_bytes", 0.0),
];

/// A reader that goes on until it is asked.
#[derive(Debug)]
pub struct Reader {
    child: Child,
    out: BufReader<ChildStdout>,
    // The library under the name that loaders look for, where it has another.
    _link: TempDir,
}

/// What was read.
#[derive(Debug, Deserialize)]
pub struct Opinion {
    /// Version of the driver.
    pub driver: String,
    /// In the driver's order.
    pub devices: Vec<Device>,
}

/// What was read of one GPU.
#[derive(Debug, Deserialize)]
pub struct Device {
    /// Product name.
    pub name: String,
    /// `GPU-…`.
    pub uuid: String,
    /// Processes with a context.
    pub pids: Vec<u32>,
    /// By series as on the agent's page, `name` or `name{label="value"}`; nothing where the driver refuses.
    pub series: BTreeMap<String, Option<Band>>,
}

/// A value over the time of reading.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Band {
    /// At the beginning.
    pub first: f64,
    /// Least.
    pub least: f64,
    /// Greatest.
    pub most: f64,
    /// At the end.
    pub last: f64,
}

/// One series, seen by both.
#[derive(Debug, Clone)]
pub struct Row {
    /// The GPU's index.
    pub gpu: usize,
    /// The series.
    pub series: String,
    /// The agent's value.
    pub ours: Option<f64>,
    /// `nvidia-ml-py`'s.
    pub theirs: Option<Band>,
    /// Whether one explains the other.
    pub agrees: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Reader {
    /// Starts to read; comes back when everything was read once.
    pub fn start(library: &Path) -> anyhow::Result<Self> {
        Self::with(&python::interpreter()?, library)
    }

    /// The same with a Python that has `nvidia-ml-py` already.
    pub fn with(python: &Path, library: &Path) -> anyhow::Result<Self> {
        let link = tempfile::tempdir()?;
        let folder = match library.parent() {
            // Where it lies: the fake looks for its profile beside it.
            Some(folder) if library.ends_with(fake_nvml::SONAME) => folder,
            _ => {
                let library = library.canonicalize().with_context(|| library.display().to_string())?;
                std::os::unix::fs::symlink(library, link.path().join(fake_nvml::SONAME))?;
                link.path()
            }
        };
        let mut command = Command::new(python);
        if !folder.as_os_str().is_empty() {
            command.env("LD_LIBRARY_PATH", folder);
        }
        command.arg("-c").arg(include_str!("../python/second_opinion.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start python")?;
        let mut out = BufReader::new(child.stdout.take().context("python's output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        if line.trim() != "reading" {
            bail!("nvidia-ml-py cannot read the library; what it says stands above ({:?})", child.wait()?);
        }
        Ok(Self { child, out, _link: link })
    }

    /// Ends, with all that was read since the start.
    pub fn finish(mut self) -> anyhow::Result<Opinion> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.out.read_to_string(&mut text)?;
        serde_json::from_str(&text).with_context(|| format!("nvidia-ml-py said {text:?}"))
    }
}

impl Opinion {
    /// Every series of every GPU, beside that of a page that was fetched while the reader ran, of an agent that was started meanwhile.
    #[must_use]
    pub fn compare(&self, page: &Page) -> Vec<Row> {
        let mut rows = Vec::new();
        for (gpu, device) in self.devices.iter().enumerate() {
            for (series, theirs) in &device.series {
                let ours = ours(page, series, &device.uuid);
                let agrees = match (ours, theirs) {
                    (Some(ours), Some(band)) => band.explains(ours, series),
                    (ours, theirs) => ours.is_none() == theirs.is_none(),
                };
                rows.push(Row { gpu, series: series.clone(), ours, theirs: *theirs, agrees });
            }
        }
        rows
    }
}

fn ours(page: &Page, series: &str, uuid: &str) -> Option<f64> {
    let (name, label) = series.split_once('{').unwrap_or((series, ""));
    let label = label.trim_end_matches('}').split_once('=').map(|(key, value)| (key, value.trim_matches('"')));
    let labels: Vec<(&str, &str)> = [("uuid", uuid)].into_iter().chain(label).collect();
    page.value(name, &labels)
}

impl Band {
    /// Whether a value of the same series fits between the readings.
    fn explains(&self, value: f64, series: &str) -> bool {
        let rounding = 1e-9 * self.most.abs();
        if series.split('{').next().is_some_and(|name| name.ends_with("_total")) {
            return value >= self.first - rounding && value <= self.last + rounding;
        }
        let least = MOVING.iter().find(|(end, _)| series.ends_with(end)).map(|(_, least)| *least);
        let slack = least
            .map_or(rounding, |least| if self.least < self.most { least.max(SLACK * self.most) } else { rounding });
        value >= self.least - slack && value <= self.most + slack
    }
}

/// The library that `NVML_LIBRARY` names, for what holds on any; else that of these GPUs.
#[must_use]
pub fn library(gpus: &crate::nvml::Gpus) -> PathBuf {
    std::env::var_os("NVML_LIBRARY").map_or_else(|| gpus.library(), PathBuf::from)
}
