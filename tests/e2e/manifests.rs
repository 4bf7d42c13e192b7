//! The manifests that we hand out, held against the schemas and rules of a real apiserver.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::PostParams};

use crate::runner::{Stage, Story, story};

pub(crate) fn stories() -> Vec<Story> {
    vec![story!(manifests_are_taken, by None)]
}

/// Every file under `deploy/kubernetes` and `deploy/aws` passes a strict dry run on the server.
async fn manifests_are_taken(stage: Stage) -> Result<()> {
    let plane = stage.plane().await?;
    let mut files = Vec::new();
    for dir in ["../deploy/kubernetes", "../deploy/aws"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
        let before = files.len();
        files.extend(entries.flatten().map(|entry| entry.path()));
        files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
        ensure!(files.len() > before, "no manifest in {}", dir.display());
    }
    files.sort();
    // A dry run creates no namespace that the next object could live in.
    let namespaces: Api<Namespace> = Api::all(plane.client.clone());
    for file in &files {
        for name in namespaces_in(file)? {
            let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": name}}))?;
            match namespaces.create(&PostParams::default(), &namespace).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => drop(other.context("creating a namespace")?),
            }
        }
    }
    for file in &files {
        let name = file.display().to_string();
        plane.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &name]).await?;
    }
    Ok(())
}

/// The names after `namespace:` in a file, however deep.
fn namespaces_in(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let named =
        |line: &str| line.trim().strip_prefix("namespace:").map(|name| name.trim().trim_matches('"').to_owned());
    Ok(text.lines().filter_map(named).filter(|name| !name.is_empty()).collect())
}
