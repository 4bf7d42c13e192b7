//! The bell: parse, run, exit code.

fn main() {}
