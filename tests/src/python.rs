//! Programs of others that read NVML, from PyPI: a virtual environment under `target/python` with pinned versions, made on first use.
//! Needs `python3` with its `venv` module, and a package index or a filled cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

const REQUIREMENTS: &str = include_str!("../python/requirements.txt");

/// The environment's `python`. Two test programs at once wait for each other.
pub fn interpreter() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where this program lies")?;
    let target =
        program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).context("cargo's target folder")?;
    let folder = target.join("python");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let lock = std::fs::File::create(folder.join("lock")).context("lock target/python")?;
    lock.lock().context("lock target/python")?;
    let (python, installed) = (folder.join("bin/python"), folder.join("installed.txt"));
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(python);
    }
    let wanted = folder.join("requirements.txt");
    std::fs::write(&wanted, REQUIREMENTS)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&wanted))?;
    std::fs::write(&installed, REQUIREMENTS)?;
    Ok(python)
}

/// A program of the environment, as `nvitop-exporter`.
pub fn program(python: &Path, name: &str) -> PathBuf {
    python.with_file_name(name)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}: is python3 with venv installed?"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
