//! The agent's time inside NVML beside that of the same calls made bare: after each of its readings the calls that it made are made once more, as
//! often and in the same order, by nobody's code but the measuring. Lowest tenths are compared: other work on the machine only ever adds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use fake_nvml::raw::{self, Raw};

use super::load::Pod;
use super::{Stage, TICKS};
use crate::nvml::Costs;
use crate::scrape::Page;

/// The bare calls are made so long after a reading was seen, which is before the next.
const APART: Duration = Duration::from_millis(300);
const COUNT: &str = "windlass_agent_nvml_calls_total";
const SECONDS: &str = "windlass_agent_nvml_call_seconds_total";

/// What was measured.
#[derive(Debug, Default)]
pub struct Cost {
    /// Readings of the agent that were looked at.
    pub readings: u64,
    /// By the agent's word for them.
    pub calls: BTreeMap<String, Call>,
}

/// One kind of call. Times are seconds.
#[derive(Debug, Default)]
pub struct Call {
    /// How often the agent made it.
    pub made: u64,
    ours: Vec<f64>,
    bare: Vec<f64>,
}

impl Call {
    fn costs(&self) -> Option<(f64, f64)> {
        Some((lowest(&self.ours)?, lowest(&self.bare)?))
    }
}

/// Watches so many readings of the agent, one GPU's, on the library where its load is at work already.
pub(super) fn measure(stage: &Stage, pods: &[Pod], readings: u64) -> anyhow::Result<Cost> {
    let mut watched = stage.watch(pods)?;
    let ticks = |page: &Page| page.value(TICKS, &[]).unwrap_or(0.0);
    // The first of each call is dearer: it opens what later ones find open.
    let mut before = watched.until("a second reading", |page| ticks(page) >= 2.0)?;
    let mut raw = Raw::open(&stage.library).context("NVML does not open for bare calls")?;
    let mut cost = Cost::default();
    while cost.readings < readings {
        let after = watched.until("another reading", |page| ticks(page) > ticks(&before))?;
        std::thread::sleep(APART);
        cost.readings += (ticks(&after) - ticks(&before)) as u64;
        cost.add(&before, &after, |name| raw.make(name));
        before = after;
    }
    Ok(cost)
}

impl Cost {
    /// What the agent did between two pages, and the same bare.
    fn add(&mut self, before: &Page, after: &Page, mut bare: impl FnMut(&str) -> Option<Duration>) {
        let mut names: Vec<&String> =
            after.select(COUNT, &[]).iter().filter_map(|series| series.labels.get("call")).collect();
        names.sort_by_key(|name| raw::place(name));
        for name in names {
            let since = |metric| {
                let of = |page: &Page| page.value(metric, &[("call", name)]).unwrap_or(0.0);
                of(after) - of(before)
            };
            let made = since(COUNT) as u64;
            if made == 0 {
                continue;
            }
            let call = self.calls.entry(name.clone()).or_default();
            call.made += made;
            call.ours.push(since(SECONDS) / made as f64);
            let times: Option<Vec<f64>> = (0..made).map(|_| Some(bare(name)?.as_secs_f64())).collect();
            call.bare.extend(times.map(|times| mean(&times)));
        }
    }

    /// The agent's time in parts of the same calls made bare.
    pub fn ratio(&self) -> Option<f64> {
        let (ours, bare) = self.whole();
        (bare > 0.0).then(|| ours / bare)
    }

    /// Seconds inside NVML, the agent's and bare, over all that both made.
    fn whole(&self) -> (f64, f64) {
        let calls = self.calls.values().filter_map(|call| Some((call.made as f64, call.costs()?)));
        calls.fold((0.0, 0.0), |(one, two), (made, (ours, bare))| (one + made * ours, two + made * bare))
    }

    /// What each call takes, for a profile of the fake: bare, in microseconds, by NVML's function. Of several questions to one function the dearest counts.
    pub fn costs(&self) -> Costs {
        let mut costs = Costs::new();
        for (name, call) in &self.calls {
            let Some((function, (_, bare))) = raw::function(name).zip(call.costs()) else { continue };
            let cost = costs.entry(function.to_owned()).or_default();
            *cost = cost.max((bare * 1e7).round() / 10.0);
        }
        costs
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let heads = ["a reading", "mean", "bare", "lowest", "bare", "ratio"];
        let mut text = format!("  {:<26}", "µs a call") + &heads.map(|head| format!("{head:>10}")).concat();
        let readings = self.readings as f64;
        let mut alone = Vec::new();
        for (name, call) in &self.calls {
            let Some((ours, bare)) = call.costs() else {
                alone.push(format!("{name} ({:.1} µs a reading)", 1e6 * call.ours.iter().sum::<f64>() / readings));
                continue;
            };
            let times = [mean(&call.ours), mean(&call.bare), ours, bare].map(|time| format!("{:>10.1}", 1e6 * time));
            let _ = write!(text, "\n  {name:<26}{:>10.2}", call.made as f64 / readings);
            let _ = write!(text, "{}{:>10.2}", times.concat(), ours / bare);
        }
        if !alone.is_empty() {
            let _ = write!(text, "\n  without a bare one beside: {}", alone.join(", "));
        }
        let (ours, bare) = self.whole();
        let _ =
            write!(text, "\n  NVML time a reading: {:.3} ms, bare {:.3}", 1e3 * ours / readings, 1e3 * bare / readings);
        let _ = write!(text, ", that is {:.3} times (wanted: at most 1.05)", self.ratio().unwrap_or(f64::NAN));
        text
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A tenth of the values are below it.
fn lowest(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 10).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrape::Series;

    #[test]
    fn calls_are_compared_by_what_is_least_disturbed_and_weigh_as_often_as_they_were_made() {
        let page = |often: (u32, f64), rare: (u32, f64)| {
            let mut series = Vec::new();
            for (call, (count, seconds)) in
                [("power_usage", often), ("graphics_processes", rare), ("unknown", (0, 0.0))]
            {
                let labels = || [("call".to_owned(), call.to_owned())].into();
                series.push(Series { name: COUNT.to_owned(), labels: labels(), value: count.into() });
                series.push(Series { name: SECONDS.to_owned(), labels: labels(), value: seconds });
            }
            Page { series, ..Page::default() }
        };
        let pages = [
            page((0, 0.0), (0, 0.0)),
            page((2, 0.004), (1, 0.1)),
            page((3, 0.106), (1, 0.1)),
            page((4, 0.108), (1, 0.1)),
        ];
        let mut cost = Cost { readings: 3, ..Cost::default() };
        for pair in pages.windows(2) {
            cost.add(&pair[0], &pair[1], |name| {
                Some(Duration::from_millis(if name == "power_usage" { 1 } else { 100 }))
            });
        }
        let power = &cost.calls["power_usage"];
        assert_eq!((power.made, cost.calls.len()), (4, 2));
        let near = |one: f64, two: f64| (one - two).abs() < 1e-9;
        assert!(power.costs().is_some_and(|(ours, bare)| near(ours, 0.002) && near(bare, 0.001)), "{power:?}");
        assert!(cost.ratio().is_some_and(|ratio| near(ratio, 0.108 / 0.104)), "{cost:?}");
        assert!(near(cost.costs()["nvmlDeviceGetPowerUsage"], 1000.0));
    }
}
