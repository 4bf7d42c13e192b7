//! The scenarios on a real control plane, each driven by the model of cluster-autoscaler's loop and, where one is given,
//! by a real cluster-autoscaler: `cargo e2e`, `cargo e2e -- NAME`, `cargo e2e -- --list`.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

mod agent;
mod aws;
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

/// Every scenario, the longest first so that the jobs end together.
fn stories() -> Vec<Story> {
    [refusals::stories(), aws::stories(), controls::stories(), shrinking::stories(), restarts::stories()]
        .into_iter()
        .chain([expander::stories(), growth::stories(), manifests::stories(), agent::stories()])
        .flatten()
        .collect()
}

fn main() -> ExitCode {
    runner::run(&Arguments::parse(), stories())
}
