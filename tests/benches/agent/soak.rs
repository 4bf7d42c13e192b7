//! What becomes of the agent in hours of a hard life (`-- --soak MINUTES`): two of them, one with TLS, on a node where everything changes, asked by
//! clients of every kind. Each minute prints what they hold; the end prints how that has grown. Nothing is asserted: a number is for people to judge.

/// Who asks: scrapers, and those who should have stayed away.
mod clients;
/// The node on which everything changes.
mod node;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use windlass_tests::port::Port;

use self::clients::{Door, Visits};
use self::node::Node;
use crate::programs::{agent_binary, end};
use crate::{now, readings};

/// Minutes at each end of the run whose means are compared; the first ones, in which tables fill, count for neither.
const ENDS: usize = 10;
const FILLING: usize = 5;

/// One agent under test.
struct Subject {
    name: &'static str,
    child: Child,
    door: Door,
    // Held as long as the agent may listen on it.
    _port: Port,
    minutes: Vec<Minute>,
    before: Duration,
}

/// What an agent holds at the end of a minute.
#[derive(Clone, Copy, Default)]
struct Minute {
    /// Resident megabytes, and of them what no file backs.
    resident: f64,
    anonymous: f64,
    threads: f64,
    files: f64,
    series: f64,
    /// Percent of a core.
    cpu: f64,
}

/// Runs for so many minutes; a binary that is not given is built as it is shipped.
#[expect(clippy::print_stdout, reason = "a bench prints its table")]
pub(crate) fn soak(minutes: usize, binary: Option<&String>) -> anyhow::Result<()> {
    let binary = binary.map_or_else(|| agent_binary("dist", &[]), |path| Ok(path.into()))?;
    let mut node = Node::new()?;
    let mut subjects = [start(&node, &binary, false)?, start(&node, &binary, true)?];
    println!("{minutes} minutes on a node where {}", node::WHAT_CHANGES);
    println!("{:>6} {:<6}{HEAD}", "minute", "agent");
    let begin = now();
    let mut second = 0;
    for minute in 1..=minutes {
        for _ in 0..60 {
            node.second(second)?;
            for subject in &mut subjects {
                if let Some(status) = subject.child.try_wait()? {
                    anyhow::bail!("{} ended in minute {minute}: {status}", subject.name);
                }
                subject.door.second(second, &node);
            }
            second += 1;
            std::thread::sleep(Duration::from_secs(second).saturating_sub(begin.elapsed()));
        }
        for subject in &mut subjects {
            let row = subject.minute()?;
            println!("{minute:>6} {:<6}{row}", subject.name);
            subject.minutes.push(row);
        }
    }
    println!("{}", node.told());
    for subject in &mut subjects {
        println!("{}: {}\n{}", subject.name, subject.door.visits, growth(&subject.minutes));
        end(&mut subject.child);
    }
    println!("repeat with: cargo bench -p windlass-tests --bench agent -- --soak {minutes}");
    Ok(())
}

fn start(node: &Node, binary: &std::path::Path, tls: bool) -> anyhow::Result<Subject> {
    let port = Port::hold()?;
    let name = if tls { "tls" } else { "plain" };
    let mut command = Command::new(binary);
    command.args(["--listen", &port.address().to_string()]).args(node.flags());
    if tls {
        command.arg("--web-config-file").arg(node.web());
    }
    let log = node.folder().join(format!("{name}.log"));
    let said = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
    // As the manifest has it.
    command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "131072");
    let child = command.stdout(Stdio::null()).stderr(said).spawn().context("start the agent")?;
    let door = Door::new(port.address(), tls);
    Ok(Subject { name, child, door, _port: port, minutes: Vec::new(), before: Duration::ZERO })
}

impl Subject {
    fn minute(&mut self) -> anyhow::Result<Minute> {
        let pid = self.child.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the agent ended")?;
        let of = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        let cpu = readings::cpu(pid)?;
        let spent = cpu.saturating_sub(std::mem::replace(&mut self.before, cpu));
        Ok(Minute {
            resident: of("VmRSS:") / 1024.0,
            anonymous: of("RssAnon:") / 1024.0,
            threads: of("Threads:"),
            files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64,
            series: self.door.series as f64,
            cpu: spent.as_secs_f64() / 60.0 * 100.0,
        })
    }
}

const HEAD: &str = "  RSS MB  anon MB  threads    files   series    CPU %";

impl std::fmt::Display for Minute {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resident, anonymous, threads, files, series, cpu } = self;
        write!(to, "{resident:>8.2} {anonymous:>8.2} {threads:>8} {files:>8} {series:>8} {cpu:>8.2}")
    }
}

impl std::fmt::Display for Visits {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pages, stale, broken, strangers, why } = self;
        write!(to, "{pages} whole pages, {stale} refused as too old, {broken} failed; {strangers} other connections")?;
        why.as_ref().map_or(Ok(()), |why| write!(to, "; the last failure: {why}"))
    }
}

/// Means of the first and the last minutes, the most there ever was, and the slope between.
fn growth(minutes: &[Minute]) -> String {
    let settled = minutes.get(FILLING.min(minutes.len().saturating_sub(1))..).unwrap_or_default();
    let ends = ENDS.min(settled.len() / 2).max(1);
    let mean = |of: &dyn Fn(&Minute) -> f64, rows: &[Minute]| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
    let (first, last) =
        (settled.get(..ends).unwrap_or(settled), settled.get(settled.len() - ends..).unwrap_or(settled));
    let between = (settled.len() - ends) as f64 / 60.0;
    let mut text = String::new();
    type Figure = (&'static str, fn(&Minute) -> f64);
    let figures: [Figure; 5] = [
        ("RSS MB", |minute| minute.resident),
        ("anon MB", |minute| minute.anonymous),
        ("threads", |minute| minute.threads),
        ("files", |minute| minute.files),
        ("CPU %", |minute| minute.cpu),
    ];
    for (name, of) in figures {
        let (from, to) = (mean(&of, first), mean(&of, last));
        let most = minutes.iter().map(of).fold(0.0, f64::max);
        let hourly = if between > 0.0 { (to - from) / between } else { f64::NAN };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {name:<8} {from:>8.2} at first, {to:>8.2} at last, {most:>8.2} at most: {hourly:>+7.2} an hour"
        );
    }
    text
}

/// The last of something, newest at the back: older ones go.
fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) -> Option<T> {
    queue.push_back(item);
    if queue.len() > most { queue.pop_front() } else { None }
}
