//! Programs that others wrote in Go: built once from the modules under `tests/`, which name public ones and have no source of their own, and
//! kept in `~/.cache/windlass`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A program on PATH.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The folder with the programs of `tests/<module>`, as `(file, Go package)`; `sum` is its go.sum. Two test programs at once wait for each other.
///
/// # Errors
/// Without Go, or with what it said.
pub fn built(module: &str, sum: &str, tags: &str, programs: &[(&str, String)]) -> Result<PathBuf> {
    let folder = cache_dir()?.join(module);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let lock = std::fs::File::create(folder.join("lock")).context("a lock file in the cache")?;
    lock.lock().context("locking the cache")?;
    let done = folder.join("built.txt");
    if std::fs::read_to_string(&done).is_ok_and(|built| built == sum) {
        return Ok(folder);
    }
    for (name, package) in programs {
        let output = Command::new("go")
            .args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-tags", tags, "-o"])
            .arg(folder.join(name))
            .arg(package)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(module))
            .env("CGO_ENABLED", "0")
            .output()
            .context("there is no go (1.26 or newer)")?;
        ensure!(output.status.success(), "go build {name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    std::fs::write(&done, sum)?;
    Ok(folder)
}

/// `~/.cache/windlass`, or its place under `XDG_CACHE_HOME`.
///
/// # Errors
/// When neither variable is set.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("windlass"));
    }
    let home = std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set: no place for a cache")?;
    Ok(PathBuf::from(home).join(".cache/windlass"))
}
