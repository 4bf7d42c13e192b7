//! The control plane's programs: built once by Go from the module in `tests/rig`, then taken from a cache that is
//! named after what they were built from.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::process::on_path;
use crate::golang::cache_dir;

/// What the rig runs, as `(file, Go package)`.
const PROGRAMS: [(&str, &str); 5] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
];

/// A folder that holds every program the rig runs.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Finds the programs in the cache, or builds them into it; `say` gets progress lines.
    ///
    /// # Errors
    /// Says what is missing when there is neither a cache that fits nor a Go to build with, and what Go said when a
    /// build fails.
    pub fn ready(say: impl Fn(&str)) -> Result<Self> {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("rig");
        let sum = fs::read(module.join("go.sum")).context("reading tests/rig/go.sum")?;
        let cache = cache_dir()?.join("rig");
        let Some(go) = on_path("go") else { return Self::newest_without_go(&cache, &sum) };
        let version = output(Command::new(&go).arg("env").arg("GOVERSION").current_dir(&module))?;
        let dir = cache.join(key(&sum, version.trim())?);
        if complete(&dir) {
            return Ok(Self { dir });
        }
        say(&format!("building the control plane with {} into {} (minutes, once)", version.trim(), dir.display()));
        fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
        let unfinished = tempfile::tempdir_in(&cache).context("making a folder to build in")?;
        for (name, package) in PROGRAMS {
            say(&format!("building {name} ({package})"));
            build(&go, &module, &unfinished.path().join(name), package, &say)?;
        }
        fs::write(unfinished.path().join("go.sum"), &sum).context("noting what was built")?;
        // Another run may have finished first: its result is as good as ours.
        let finished = unfinished.keep();
        if let Err(error) = fs::rename(&finished, &dir) {
            ensure!(complete(&dir), "moving the built programs to {}: {error}", dir.display());
        }
        Ok(Self { dir })
    }

    /// Where one of the programs is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Without Go the version is unknown: any cached build of the very same go.sum will do.
    fn newest_without_go(cache: &Path, sum: &[u8]) -> Result<Self> {
        let entries = fs::read_dir(cache).into_iter().flatten().flatten().map(|entry| entry.path());
        for dir in entries {
            if complete(&dir) && fs::read(dir.join("go.sum")).is_ok_and(|built| built == sum) {
                return Ok(Self { dir });
            }
        }
        bail!(
            "the rig needs a control plane and found neither `go` on PATH (1.26 or newer builds one from tests/rig/go.mod in \
             about ten minutes) nor a finished build of the same go.sum under {}",
            cache.display()
        )
    }
}

/// Every program is there.
fn complete(dir: &Path) -> bool {
    PROGRAMS.iter().all(|(name, _)| dir.join(name).is_file())
}

/// sha256 over go.sum and the Go version, in hex.
fn key(sum: &[u8], version: &str) -> Result<String> {
    use std::fmt::Write as _;
    let mut hasher = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    hasher.update(sum);
    hasher.update(version.as_bytes());
    let mut text = String::new();
    for byte in hasher.finish().as_ref() {
        write!(text, "{byte:02x}").context("writing hex")?;
    }
    Ok(text)
}

/// Builds one package; what Go prints is passed on line by line.
fn build(go: &Path, module: &Path, to: &Path, package: &str, say: &impl Fn(&str)) -> Result<()> {
    let mut child = Command::new(go)
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(to)
        .arg(package)
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting go")?;
    let mut last = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            last = line.context("reading what go says")?;
            say(&format!("  go: {last}"));
        }
    }
    let status = child.wait().context("waiting for go")?;
    ensure!(status.success(), "go build {package} failed ({status}): {last}");
    Ok(())
}

/// What a short command prints.
fn output(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(out.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
