//! Under MPS, on whom does the driver book what clients do: on each, or on the server? Two processes with known shares tell.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use super::load::{Load, PID, Workers, end, h200, torch};
use super::{SHARES, script};
use crate::nvml::{Gpus, Kind, Process};

/// NVIDIA's program, which needs no setting of the GPU.
const CONTROL: &str = "nvidia-cuda-mps-control";

/// Whom NVML names: pids by list, and the percent of each by the driver's process samples.
#[derive(Debug, Deserialize)]
struct Named {
    compute: Vec<u32>,
    mps: Vec<u32>,
    sampled: BTreeMap<u32, f64>,
}

/// The daemon, until dropped.
struct Daemon {
    folder: TempDir,
}

impl Load {
    /// Nobody works any more but two clients of MPS; what the driver says of them.
    pub(super) fn mps(&mut self, python: &Path) -> anyhow::Result<String> {
        let (clients, named) = match &mut self.workers {
            Workers::Nobody => return Ok("  not under MPS: there is no load".to_owned()),
            Workers::Fake(gpus) => {
                let mut profile = h200()?;
                let client =
                    |(pid, share)| Process { kind: Kind::Mps, sampled: false, ..Process::new(pid, share, 500) };
                profile.gpu(0).processes = (PID..).zip(SHARES).map(client).collect();
                profile.gpu(0).processes.push(Process { kind: Kind::MpsServer, ..Process::new(PID - 1, 0.0, 30) });
                *gpus = Gpus::new(&profile)?;
                (vec![PID, PID + 1], named(python, Some(&gpus.library()))?)
            }
            Workers::Torch { children, .. } => {
                children.drain(..).for_each(|mut child| end(&mut child));
                let Some(daemon) = Daemon::start()? else { return Ok(format!("  not under MPS: no {CONTROL} here")) };
                for share in SHARES {
                    children.push(torch(python, share, &daemon.environment())?);
                }
                let named = named(python, None);
                let clients = children.iter().map(std::process::Child::id).collect();
                children.drain(..).for_each(|mut child| end(&mut child));
                (clients, named?)
            }
        };
        Ok(named.told(&clients))
    }
}

fn named(python: &Path, library: Option<&Path>) -> anyhow::Result<Named> {
    let output = script(python, library, &["named"]).output().context("start python")?;
    ensure!(output.status.success(), "nvidia-ml-py: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

impl Named {
    fn told(&self, clients: &[u32]) -> String {
        let sampled = |pid: &u32| self.sampled.contains_key(pid);
        let on = match clients {
            clients if clients.iter().all(sampled) => "on each client",
            clients if clients.iter().any(sampled) => "on some clients",
            _ if self.sampled.is_empty() => "on nobody",
            _ => "on the server",
        };
        format!(
            "  under MPS use is booked {on}: clients {clients:?}, in the compute list {:?}, in the MPS list {:?}, process samples {:?}",
            self.compute, self.mps, self.sampled
        )
    }
}

impl Daemon {
    /// Nothing where there is no such program.
    fn start() -> anyhow::Result<Option<Self>> {
        let daemon = Self { folder: tempfile::tempdir()? };
        let started = Command::new(CONTROL).arg("-d").envs(daemon.environment()).stdout(Stdio::null()).status();
        match started {
            Ok(status) => ensure!(status.success(), "{CONTROL} -d: {status}"),
            Err(_) => return Ok(None),
        }
        Ok(Some(daemon))
    }

    fn environment(&self) -> [(&'static str, std::path::PathBuf); 2] {
        ["CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"].map(|name| (name, self.folder.path().to_owned()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let control =
            Command::new(CONTROL).envs(self.environment()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        // What fails here fails for a daemon that is gone already.
        let Ok(mut control) = control else { return };
        if let Some(mut input) = control.stdin.take() {
            let _gone = input.write_all(b"quit -t 5\n");
        }
        let _gone = control.wait();
    }
}
