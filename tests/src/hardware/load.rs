//! Processes that use the first GPU as they are told: PyTorch on a real one, lines of a profile on the fake.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use super::{SHARES, script};
use crate::nvml::{Gpus, ModelName, Process, Profile};
use crate::proc::{Cgroup, Container, Host};

/// First process id on the fake.
pub(super) const PID: u32 = 4_000_001;

/// A pod with one process.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) pid: u32,
    /// What it was told to use, percent.
    pub(super) share: f64,
}

/// The fake H200, whose calls take about as long as a driver's.
pub(super) fn h200() -> anyhow::Result<Profile> {
    let costs_us = crate::nvml::h200_costs().map_err(anyhow::Error::msg)?;
    Ok(Profile { costs_us, ..Profile::idle(ModelName::H200, 1) })
}

/// Who works.
pub(super) struct Load {
    pub(super) workers: Workers,
    pods: Vec<Pod>,
}

pub(super) enum Workers {
    Fake(Gpus),
    Torch {
        python: PathBuf,
        children: Vec<Child>,
    },
    /// PyTorch is not there.
    Nobody,
}

/// `python3` if it reads NVML.
pub(super) fn own_python() -> Option<PathBuf> {
    can("python3".as_ref(), "import pynvml").then(|| "python3".into())
}

fn can(python: &Path, code: &str) -> bool {
    Command::new(python).args(["-c", code]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Load {
    pub(super) fn new(fake: bool, python: &Path) -> anyhow::Result<Self> {
        let workers = if fake {
            Workers::Fake(Gpus::new(&h200()?)?)
        } else if can(python, "import torch; torch.zeros(1, device='cuda')") {
            Workers::Torch { python: python.to_owned(), children: Vec::new() }
        } else {
            Workers::Nobody
        };
        Ok(Self { workers, pods: Vec::new() })
    }

    /// The fake's library.
    pub(super) fn library(&self) -> Option<PathBuf> {
        match &self.workers {
            Workers::Fake(gpus) => Some(gpus.library()),
            _ => None,
        }
    }

    pub(super) fn describe(&self) -> &'static str {
        match self.workers {
            Workers::Fake(_) => "the fake, with a load of its own",
            Workers::Torch { .. } => "a load by PyTorch",
            Workers::Nobody => "no load: this Python has no PyTorch that sees a GPU",
        }
    }

    /// How many can work at once.
    pub(super) fn most(&self) -> usize {
        if matches!(self.workers, Workers::Nobody) { 0 } else { SHARES.len() }
    }

    pub(super) fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// So many work from now on.
    pub(super) fn set(&mut self, count: usize, host: &Host) -> anyhow::Result<()> {
        match &mut self.workers {
            Workers::Nobody => return Ok(()),
            Workers::Fake(gpus) => {
                let mut profile = h200()?;
                let process = |(pid, share): (u32, f64)| Process::new(pid, share, 8_000);
                profile.gpu(0).processes = (PID..).zip(SHARES).take(count).map(process).collect();
                // Whoever opens a library anew knows nothing of loads before: only those who are to see the change share one with the past.
                if count < self.pods.len() {
                    gpus.set(&profile)?;
                } else {
                    *gpus = Gpus::new(&profile)?;
                }
            }
            Workers::Torch { children, .. } => {
                children.drain(count.min(children.len())..).for_each(|mut child| end(&mut child))
            }
        }
        while self.pods.len() < count {
            let index = self.pods.len();
            let share = SHARES.get(index).copied().context("no such share")?;
            let pid = match &mut self.workers {
                Workers::Torch { python, children } => {
                    let child = torch(python, share, &[])?;
                    let pid = child.id();
                    children.push(child);
                    pid
                }
                _ => PID + u32::try_from(index)?,
            };
            let name = format!("worker-{index}");
            let container = Container::new("hardware", &name, "main");
            host.container(&container)?;
            host.process(pid, &container, Cgroup::Systemd)?;
            self.pods.push(Pod { name, pid, share });
        }
        self.pods.truncate(count);
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Workers::Torch { children, .. } = &mut self.workers {
            children.iter_mut().for_each(end);
        }
    }
}

/// One that works; it sees these besides the environment.
pub(super) fn torch(python: &Path, share: f64, more: &[(&str, PathBuf)]) -> anyhow::Result<Child> {
    let mut command = script(python, None, &["load", &share.to_string()]);
    let mut child = command.envs(more.iter().map(|(name, value)| (name, value))).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
    ensure!(line.trim() == "working", "PyTorch does not work on the GPU; what it says stands above");
    Ok(child)
}

pub(super) fn end(child: &mut Child) {
    // Both fail only for a process that is gone already.
    let _gone = child.kill();
    let _gone = child.wait();
}
