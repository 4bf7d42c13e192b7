//! The manifests and the chart that we hand out, held against the schemas and rules of a real apiserver.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::PostParams};
use serde_json::json;
use windlass_tests::{helm, rig::plane::Plane};

use crate::runner::{Stage, Story, story};

pub(crate) fn stories() -> Vec<Story> {
    vec![story!(manifests_are_taken, by None), story!(the_chart_is_installed_upgraded_and_taken_away_by_helm, by None)]
}

/// Every file under `deploy/kubernetes` and `deploy/aws` passes a strict dry run on the server.
async fn manifests_are_taken(stage: Stage) -> Result<()> {
    let plane = stage.plane().await?;
    let mut files = Vec::new();
    for dir in ["../deploy/kubernetes", "../deploy/aws"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        let entries = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
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

/// Helm puts the chart on a cluster, from the least to all that can be switched on and back; whoever says something wrong changes nothing.
async fn the_chart_is_installed_upgraded_and_taken_away_by_helm(stage: Stage) -> Result<()> {
    let plane = stage.plane().await?;
    let cluster = &plane.kubeconfig;
    operator_kinds(&plane).await?;
    for name in ["monitoring", "windlass"] {
        plane.kubectl(&["create", "namespace", name]).await?;
    }
    let file = |name: &str| fs::read_to_string(helm::chart().join(name)).with_context(|| name.to_owned());
    let everything = include_str!("../tests/chart/everything.yaml");
    let (eks, sim) = (file("examples/eks.yaml")?, file("examples/sim.yaml")?);
    let upgrades = [everything, &eks, &sim, everything, ""];
    // Before anything is there: kubectl merges lists by other keys than Helm, which knows what it sent before.
    for values in &upgrades {
        strictly(&plane, values).await?;
    }
    let told = helm::upgrade(cluster, "")?;
    ensure!(told.contains("ds/windlass-agent -- windlass-agent doctor") && told.contains("WARNING"), "{told}");
    ensure!(objects(&plane).await?.contains("daemonset.apps/windlass-agent"), "no agent");
    for values in upgrades {
        let told = helm::upgrade(cluster, values).with_context(|| format!("upgrading to\n{values}"))?;
        let said = told.contains("-c windlass-provider -- windlass-provider doctor");
        ensure!(said == values.contains("provider:"), "{told}");
    }
    let before = objects(&plane).await?;
    ensure!(helm::upgrade(cluster, "provider: {enabled: true}").is_err(), "a provider without a cloud was installed");
    ensure!(objects(&plane).await? == before && !before.contains("autoscaler"), "{before}");
    helm::uninstall(cluster)?;
    let left = objects(&plane).await?;
    ensure!(left.trim().is_empty(), "left behind: {left}");
    Ok(())
}

/// What Helm would send is also taken by the apiserver's strict validation, which Helm does not ask for.
async fn strictly(plane: &Plane, values: &str) -> Result<()> {
    let file = plane.kubeconfig.with_file_name("rendered.yaml");
    fs::write(&file, helm::template(values, &[])?)?;
    plane.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &file.display().to_string()]).await?;
    Ok(())
}

/// Everything of ours in the cluster, by kind and name, unless it is on its way out.
async fn objects(plane: &Plane) -> Result<String> {
    let kinds = "daemonsets,deployments,services,serviceaccounts,configmaps,clusterroles,clusterrolebindings,roles,rolebindings,\
        validatingadmissionpolicies,validatingadmissionpolicybindings,networkpolicies,poddisruptionbudgets,\
        podmonitors,servicemonitors,prometheusrules";
    plane.kubectl(&["get", kinds, "-A", "-l", "app.kubernetes.io/part-of=windlass", "-o", "name"]).await
}

/// The Prometheus operator's kinds, without its checks.
async fn operator_kinds(plane: &Plane) -> Result<()> {
    let kind = |kind: &str| {
        let (plural, singular) = (format!("{}s", kind.to_lowercase()), kind.to_lowercase());
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
            "spec": {
                "group": "monitoring.coreos.com",
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": singular},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                }}}],
            },
        })
    };
    let kinds = ["PodMonitor", "ServiceMonitor", "PrometheusRule"].map(kind);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": kinds});
    let file = plane.kubeconfig.with_file_name("operator.json");
    fs::write(&file, list.to_string())?;
    plane.kubectl(&["apply", "-f", &file.display().to_string()]).await?;
    plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &file.display().to_string()]).await?;
    Ok(())
}

/// The names after `namespace:` in a file, however deep.
fn namespaces_in(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let named =
        |line: &str| line.trim().strip_prefix("namespace:").map(|name| name.trim().trim_matches('"').to_owned());
    Ok(text.lines().filter_map(named).filter(|name| !name.is_empty()).collect())
}
