//! `--once`: what there is on the node now, as a table for a person at a terminal, or as JSON.

mod json;

use std::io::Write;

use anyhow::anyhow;

use crate::attribution::{GpuUse, Share, Snapshot};
use crate::config::Config;
use crate::look::look;

/// Reads, and prints to `out`. An error says why there is nothing to print.
pub async fn once(config: &Config, as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let look = look(config).await?;
    let snapshot = look.gpus.map_err(|absence| {
        anyhow!("{}\n`windlass-agent doctor` says what else is missing, and what to do", absence.message)
    })?;
    let problem = look.owners.err();
    if as_json {
        let node = json::node(&config.node_name, &snapshot, problem.as_deref());
        writeln!(out, "{}", serde_json::to_string_pretty(&node)?)?;
        return Ok(());
    }
    if let Some(problem) = &problem {
        writeln!(out, "Who holds what is not known: {problem}\n")?;
    }
    out.write_all(table(&config.node_name, &snapshot, problem.is_none()).as_bytes())?;
    Ok(())
}

/// The table: a line per GPU, its owners beneath it.
fn table(node: &str, snapshot: &Snapshot, owners_known: bool) -> String {
    let driver = snapshot.driver_version.as_deref().unwrap_or("unknown");
    let count = snapshot.gpus.len();
    let mut rows = vec![["GPU", "UTIL", "MEMORY", "POWER", "TEMP", "WHO"].map(str::to_owned)];
    for (position, gpu) in snapshot.gpus.iter().enumerate() {
        rows.push(gpu_row(gpu, owners_known));
        let shares = snapshot.shares.iter().filter(|share| share.gpu == position);
        rows.extend(shares.map(|share| share_row(gpu, share)));
        if used_by_nobody(gpu) && gpu.gpu.up {
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

/// Used, and no container is known for it.
fn used_by_nobody(gpu: &GpuUse) -> bool {
    gpu.unattributed_utilization.unwrap_or(0.0) > 0.0 || gpu.unattributed_memory.unwrap_or(0) > 0
}

fn gpu_row(gpu: &GpuUse, owners_known: bool) -> [String; 6] {
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
        (None, 0) if owners_known && used_by_nobody(gpu) => "not given out".into(),
        (None, 0) if owners_known => "free".into(),
        (None, 0) => dash(),
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
