//! Our programs as users run them: built by cargo with the very features they are shipped with, and as the tests
//! around them were built, so that nothing is compiled twice.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Where the provider lies; the first call builds it.
///
/// # Errors
/// With what the compiler said.
pub fn provider() -> Result<PathBuf> {
    program("windlass-provider")
}

/// Where the agent lies; the first call builds it.
///
/// # Errors
/// With what the compiler said.
pub fn agent() -> Result<PathBuf> {
    program("windlass-agent")
}

fn program(name: &'static str) -> Result<PathBuf> {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(program) = built.get(name) {
        return Ok(program.clone());
    }
    let program = build(name)?;
    built.insert(name, program.clone());
    Ok(program)
}

fn build(name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--message-format=json-render-diagnostics", "--workspace", "--bin", name]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let out = command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting cargo to build {name}"))?;
    ensure!(out.status.success(), "cargo could not build {name}");
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == name).then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    let said = String::from_utf8_lossy(&out.stdout);
    said.lines().find_map(executable).with_context(|| format!("cargo named no {name}"))
}
