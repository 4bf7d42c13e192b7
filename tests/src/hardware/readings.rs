//! What becomes of the readings: tables for people, a model and a profile for the fake NVML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::load::Pod;
use super::script;
use crate::nvml::{Costs, Gpu, Process, Profile};
use crate::opinion::{Band, Opinion, Row};
use crate::scrape::Page;

const MIB: f64 = 1_048_576.0;

/// Questions to `nvidia-smi`, the series that answer them, the unit, and how far apart two looks may be.
const SMI: &[Question] = &[
    ("utilization.gpu", "utilization_ratio", 0.01, 0.15),
    ("utilization.memory", "memory_copy_utilization_ratio", 0.01, 0.15),
    ("utilization.encoder", "encoder_utilization_ratio", 0.01, 0.15),
    ("utilization.decoder", "decoder_utilization_ratio", 0.01, 0.15),
    ("memory.total", "memory_total_bytes", MIB, MIB),
    ("memory.reserved", "memory_reserved_bytes", MIB, MIB),
    ("memory.used", "memory_used_bytes", MIB, 64.0 * MIB),
    ("memory.free", "memory_free_bytes", MIB, 64.0 * MIB),
    ("power.draw", "power_watts", 1.0, 60.0),
    ("power.draw.average", "power_average_watts", 1.0, 60.0),
    ("power.draw.instant", "power_instant_watts", 1.0, 200.0),
    ("enforced.power.limit", "power_limit_watts", 1.0, 0.01),
    ("temperature.gpu", "temperature_celsius", 1.0, 3.0),
    ("temperature.memory", "memory_temperature_celsius", 1.0, 3.0),
    ("clocks.sm", "sm_clock_hertz", 1e6, 3e8),
    ("clocks.mem", "memory_clock_hertz", 1e6, 1e6),
    ("clocks.video", "video_clock_hertz", 1e6, 3e8),
    ("ecc.errors.corrected.volatile.total", "ecc_corrected_errors_total", 1.0, 0.0),
    ("ecc.errors.uncorrected.volatile.total", "ecc_uncorrected_errors_total", 1.0, 0.0),
    ("ecc.errors.corrected.aggregate.total", "ecc_lifetime_corrected_errors_total", 1.0, 0.0),
    ("ecc.errors.uncorrected.aggregate.total", "ecc_lifetime_uncorrected_errors_total", 1.0, 0.0),
    ("retired_pages.sbe", "retired_pages_single_bit_total", 1.0, 0.0),
    ("retired_pages.dbe", "retired_pages_double_bit_total", 1.0, 0.0),
    ("retired_pages.pending", "retired_pages_pending", 1.0, 0.0),
];
/// The same by another switch of it, which has a line for each GPU too.
const REMAPPED: &[Question] = &[
    ("remapped_rows.correctable", "remapped_rows_correctable_total", 1.0, 0.0),
    ("remapped_rows.uncorrectable", "remapped_rows_uncorrectable_total", 1.0, 0.0),
    ("remapped_rows.pending", "row_remap_pending", 1.0, 0.0),
    ("remapped_rows.failure", "row_remap_failed", 1.0, 0.0),
];

type Question = (&'static str, &'static str, f64, f64);

/// What a GPU is, and says at a moment.
#[derive(Debug, Deserialize)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) driver: String,
    mig_on: bool,
    memory: BTreeMap<String, u64>,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

impl Facts {
    pub(super) fn read(python: &Path, library: &Path) -> anyhow::Result<Self> {
        let output = script(python, Some(library), &["facts"]).output().context("start python")?;
        ensure!(output.status.success(), "nvidia-ml-py: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn text(&self, path: &str) -> String {
        let mut at = self.more.get(path.split('.').next().unwrap_or_default());
        for step in path.split('.').skip(1) {
            at = at.and_then(|value| value.get(step));
        }
        at.map_or("0".to_owned(), |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }
}

/// `nvidia-smi`'s words beside the page; nothing where there is no such program. One that does not know a question answers none of a list, and is
/// asked one by one.
pub(super) fn nvidia_smi(program: &Path, page: &Page) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    for (switch, questions) in [("--query-gpu", SMI), ("--query-remapped-rows", REMAPPED)] {
        let whole = ask(program, (switch, questions), page);
        let each = || questions.chunks(1).filter_map(|one| ask(program, (switch, one), page)).flatten().collect();
        rows.extend(whole.unwrap_or_else(each));
    }
    (!rows.is_empty()).then_some(rows)
}

fn ask(program: &Path, (switch, questions): (&str, &[Question]), page: &Page) -> Option<Vec<Row>> {
    let asked: Vec<&str> = questions.iter().map(|(question, ..)| *question).collect();
    let arguments = [format!("{switch}={}", asked.join(",")), "--format=csv,noheader,nounits".to_owned()];
    let output = Command::new(program).args(arguments).output();
    let text = String::from_utf8(output.ok().filter(|output| output.status.success())?.stdout).ok()?;
    let mut rows = Vec::new();
    for (gpu, line) in text.lines().enumerate() {
        for ((question, series, unit, apart), cell) in questions.iter().zip(line.split(',')) {
            let series = format!("gpu_device_{series}");
            let ours = page.value(&series, &[("gpu", &gpu.to_string())]);
            let theirs = match cell.trim() {
                "Yes" => Some(1.0),
                "No" => Some(0.0),
                number => number.parse::<f64>().ok().map(|value| value * unit),
            };
            let agrees = match (ours, theirs) {
                (Some(ours), Some(theirs)) => (ours - theirs).abs() <= *apart,
                (ours, theirs) => ours.is_none() == theirs.is_none(),
            };
            let band = theirs.map(|value| Band { first: value, least: value, most: value, last: value });
            rows.push(Row { gpu, series: format!("{series} (nvidia-smi {question})"), ours, theirs: band, agrees });
        }
    }
    Some(rows)
}

pub(super) fn differences(rows: &[Row], smi: Option<&[Row]>) -> String {
    let mut text = String::new();
    for row in rows.iter().chain(smi.into_iter().flatten()).filter(|row| !row.agrees) {
        let theirs = row.theirs.map_or("nothing".to_owned(), |band| format!("{} to {}", band.least, band.most));
        let ours = row.ours.map_or("nothing".to_owned(), |value| value.to_string());
        let _ = writeln!(text, "  differs: GPU {} {}: the agent says {ours}, the other {theirs}", row.gpu, row.series);
    }
    let told = rows.iter().filter(|row| row.theirs.is_some()).count();
    let _ = write!(text, "  {told} series beside nvidia-ml-py's, ");
    let _ = match smi {
        Some(rows) => write!(text, "{} beside nvidia-smi's", rows.len()),
        None => write!(text, "none beside nvidia-smi's, which is not here or does not answer"),
    };
    text
}

/// Families of the first GPU that nobody else was asked about: the agent's own sums and words.
pub(super) fn alone(rows: &[Row], page: &Page) -> String {
    let told = |row: &&Row| row.gpu == 0 && row.theirs.is_some();
    let name = |row: &Row| row.series.split(['{', ' ']).next().unwrap_or_default().to_owned();
    let compared: BTreeSet<String> = rows.iter().filter(told).map(name).collect();
    let ours = page.series.iter().map(|series| series.name.as_str()).filter(|name| name.starts_with("gpu_device_"));
    let alone: BTreeSet<&str> = ours.filter(|name| !compared.contains(*name)).collect();
    let short: Vec<&str> = alone.into_iter().map(|name| name.trim_start_matches("gpu_device_")).collect();
    format!("  with nobody beside, gpu_device_…: {}", short.join(", "))
}

/// Who was told to use what, and what the agent says; and whether NVML names our processes.
pub(super) fn shares(page: &Page, pods: &[Pod], opinion: &Opinion) -> String {
    let mut text = String::new();
    let named = opinion.devices.first().map(|device| device.pids.clone()).unwrap_or_default();
    for of in pods {
        let said = page.value("gpu_utilization", &[("pod", &of.name)]).unwrap_or(f64::NAN);
        let seen = if named.contains(&of.pid) { "names it" } else { "does not name it" };
        let _ = writeln!(text, "  pid {} of {}: told {} %, seen {said:.1} %; NVML {seen}", of.pid, of.name, of.share);
    }
    let whole = 100.0 * page.value("gpu_device_utilization_ratio", &[("gpu", "0")]).unwrap_or(f64::NAN);
    let rest = 100.0 * page.value("gpu_device_unattributed_utilization_ratio", &[("gpu", "0")]).unwrap_or(f64::NAN);
    let _ = write!(text, "  the GPU: {whole:.1} %, of which {rest:.1} are nobody's");
    text
}

/// Each pod's process with what was seen of it: percent, and bytes.
pub(super) fn measured(page: &Page, pods: &[Pod]) -> Vec<(u32, f64, f64)> {
    let value = |of: &Pod, name| page.value(name, &[("pod", &of.name)]).unwrap_or(0.0);
    pods.iter().map(|of| (of.pid, value(of, "gpu_utilization"), value(of, "gpu_memory_used_bytes"))).collect()
}

/// What only hardware can tell.
pub(super) fn questions(facts: &Facts) -> String {
    let of = |name: &str| facts.memory.get(name).copied().unwrap_or(0);
    let (total, free, reserved, used) = (of("total"), of("free"), of("reserved"), of("used"));
    let memory = match used {
        used if used + free == total => "has in it what is reserved",
        used if used + free + reserved == total => "leaves out what is reserved",
        _ => "adds up with the rest neither with what is reserved nor without",
    };
    let mig = if facts.mig_on {
        "MIG is on: look at gpu_mig_graphics_active_ratio above"
    } else {
        "MIG is off, and is left as it is: GPM of instances was not asked"
    };
    format!(
        "  used of nvmlDeviceGetMemoryInfo_v2 {memory} (total {total}, free {free}, reserved {reserved}, used {used}, v1 {})\n  {mig}",
        of("used_v1")
    )
}

/// Writes a model of the fake, read back to be sure, and a profile of this machine, with what its calls take.
pub(super) fn write(
    out: &Path,
    (idle, busy): (&Facts, &Facts),
    measured: &[(u32, f64, f64)],
    costs_us: Costs,
) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let model = model(idle, busy);
    let _: fake_nvml::model::Model =
        serde_saphyr::from_str(&model).with_context(|| format!("not a model:\n{model}"))?;
    let mut profile = Profile { driver: idle.driver.clone(), costs_us, ..Profile::idle(nearest(&idle.name), 1) };
    let process = |&(pid, percent, bytes): &(u32, f64, f64)| Process::new(pid, percent.round(), (bytes / MIB) as u64);
    *profile.gpu(0) = Gpu { processes: measured.iter().map(process).collect(), ..Gpu::default() };
    let written = [("model.yaml", model), ("profile.yaml", serde_json::to_string_pretty(&profile)?)];
    let put = |(name, text): (&str, String)| {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string()).map(|()| path)
    };
    written.into_iter().map(put).collect()
}

/// The built-in model that is most like it.
fn nearest(name: &str) -> crate::nvml::ModelName {
    use crate::nvml::ModelName::{A100, H100, H200, T4};
    let known = [("H200", H200), ("H100", H100), ("A100", A100), ("T4", T4)];
    known.iter().find(|(word, _)| name.contains(word)).map_or(H200, |(_, model)| *model)
}

fn model(idle: &Facts, busy: &Facts) -> String {
    let now = |what: &str| (idle.text(what), busy.text(what));
    let clock = |domain: &str| {
        let (quiet, busy) = now(&format!("clocks.{domain}.now"));
        format!("{domain}: {{idle: {quiet}, busy: {busy}, max: {}}}", idle.text(&format!("clocks.{domain}.max")))
    };
    let plain = ["brand", "architecture", "compute_capability", "pci_device_id", "cores", "multiprocessors"];
    let sizes = ["memory_mib", "reserved_mib", "bar1_mib", "memory_bus_bits", "nvlinks", "gpm"];
    let mut text = format!("# As read from a {} with driver {}.\nname: {}\n", idle.name, idle.driver, idle.name);
    for key in plain.iter().chain(&sizes) {
        let _ = writeln!(text, "{key}: {}", idle.text(key));
    }
    let (power, heat) = (now("power.now").0, now("temperature.now"));
    let power = ["limit", "min", "max"].map(|key| format!("{key}: {}", idle.text(&format!("power.{key}")))).join(", ")
        + &format!(", idle: {power}");
    let heat = format!("idle: {}, busy: {}, memory_over_gpu: {}", heat.0, heat.1, idle.text("temperature.memory_over"))
        + &["slowdown", "shutdown"]
            .map(|key| format!(", {key}: {}", idle.text(&format!("temperature.{key}"))))
            .concat();
    let clocks = ["graphics", "memory", "video"].map(clock).join(", ");
    let (generation, width) = (idle.text("pcie.generation"), idle.text("pcie.width"));
    let _ = writeln!(text, "power_watts: {{{power}}}\ntemperature_celsius: {{{heat}}}\nclocks_mhz: {{{clocks}}}");
    let _ = writeln!(text, "pcie: {{generation: {generation}, width: {width}}}");
    text
}
