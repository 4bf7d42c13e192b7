//! `--once`: a table for a person at a terminal. Two readings a second apart, so that use is measured and not guessed.
//! The same parts as the service, without its loops.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::attribution::{GpuUse, Share, Snapshot, attribute};
use crate::clock::Clock;
use crate::config::{Config, limits};
use crate::gpu::Reading;
use crate::gpu::thread::GpuThread;
use crate::pods::identity::Identities;
use crate::pods::kubelet::Kubelet;
use crate::pods::processes::{Processes, Sources};
use crate::pods::{Holders, poll};
use crate::sampler::pids;

/// Time between the two readings: the longest sample period of any driver.
const BETWEEN: Duration = Duration::from_secs(1);

/// Reads, and prints to `out`. An error says why there is nothing to print.
pub async fn once(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let clock = Clock::start();
    let gpus = GpuThread::start(config.nvml_library.clone()).context("the NVML thread could not be started")?;
    read(&gpus, &clock).await?;
    let holders = holders(config, out).await?;
    tokio::time::sleep(BETWEEN).await;
    let reading = read(&gpus, &clock).await?;
    let mut processes = Processes::new(config.host_proc.clone(), config.host_logs.clone());
    let sources = Sources { holders: &holders, identities: &Identities::default() };
    let resolved = processes.resolve(&pids(&reading), sources, clock.now());
    let snapshot = attribute(reading, &holders, &resolved.whose);
    out.write_all(table(&config.node_name, &snapshot).as_bytes())?;
    Ok(())
}

async fn read(gpus: &GpuThread, clock: &Clock) -> anyhow::Result<Reading> {
    let answer = gpus.ask(clock.now()).ok_or_else(|| anyhow!("the NVML thread is busy"))?;
    let answer = tokio::time::timeout(limits::READING, answer).await;
    let answer = answer
        .map_err(|_| anyhow!("NVML did not answer within {:?}; look at dmesg for Xid errors", limits::READING))?;
    answer.context("the NVML thread ended")?.reading.map_err(|absence| anyhow!(absence.message))
}

async fn holders(config: &Config, out: &mut impl Write) -> anyhow::Result<Arc<Holders>> {
    let Some(socket) = &config.kubelet_socket else { return Ok(Arc::default()) };
    let mut kubelet = Kubelet::new(socket).with_context(|| format!("--kubelet-socket {}", socket.display()))?;
    match kubelet.holders().await {
        Ok(mut holders) => {
            if let Some(checkpoint) = &config.kubelet_checkpoint {
                holders.names = poll::names(checkpoint, &holders);
            }
            Ok(Arc::new(holders))
        }
        Err(reason) => {
            writeln!(out, "No owners: the kubelet at {} does not answer ({reason}).\n", socket.display())?;
            Ok(Arc::default())
        }
    }
}

/// The table: a line per GPU, its owners beneath it.
fn table(node: &str, snapshot: &Snapshot) -> String {
    let driver = snapshot.driver_version.as_deref().unwrap_or("unknown");
    let count = snapshot.gpus.len();
    let mut rows = vec![["GPU", "UTIL", "MEMORY", "POWER", "TEMP", "WHO"].map(str::to_owned)];
    for (position, gpu) in snapshot.gpus.iter().enumerate() {
        rows.push(gpu_row(gpu));
        let shares = snapshot.shares.iter().filter(|share| share.gpu == position);
        rows.extend(shares.map(|share| share_row(gpu, share)));
        let rest = gpu.unattributed_utilization.unwrap_or(0.0) > 0.0 || gpu.unattributed_memory.unwrap_or(0) > 0;
        if rest && gpu.gpu.up {
            let memory = gpu.unattributed_memory.map_or_else(dash, mebibytes);
            rows.push([
                String::new(),
                percent(gpu.unattributed_utilization),
                memory,
                String::new(),
                String::new(),
                "  (nobody)".into(),
            ]);
        }
    }
    let plural = if count == 1 { "" } else { "s" };
    format!("Node {node}, driver {driver}, {count} GPU{plural}\n\n{}", aligned(&rows))
}

fn gpu_row(gpu: &GpuUse) -> [String; 6] {
    let read = &gpu.gpu;
    let name = format!("{} {}", read.identity.index, read.identity.model.as_deref().unwrap_or(&read.identity.uuid));
    if !read.up {
        return [name, dash(), dash(), dash(), dash(), "LOST: reset it or reboot the node".into()];
    }
    let memory = read.memory.map_or_else(dash, |memory| format!("{} / {}", memory.used >> 20, mebibytes(memory.total)));
    let power = match (read.power_watts, read.power_limit_watts) {
        (Some(watts), Some(limit)) => format!("{watts:.0} / {limit:.0} W"),
        (Some(watts), None) => format!("{watts:.0} W"),
        _ => dash(),
    };
    let who = match (&read.mig, gpu.holders) {
        (Some(instances), _) => format!("MIG, {} instances", instances.len()),
        (None, 0) => "free".into(),
        (None, 1) => String::new(),
        (None, holders) => format!("shared by {holders}"),
    };
    let temperature = read.temperature_celsius.map_or_else(dash, |celsius| format!("{celsius:.0} °C"));
    [name, percent(read.utilization), memory, power, temperature, who]
}

fn share_row(gpu: &GpuUse, share: &Share) -> [String; 6] {
    let owner = &share.owner;
    let instance = share.instance.and_then(|index| gpu.gpu.mig.as_ref()?.get(index));
    let profile = instance.map_or_else(String::new, |instance| format!(" on {}", instance.profile));
    let mark = if share.held { "" } else { " (not given to it)" };
    let who = format!("  {}/{}/{}{profile}{mark}", owner.namespace, owner.pod, owner.container);
    [
        String::new(),
        percent(share.utilization),
        share.memory_used.map_or_else(dash, mebibytes),
        String::new(),
        String::new(),
        who,
    ]
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.0} %"))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn dash() -> String {
    "-".into()
}

fn aligned(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            1..=4 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
