//! What the agent costs on a node, beside its peers on the same library and at the same interval: memory, CPU, scrape time, NVML calls; how soon pods
//! come and go; how large the binary is. `cargo bench -p windlass-tests --bench agent` (`-- --seconds N`, `--dist` for the sizes of the shipped binary).

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

/// A peer that has to be built.
mod all_smi;
/// Programs under measurement, and how each is started.
mod programs;
/// Readings of `/proc`.
mod readings;
/// Times from a kubelet's change to the page's.
mod turnover;
/// The node that every program runs on.
mod world;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use windlass_tests::scrape::{Page, Scraper};

use crate::programs::{Program, end};
use crate::readings::Memory;
use crate::world::{Size, World};

/// Scrapes in a row, after the quiet part, for the percentiles.
const SCRAPES: usize = 1_000;
const WARM_UP: Duration = Duration::from_secs(8);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = seconds(&arguments)?;
    if arguments.iter().any(|argument| argument == "--dist") {
        return programs::sizes();
    }
    for size in [Size::Shared, Size::Partitioned] {
        println!(
            "\n{}: sampled every second, scraped every second for {seconds} s, then {SCRAPES} scrapes in a row",
            size.title()
        );
        let world = World::new(size)?;
        println!(
            "{:<18}{:>8}{:>8}{:>8}{:>9}{:>8}{:>9}{:>9}{:>9}{:>8}{:>10}{:>9}",
            "",
            "RSS MB",
            "PSS MB",
            "peak MB",
            "fake MB",
            "CPU %",
            "beside %",
            "p50 ms",
            "p99 ms",
            "series",
            "bytes",
            "calls/s"
        );
        for program in [world.agent()?, world.nvitop()?, world.all_smi()?] {
            println!("{}", measure(program, &world, seconds)?);
        }
        println!("{}", turnover::measure(&world)?);
    }
    println!(
        "\nfake MB: what the fake library's own code and data take of the RSS. CPU %: of one core. beside %: without the time inside NVML calls."
    );
    println!("repeat with: cargo bench -p windlass-tests --bench agent -- --seconds {seconds}");
    Ok(())
}

fn seconds(arguments: &[String]) -> anyhow::Result<u64> {
    let given = arguments.iter().position(|argument| argument == "--seconds").and_then(|at| arguments.get(at + 1));
    given.map_or(Ok(60), |text| text.parse().context("--seconds N"))
}

fn measure(mut program: Program, world: &World, seconds: u64) -> anyhow::Result<String> {
    let _ = std::fs::remove_file(world.counts());
    program.command.env("FAKE_NVML_CALLS", world.counts()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = program.command.spawn().with_context(|| format!("start {}", program.name))?;
    let row = observe(&program, child.id(), world, seconds);
    end(&mut child);
    row
}

fn observe(program: &Program, pid: u32, world: &World, seconds: u64) -> anyhow::Result<String> {
    std::thread::sleep(WARM_UP);
    let mut scraper = Scraper::connect(program.address).with_context(|| format!("{} does not listen", program.name))?;
    let before = (readings::cpu(pid)?, readings::calls(&world.counts()), nvml_seconds(&mut scraper)?);
    let begin = now();
    for _ in 0..seconds {
        scraper.get("/metrics", &[])?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let took = begin.elapsed().as_secs_f64();
    let cpu = readings::cpu(pid)?.saturating_sub(before.0).as_secs_f64();
    let calls = (readings::calls(&world.counts()) - before.1) / took;
    let inside = nvml_seconds(&mut scraper)?.zip(before.2).map(|(after, before)| after - before);
    let mut times: Vec<Duration> = Vec::with_capacity(SCRAPES);
    for _ in 0..SCRAPES {
        let start = now();
        scraper.get("/metrics", &[])?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let body = scraper.get("/metrics", &[])?.text()?;
    let series = body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    let percentile =
        |percent: usize| times.get(SCRAPES * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    if program.name == "all-smi" {
        println!("{}", all_smi::reading(&body, world)?);
    }
    let Memory { resident, proportional, peak, library } = readings::memory(pid)?;
    let beside = inside.map_or("-".to_owned(), |inside| format!("{:.2}", 100.0 * (cpu - inside) / took));
    Ok(format!(
        "{:<18}{resident:>8.1}{proportional:>8.1}{peak:>8.1}{library:>9.1}{:>8.2}{beside:>9}{:>9.3}{:>9.3}{series:>8}{:>10}{calls:>9.0}",
        program.name,
        100.0 * cpu / took,
        percentile(50),
        percentile(99),
        body.len(),
    ))
}

/// Time inside NVML so far, where the program tells.
fn nvml_seconds(scraper: &mut Scraper) -> anyhow::Result<Option<f64>> {
    let text = scraper.get("/metrics", &[])?.text()?;
    // Not every peer's page stands a strict reading.
    let Ok(page) = Page::parse(&text) else { return Ok(None) };
    let told = page.select("windlass_agent_nvml_call_seconds_total", &[]);
    Ok((!told.is_empty()).then(|| told.iter().map(|series| series.value).sum()))
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

/// Runs a command to its end; what it says is shown only when it fails.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, said());
    Ok(())
}
