//! Programs of others, from PyPI: virtual environments under cargo's target folder with pinned versions, made on first use.
//! Needs `python3` with its `venv` module, and a package index or a filled cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The `python` of the environment with programs that read NVML.
pub fn interpreter() -> anyhow::Result<PathBuf> {
    environment("python", include_str!("../python/requirements.txt"))
}

/// The `python` of the environment with moto, which plays AWS.
pub fn moto() -> anyhow::Result<PathBuf> {
    environment("moto", include_str!("../python/moto.txt"))
}

/// The `python` of the environment with `grpc_tools.protoc`, for building programs of others.
pub fn protoc() -> anyhow::Result<PathBuf> {
    environment("protoc", include_str!("../python/protoc.txt"))
}

/// Two test programs at once wait for each other.
fn environment(name: &str, requirements: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where this program lies")?;
    let target =
        program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).context("cargo's target folder")?;
    let folder = target.join(name);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let lock = std::fs::File::create(folder.join("lock")).context("a lock for the environment")?;
    lock.lock().context("the environment's lock")?;
    let (python, installed) = (folder.join("bin/python"), folder.join("installed.txt"));
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == requirements) {
        return Ok(python);
    }
    let wanted = folder.join("requirements.txt");
    std::fs::write(&wanted, requirements)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&wanted))?;
    std::fs::write(&installed, requirements)?;
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
