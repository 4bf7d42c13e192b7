//! Every parser of foreign bytes, against a million inputs each: real documents that were cut, joined and rewritten, words of them in any order, and
//! bytes at random. `cargo bench -p windlass-tests --bench fuzz` (`-- --cases N` for another number, `-- --only NAME` for one parser). Ends with 1 and
//! the smallest input found when a parser panics. `taken` is the part of the inputs that the parser made sense of: how deep they reach.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

/// What the parsers are given.
mod inputs;
/// A whole page out of foreign names.
mod page;
/// The parsers, with documents that they understand.
mod parsers;

use std::cell::Cell;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use proptest::test_runner::{Config, TestRunner};

use crate::parsers::{Parser, parsers};

fn main() -> anyhow::Result<ExitCode> {
    let cases = argument("--cases").map_or(Ok(1_000_000), |text| text.parse::<u32>().context("--cases N"))?;
    let only = argument("--only");
    let mut panicked = false;
    println!("{:<18}{:>12}{:>9}{:>12}{:>10}", "parser", "cases", "taken %", "slowest ms", "seconds");
    for parser in parsers().into_iter().filter(|parser| only.as_deref().is_none_or(|only| only == parser.name)) {
        let run = run(&parser, cases);
        let (taken, slowest) = (run.taken as f64 * 100.0 / f64::from(cases), run.slowest.as_secs_f64() * 1e3);
        println!("{:<18}{cases:>12}{taken:>9.1}{slowest:>12.2}{:>10.1}", parser.name, run.took.as_secs_f64());
        if let Err(why) = run.outcome {
            panicked = true;
            println!("{}: {why}", parser.name);
        }
    }
    println!("repeat with: cargo bench -p windlass-tests --bench fuzz -- --cases {cases}");
    Ok(if panicked { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn argument(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).cloned()
}

/// What came of a parser.
struct Run {
    outcome: Result<(), String>,
    /// Inputs that it made sense of.
    taken: u64,
    /// The longest that one input took, by the clock: other programs run meanwhile.
    slowest: Duration,
    took: Duration,
}

fn run(parser: &Parser, cases: u32) -> Run {
    let begun = now();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let (taken, slowest) = (Cell::new(0), Cell::new(Duration::ZERO));
    let parse = parser.parse;
    let outcome = runner.run(&inputs::like(&parser.real), |bytes| {
        let begun = now();
        taken.set(taken.get() + u64::from(parse(&bytes)));
        slowest.set(slowest.get().max(begun.elapsed()));
        Ok(())
    });
    let outcome = outcome.map_err(|error| error.to_string());
    Run { outcome, taken: taken.get(), slowest: slowest.get(), took: begun.elapsed() }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}
