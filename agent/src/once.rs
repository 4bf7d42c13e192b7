//! `--once`: what there is on the node now, as a table for a person at a terminal, or as JSON.

mod json;

use std::io::Write;

use anyhow::anyhow;

use crate::attribution::{GpuUse, Share, Snapshot};
use crate::config::Config;
use crate::gpu::Memory;
use crate::look::look;

/// Reads, and prints to `out`. An error says why there is nothing to print.
pub async fn once(config: &Config, as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let look = look(config).await?;
    let snapshot = look
        .gpus
        .map_err(|absence| anyhow!("{absence}\n`windlass-agent doctor` says what else is missing, and what to do"))?;
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

/// One line: aligned columns, and what follows them at any length. Lines of owners have fewer columns, so that names have room.
struct Row {
    columns: Vec<String>,
    rest: String,
}

/// The table: a line per GPU, its MIG instances and owners beneath it.
fn table(node: &str, snapshot: &Snapshot, owners_known: bool) -> String {
    let driver = snapshot.driver_version.as_deref().unwrap_or("unknown");
    let count = snapshot.gpus.len();
    let plural = if count == 1 { "" } else { "s" };
    let head = format!("Node {node}, driver {driver}, {count} GPU{plural}\n\n");
    if count == 0 {
        return head + "The driver lists none; `windlass-agent doctor` says what to try\n";
    }
    let mut rows = vec![Row {
        columns: ["GPU", "UTIL", "MEMORY", "POWER", "TEMP"].map(str::to_owned).into(),
        rest: String::new(),
    }];
    for (position, gpu) in snapshot.gpus.iter().enumerate() {
        rows.push(gpu_row(gpu, owners_known));
        let here =
            |instance| snapshot.shares.iter().filter(move |share| share.gpu == position && share.instance == instance);
        rows.extend(here(None).map(share_row));
        rows.extend(nobody_row(gpu.unattributed_utilization, gpu.unattributed_memory).filter(|_| gpu.gpu.up));
        for (index, (instance, used)) in gpu.gpu.mig.iter().flatten().zip(&gpu.instances).enumerate() {
            let free = owners_known && here(Some(index)).next().is_none();
            rows.push(Row {
                columns: vec![format!("  {}", instance.profile), percent(used.utilization), memory(instance.memory)],
                rest: if free { "free".into() } else { String::new() },
            });
            rows.extend(here(Some(index)).map(share_row));
            rows.extend(nobody_row(used.unattributed_utilization, used.unattributed_memory));
        }
    }
    head + &aligned(&rows)
}

/// Used, and no container is known for it.
fn nobody_row(utilization: Option<f64>, memory: Option<u64>) -> Option<Row> {
    (utilization.unwrap_or(0.0) > 0.0 || memory.unwrap_or(0) > 0)
        .then(|| owner_row(utilization, memory, "(nobody)".into()))
}

fn gpu_row(gpu: &GpuUse, owners_known: bool) -> Row {
    let read = &gpu.gpu;
    let model = read.identity.model.as_deref().unwrap_or(&read.identity.uuid);
    let name = format!("{} {}", read.identity.index, model.strip_prefix("NVIDIA ").unwrap_or(model));
    if let Some(state) = read.down() {
        let rest = match state {
            "hangs" => "a call to it hangs: look at dmesg, reset it or reboot the node",
            "lost" => "LOST: reset it or reboot the node",
            _ => "no answer: look at dmesg, reset it or reboot the node",
        };
        return Row { columns: vec![name, dash(), dash(), dash(), dash()], rest: rest.into() };
    }
    let power = match (read.power_watts, read.power_limit_watts) {
        (Some(watts), Some(limit)) => format!("{watts:.0} / {limit:.0} W"),
        (Some(watts), None) => format!("{watts:.0} W"),
        _ => dash(),
    };
    let used = nobody_row(gpu.unattributed_utilization, gpu.unattributed_memory).is_some();
    let rest = match (&read.mig, gpu.holders) {
        (Some(instances), _) if instances.len() == 1 => "MIG, 1 instance".into(),
        (Some(instances), _) => format!("MIG, {} instances", instances.len()),
        (None, 0) if owners_known && used => "not given out".into(),
        (None, 0) if owners_known => "free".into(),
        (None, 0 | 1) => String::new(),
        (None, holders) => format!("shared by {holders}"),
    };
    let temperature = read.temperature_celsius.map_or_else(dash, |celsius| format!("{celsius:.0} °C"));
    Row { columns: vec![name, percent(read.utilization), memory(read.memory), power, temperature], rest }
}

fn share_row(share: &Share) -> Row {
    let owner = &share.owner;
    let mark = if share.held { "" } else { " (not given to it)" };
    let who = format!("{}/{}/{}{mark}", owner.namespace, owner.pod, owner.container);
    owner_row(share.utilization, share.memory_used, who)
}

fn owner_row(utilization: Option<f64>, memory: Option<u64>, who: String) -> Row {
    Row { columns: vec![String::new(), percent(utilization), memory.map_or_else(dash, mebibytes)], rest: who }
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.0} %"))
}

fn memory(memory: Option<Memory>) -> String {
    memory.map_or_else(dash, |memory| format!("{} / {}", memory.used >> 20, mebibytes(memory.total)))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn dash() -> String {
    "-".into()
}

fn aligned(rows: &[Row]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.columns.get(column)?.chars().count())).max();
    let mut text = String::new();
    for Row { columns, rest } in rows {
        let mut line = String::new();
        for (column, cell) in columns.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            line += &if column == 0 { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
        }
        line += rest;
        // Names are foreign: what would steer the terminal is not shown.
        text.extend(line.trim_end().chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
