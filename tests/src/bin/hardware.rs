//! Holds the agent against a real GPU and writes down what it said. The story itself is in `windlass_tests::hardware`.

use clap::Parser as _;
use windlass_tests::hardware;

fn main() -> anyhow::Result<()> {
    hardware::run(&hardware::Args::parse()).map(|_| ())
}
