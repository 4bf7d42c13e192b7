//! What is printed at the end: every scenario with its outcome, and how long took what they measured.

use std::collections::BTreeMap;

use super::Told;

/// A table: what was told, by whom, in how long; then what was measured.
pub(super) fn print(told: &[Told], who: &str) {
    println!("\nsummary — {who}");
    let mut lines: Vec<_> = told.iter().map(|told| (&told.name, told.outcome.is_ok(), told.took)).collect();
    lines.sort();
    for (name, ok, took) in lines {
        println!("  {:<6} {name} ({:.0}s)", if ok { "ok" } else { "FAILED" }, took.as_secs_f64());
    }
    distributions(told);
}

/// How long took what scenarios measured: all that measure the same on one cloud with one driver, together.
fn distributions(told: &[Told]) {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for told in told.iter().filter(|told| told.outcome.is_ok()) {
        let name = told
            .name
            .rsplit_once("::")
            .filter(|(_, last)| last.parse::<u16>().is_ok())
            .map_or(told.name.as_str(), |it| it.0);
        for (what, took) in &told.measured {
            all.entry(format!("{name}: {what}")).or_default().push(took.as_secs_f64());
        }
    }
    for (what, mut took) in all {
        took.sort_unstable_by(f64::total_cmp);
        let at = |share: usize| took.get((took.len() * share).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0.0);
        println!(
            "  {what}: {} times, p50 {:.1} s, p90 {:.1} s, p99 {:.1} s, longest {:.1} s",
            took.len(),
            at(50),
            at(90),
            at(99),
            at(100)
        );
    }
}
