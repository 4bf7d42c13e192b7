//! How far the agent's shares are from the truth in every way of sharing a GPU, and how soon pods appear and vanish: the real agent on the fake
//! driver, whose curves are the truth. `cargo bench -p windlass-tests --bench attribution` (`-- --seconds N` for the time of measurement).

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod churn;
mod world;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use windlass_tests::nvml::Gpus;
use windlass_tests::scrape::{Page, Scraper};

use world::{Subject, World};

/// One comparison: a scrape interval, the shortest time over which anybody decides.
const WINDOW: Duration = Duration::from_secs(15);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let seconds = argument("--seconds").map_or(Ok(60), |text| text.parse::<u64>().context("--seconds N"))?;
    let rounds = argument("--rounds").map_or(Ok(3), |text| text.parse::<u32>().context("--rounds N"))?;
    let mut world = World::new()?;
    let errors = errors(&mut world, seconds)?;
    println!("\nAttribution error, points of the device's time; windows of {} s over {seconds} s", WINDOW.as_secs());
    println!("{:<44}{:>12}{:>8}{:>8}", "sharing", "containers", "mean", "max");
    for mode in world::MODES {
        let of_mode: Vec<f64> = errors.iter().filter(|(of, _)| *of == mode).map(|(_, error)| *error).collect();
        let containers = world.subjects.iter().filter(|subject| subject.mode == mode).count();
        println!("{mode:<44}{containers:>12}{:>8.2}{:>8.2}", mean(&of_mode), max(&of_mode));
    }
    let all: Vec<f64> = errors.iter().map(|(_, error)| *error).collect();
    println!("{:<44}{:>12}{:>8.2}{:>8.2}", "all", world.subjects.len(), mean(&all), max(&all));
    println!("target: mean 1, max 3");
    println!("\nSeconds until a pod's series are there or gone, {rounds} rounds");
    println!("{:<44}{:>8}{:>8}", "", "mean", "max");
    for (what, times) in churn::measure(&mut world, rounds)? {
        println!("{what:<44}{:>8.1}{:>8.1}", mean(&times), max(&times));
    }
    println!("target: one pods interval and one tick, {:.0} s", churn::limit().as_secs_f64());
    println!("repeat with: cargo bench -p windlass-tests --bench attribution -- --seconds {seconds} --rounds {rounds}");
    Ok(())
}

/// The error of every container in every window: (sharing, points).
fn errors(world: &mut World, seconds: u64) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let measured = |world: &World, page: &Page| world.subjects.iter().all(|subject| used(page, subject) > Some(0.0));
    until(world, measured).context("every container has used something")?;
    let mut before = page(&mut world.scraper)?;
    let mut errors = Vec::new();
    for _ in 0..(seconds / WINDOW.as_secs()).max(1) {
        std::thread::sleep(WINDOW);
        let after = page(&mut world.scraper)?;
        for subject in &world.subjects {
            errors.push((subject.mode, error(&world.gpus, subject, &before, &after)?));
        }
        before = after;
    }
    Ok(errors)
}

/// What the counter says of a window, against the curve's mean over the same time.
fn error(gpus: &Gpus, subject: &Subject, before: &Page, after: &Page) -> anyhow::Result<f64> {
    let gpu = subject.gpu.to_string();
    let time = |page: &Page| page.value("gpu_device_last_sample_timestamp_seconds", &[("gpu", &gpu)]);
    let (start, end) = time(before).zip(time(after)).context("the time of a reading")?;
    let (first, last) = used(before, subject).zip(used(after, subject)).context("a counter")?;
    let said = 100.0 * (last - first) / (end - start);
    let (start, end) = (Duration::from_secs_f64(start), Duration::from_secs_f64(end));
    let truth: f64 = subject.pids.iter().map(|pid| gpus.mean_sm(subject.gpu, *pid, start, end)).sum();
    Ok((said - truth).abs())
}

fn used(page: &Page, subject: &Subject) -> Option<f64> {
    let (pod, container) = (subject.container.pod.as_str(), subject.container.name.as_str());
    page.value("container_gpu_usage_seconds_total", &[("pod", pod), ("container", container)])
}

/// The page now.
fn page(scraper: &mut Scraper) -> anyhow::Result<Page> {
    Page::parse(&scraper.get("/metrics", &[])?.text()?)
}

/// Waits for a page on which something is so, and says how long it took.
fn until(world: &mut World, is_so: impl Fn(&World, &Page) -> bool) -> anyhow::Result<Duration> {
    let begun = now();
    loop {
        let answer = world.scraper.get("/metrics", &[])?;
        if answer.status == 200 && is_so(world, &Page::parse(&answer.text()?)?) {
            return Ok(begun.elapsed());
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "never within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn argument(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).cloned()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}
