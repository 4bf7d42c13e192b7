//! A real Helm (the one on PATH, else built once by Go from the module in `tests/helm`), and the chart that we hand out.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;

use crate::golang;

const SUM: &str = include_str!("../helm/go.sum");
/// What a chart is rendered for without a cluster.
const KUBERNETES: &str = "--kube-version=1.36.0";

/// Where Helm lies; found or built once per test program.
///
/// # Errors
/// When there is neither a Helm nor a Go that could build one.
pub fn program() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found =
        FOUND.get_or_init(|| golang::on_path("helm").map_or_else(built, Ok).map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

fn built() -> Result<PathBuf> {
    let folder = golang::built("helm", SUM, "", &[("helm", "helm.sh/helm/v3/cmd/helm".to_owned())])
        .map_err(|error| anyhow!("there is no helm on PATH, and it could not be built: {error:#}"))?;
    Ok(folder.join("helm"))
}

/// `deploy/chart`.
#[must_use]
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart")
}

/// The chart with these values, a YAML text, in the namespace `windlass`; further arguments are `helm template`'s, and the release is `windlass` unless
/// they name another.
///
/// # Errors
/// With what Helm said: a value that the chart does not take, most often.
pub fn template(values: &str, arguments: &[&str]) -> Result<String> {
    // Of two names the last counts.
    run(&["template"], values, &[&["--name-template=windlass", "--namespace=windlass", KUBERNETES], arguments].concat())
}

/// `helm lint --strict` with these values.
///
/// # Errors
/// With what it found.
pub fn lint(values: &str) -> Result<String> {
    run(&["lint", "--strict"], values, &[KUBERNETES])
}

/// Installs the chart with these values on a cluster, or upgrades to them, and answers what Helm tells people then.
///
/// # Errors
/// With what Helm or the cluster said.
pub fn upgrade(kubeconfig: &Path, values: &str) -> Result<String> {
    let cluster = format!("--kubeconfig={}", kubeconfig.display());
    // Without --reset-values no values would mean the last ones.
    let arguments = ["--namespace=windlass", "--create-namespace", "--reset-values", &cluster];
    run(&["upgrade", "--install", "windlass"], values, &arguments)
}

/// Takes everything away again.
///
/// # Errors
/// With what Helm or the cluster said.
pub fn uninstall(kubeconfig: &Path) -> Result<()> {
    let mut helm = Command::new(program()?);
    let output =
        helm.args(["uninstall", "windlass", "--namespace=windlass", "--kubeconfig"]).arg(kubeconfig).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn run(command: &[&str], values: &str, arguments: &[&str]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values)?;
    let mut helm = Command::new(program()?);
    // Nobody's settings, plugins or clusters.
    helm.env_remove("KUBECONFIG").env("HOME", folder.path()).env("HELM_NAMESPACE", "default");
    helm.args(command).arg(chart()).arg("--values").arg(file).args(arguments);
    let output = helm.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

/// The documents of what Helm printed, without the lines that say which template each came from.
#[must_use]
pub fn documents(manifest: &str) -> Vec<String> {
    let own = |line: &&str| !line.starts_with("# Source: ");
    let text: String = manifest.lines().filter(own).map(|line| format!("{}\n", line.trim_end())).collect();
    let documents = text.split("---\n").map(str::trim).filter(|document| !document.is_empty());
    documents.map(|document| format!("{document}\n")).collect()
}

/// The objects of a manifest.
///
/// # Errors
/// When one of them is not YAML.
pub fn objects(manifest: &str) -> Result<Vec<Value>> {
    let read = |text: String| serde_saphyr::from_str::<Value>(&text).map_err(|error| anyhow!("{error}\n{text}"));
    let all: Result<Vec<_>> = documents(manifest).into_iter().map(read).collect();
    Ok(all?.into_iter().filter(|object| !object.is_null()).collect())
}
