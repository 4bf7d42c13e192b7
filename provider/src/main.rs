//! The bell: parse, run, exit code.

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    windlass_provider::args::run(&windlass_provider::args::Args::parse())
}
