//! What is wanted of the agent on each size of node, alone and beside its peers, and whether a run reached it.

use windlass_agent::config::limits;

use crate::Row;
use crate::turnover::Turnover;
use crate::world::Size;

/// Of the smallest peer's memory, at most.
const MEMORY_RATIO: f64 = 0.6;
/// Of the fastest peer's scrape in the median, at most.
const SCRAPE_RATIO: f64 = 1.0 / 30.0;
/// Percent of a core, beside the time inside NVML.
const BESIDE: f64 = 0.15;
/// The agent's tick here, in seconds.
const TICK: f64 = 1.0;

/// One line for each target.
pub(crate) fn verdicts(size: Size, ours: &Row, peers: &[Row], turnover: &Turnover) -> String {
    let (megabytes, p50, p99) = match size {
        Size::Shared => (8.0, 0.3, 1.0),
        Size::Partitioned => (16.0, 2.0, 5.0),
    };
    let least = |what: fn(&Row) -> f64| peers.iter().map(what).reduce(f64::min);
    let memory = least(|row| row.memory.resident);
    let scrape = least(|row| row.p50).filter(|_| size == Size::Shared);
    let round = limits::PODS_INTERVAL.as_secs_f64() + TICK;
    let lines = [
        Some(line("RSS, MB", ours.memory.resident, megabytes)),
        memory.map(|peer| line("RSS / the smallest peer's", ours.memory.resident / peer, MEMORY_RATIO)),
        Some(line("scrape p50, ms", ours.p50, p50)),
        Some(line("scrape p99, ms", ours.p99, p99)),
        scrape.map(|peer| line("scrape p50 / the fastest peer's", ours.p50 / peer, SCRAPE_RATIO)),
        ours.beside.map(|beside| line("CPU beside NVML, %", beside, BESIDE)),
        Some(line("pods come and go, s at most", turnover.longest(), round)),
    ];
    lines.into_iter().flatten().collect()
}

fn line(what: &str, found: f64, wanted: f64) -> String {
    let verdict = if found <= wanted { "ok" } else { "MISSED" };
    format!("{what:<34}{found:>9.3}  wanted at most {wanted:>7.3}  {verdict}\n")
}
