//! `cargo demo`: the whole loop on one machine, told as it happens. The story itself is in `windlass_tests::demo`.

use std::process::ExitCode;

use clap::Parser as _;
use windlass_tests::demo;

fn main() -> ExitCode {
    demo::main(demo::Args::parse())
}
