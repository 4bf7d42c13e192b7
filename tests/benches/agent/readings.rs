//! What the kernel says of a process: processor time, memory; and what the fake library says of its calls.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// `_SC_CLK_TCK` is 100 on every Linux that runs this.
const TICKS_PER_SECOND: u64 = 100;

/// Megabytes.
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) proportional: f64,
    pub(crate) peak: f64,
    /// Of the resident memory: the fake NVML's own code and data. A real library takes more or less.
    pub(crate) library: f64,
}

/// User and system time so far. Exact for the threads that live, where the kernel counts so; else of all, in hundredths of a second.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the program ended early")?;
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).context("/proc/<pid>/stat");
    let whole = Duration::from_millis((field(11)? + field(12)?) * 1000 / TICKS_PER_SECOND);
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let exact = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    let exact = Duration::from_nanos(exact.sum());
    // Far less than the coarse figure: threads came and went, and took their time with them.
    Ok(if exact + Duration::from_millis(50) > whole { exact } else { whole })
}

/// Processor time so far of the threads with this name.
pub(crate) fn of_threads(pid: u32, name: &str) -> anyhow::Result<Duration> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let named = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let spent = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Ok(Duration::from_nanos(tasks.filter(named).filter_map(spent).sum()))
}

/// Memory now, and the most there was.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the program ended early")?;
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the program ended early")?;
    let library = library(&std::fs::read_to_string(format!("/proc/{pid}/smaps"))?);
    let megabytes = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"));
        line.and_then(|size| size.trim().parse::<f64>().ok()).map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
    };
    Ok(Memory {
        resident: megabytes(&status, "VmRSS:"),
        peak: megabytes(&status, "VmHWM:"),
        proportional: megabytes(&rollup, "Pss:"),
        library,
    })
}

fn library(smaps: &str) -> f64 {
    let (mut inside, mut kilobytes) = (false, 0.0);
    for line in smaps.lines() {
        match line.strip_prefix("Rss:") {
            Some(size) if inside => kilobytes += size.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0),
            Some(_) => {}
            // The first line of a mapping begins with its addresses and ends with its file.
            None if line.split(' ').next().is_some_and(|word| word.contains('-')) => {
                inside = line.ends_with("libnvidia-ml.so.1");
            }
            None => {}
        }
    }
    kilobytes / 1024.0
}

/// NVML calls so far, as the fake counted them.
pub(crate) fn calls(counts: &Path) -> f64 {
    let text = std::fs::read_to_string(counts).unwrap_or_default();
    text.lines().filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
