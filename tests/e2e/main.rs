//! The scenarios on a real control plane, each driven by the model of cluster-autoscaler's loop and, where one is given,
//! by a real cluster-autoscaler: `cargo e2e`, `cargo e2e -- NAME`, `cargo e2e -- --list`.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

mod agent;
mod aws;
mod chaos;
mod controls;
mod expander;
mod growth;
mod manifests;
mod refusals;
mod restarts;
mod runner;
mod shrinking;

use std::process::ExitCode;

use clap::Parser as _;

use crate::runner::{Arguments, Story};

/// Every scenario, the longest first so that the jobs end together; chaos only where it is asked for, since what it comes to
/// is up to chance.
fn stories(chaos: bool) -> Vec<Story> {
    let chaos = if chaos { chaos::stories() } else { Vec::new() };
    [chaos, refusals::stories(), aws::stories(), controls::stories(), shrinking::stories(), restarts::stories()]
        .into_iter()
        .chain([expander::stories(), growth::stories(), manifests::stories(), agent::stories()])
        .flatten()
        .collect()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    runner::run(&arguments, stories(arguments.chaos.is_some()))
}
