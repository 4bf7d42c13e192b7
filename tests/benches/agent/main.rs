//! What the agent costs on a node, beside its peers on the same library and at the same interval: memory, CPU, scrape time, NVML calls; how soon pods
//! come and go; how large the binary is. `cargo bench -p windlass-tests --bench agent` (`-- --seconds N`, `--alone` without peers, `--dist` for the sizes
//! of the shipped binary, `--soak MINUTES` for what it holds after hours of a hard life, with `--agent PATH` of one that is built).

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

/// A peer that has to be built.
mod all_smi;
/// Programs under measurement, and how each is started.
mod programs;
/// Readings of `/proc`.
mod readings;
/// What becomes of it in hours.
mod soak;
/// What is wanted, and whether it was reached.
mod targets;
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
    if let Some(minutes) = given(&arguments, "--soak") {
        return soak::soak(minutes.parse().context("--soak MINUTES")?, given(&arguments, "--agent"));
    }
    let alone = arguments.iter().any(|argument| argument == "--alone");
    for size in [Size::Shared, Size::Partitioned] {
        node(size, seconds, alone)?;
    }
    println!(
        "\nfake MB: what the fake library's own code and data take of the RSS. CPU %: of one core. beside %: without the time inside NVML calls."
    );
    println!("repeat with: cargo bench -p windlass-tests --bench agent -- --seconds {seconds}");
    Ok(())
}

/// Everything on one size of node.
fn node(size: Size, seconds: u64, alone: bool) -> anyhow::Result<()> {
    println!(
        "\n{}: sampled every second, scraped every second for {seconds} s, then {SCRAPES} scrapes in a row",
        size.title()
    );
    let world = World::new(size)?;
    println!("{}", Row::HEAD);
    let ours = show(world.agent()?, &world, seconds)?;
    let mut peers = Vec::new();
    if !alone {
        peers.push(show(world.nvitop()?, &world, seconds)?);
        peers.push(show(world.all_smi()?, &world, seconds)?);
    }
    let turnover = turnover::measure(&world)?;
    println!("{turnover}\n{}", targets::verdicts(size, &ours, &peers, &turnover));
    Ok(())
}

fn seconds(arguments: &[String]) -> anyhow::Result<u64> {
    given(arguments, "--seconds").map_or(Ok(60), |text| text.parse().context("--seconds N"))
}

/// The word after a flag.
fn given<'a>(arguments: &'a [String], flag: &str) -> Option<&'a String> {
    arguments.iter().position(|argument| argument == flag).and_then(|at| arguments.get(at + 1))
}

/// What one program took.
struct Row {
    memory: Memory,
    /// Percent of a core; without the time inside NVML, where the program tells it.
    cpu: f64,
    beside: Option<f64>,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    series: usize,
    bytes: usize,
    calls: f64,
}

impl Row {
    const HEAD: &str = "                    RSS MB  PSS MB peak MB  fake MB   CPU % beside %   p50 ms   p99 ms  series     bytes  calls/s";
}

impl std::fmt::Display for Row {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Memory { resident, proportional, peak, library } = self.memory;
        let Self { cpu, p50, p99, series, bytes, calls, .. } = self;
        let beside = self.beside.map_or("-".to_owned(), |beside| format!("{beside:.2}"));
        write!(to, "{resident:>8.1}{proportional:>8.1}{peak:>8.1}{library:>9.1}{cpu:>8.2}{beside:>9}")?;
        write!(to, "{p50:>9.3}{p99:>9.3}{series:>8}{bytes:>10}{calls:>9.0}")
    }
}

/// Measures a program and prints its line.
fn show(mut program: Program, world: &World, seconds: u64) -> anyhow::Result<Row> {
    let _ = std::fs::remove_file(world.counts());
    program.command.env("FAKE_NVML_CALLS", world.counts()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = program.command.spawn().with_context(|| format!("start {}", program.name))?;
    let row = observe(&program, child.id(), world, seconds);
    end(&mut child);
    let row = row?;
    println!("{:<18}{row}", program.name);
    Ok(row)
}

fn observe(program: &Program, pid: u32, world: &World, seconds: u64) -> anyhow::Result<Row> {
    std::thread::sleep(WARM_UP);
    let mut scraper =
        Scraper::connect(program.port.address()).with_context(|| format!("{} does not listen", program.name))?;
    let before = (readings::cpu(pid)?, readings::calls(&world.counts()), Inside::read(pid, &mut scraper)?);
    let begin = now();
    for _ in 0..seconds {
        scraper.get("/metrics", &[])?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let took = begin.elapsed().as_secs_f64();
    let cpu = readings::cpu(pid)?.saturating_sub(before.0).as_secs_f64();
    let calls = (readings::calls(&world.counts()) - before.1) / took;
    let inside = Inside::read(pid, &mut scraper)?.zip(before.2).map(|(after, before)| after.since(&before));
    let mut times: Vec<Duration> = Vec::with_capacity(SCRAPES);
    for _ in 0..SCRAPES {
        let start = now();
        scraper.get("/metrics", &[])?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let body = scraper.get("/metrics", &[])?.text()?;
    let percentile =
        |percent: usize| times.get(SCRAPES * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    if program.name == "all-smi" {
        println!("{}", all_smi::reading(&body, world)?);
    }
    Ok(Row {
        memory: readings::memory(pid)?,
        cpu: 100.0 * cpu / took,
        beside: inside.map(|inside| 100.0 * (cpu - inside) / took),
        p50: percentile(50),
        p99: percentile(99),
        series: body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count(),
        bytes: body.len(),
        calls,
    })
}

/// What a program spends inside NVML, in seconds so far.
struct Inside {
    /// As it says itself, by the clock.
    told: f64,
    /// Processor time of the thread that makes the calls: a clock goes on while another program has the processor.
    calling: f64,
    /// Processor time of the thread that only waits for the driver's events, of which no call tells.
    waiting: f64,
}

impl Inside {
    /// Nothing where the program does not tell.
    fn read(pid: u32, scraper: &mut Scraper) -> anyhow::Result<Option<Self>> {
        let text = scraper.get("/metrics", &[])?.text()?;
        // Not every peer's page stands a strict reading.
        let Ok(page) = Page::parse(&text) else { return Ok(None) };
        let told = page.select("windlass_agent_nvml_call_seconds_total", &[]);
        let of = |name| readings::of_threads(pid, name).map(|time| time.as_secs_f64());
        let (calling, waiting) = (of("nvml-calls")?, of("nvml-events")?);
        Ok((!told.is_empty()).then(|| Self { told: told.iter().map(|series| series.value).sum(), calling, waiting }))
    }

    fn since(&self, before: &Self) -> f64 {
        (self.told - before.told).min(self.calling - before.calling) + self.waiting - before.waiting
    }
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
