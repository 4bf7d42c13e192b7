//! Holds the agent against a real GPU and writes down what it said. The story itself is in `windlass_tests::hardware`.

use clap::Parser as _;
use windlass_tests::hardware;

fn main() -> anyhow::Result<()> {
    let outcome = hardware::run(&hardware::Args::parse())?;
    anyhow::ensure!(outcome.failed.is_empty(), "some parts came to nothing: {}", outcome.failed.join("; "));
    Ok(())
}
