//! Our provider as the program that users run: built by cargo with the very features it is shipped with, and as the
//! tests around it were built, so that nothing is compiled twice.

use std::{
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
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(program) = built.as_ref() {
        return Ok(program.clone());
    }
    let program = build()?;
    *built = Some(program.clone());
    Ok(program)
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--message-format=json-render-diagnostics", "--workspace"]);
    command.args(["--bin", "windlass-provider"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let out = command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo to build windlass-provider")?;
    ensure!(out.status.success(), "cargo could not build windlass-provider");
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "windlass-provider").then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    String::from_utf8_lossy(&out.stdout).lines().find_map(executable).context("cargo named no windlass-provider")
}
