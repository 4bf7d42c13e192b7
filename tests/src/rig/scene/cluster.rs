//! What a scenario does to the cluster and sees of it: pods and nodes. Part of [`Scene`].

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use super::Scene;
use crate::rig::world::GPU;

impl Scene {
    /// Creates `count` pods of that many GPUs each (none: half a CPU), named `<name>-<n>`.
    ///
    /// # Errors
    /// When the apiserver refuses them.
    pub async fn create_pods(&self, name: &str, count: u32, gpus: u32) -> Result<()> {
        let pods = self.pods_api();
        for n in 0..count {
            let mut limits = json!({"cpu": "500m", "memory": "256Mi"});
            if gpus > 0 {
                limits[GPU] = json!(gpus.to_string());
            }
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {
                    "name": format!("{name}-{n}"),
                    // A bare pod has nobody to make it anew; without this no node with one on it is ever given back.
                    "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"},
                },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "work", "image": "work", "resources": {"limits": limits, "requests": limits}}],
                    "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
                },
            }))
            .context("writing a pod")?;
            pods.create(&PostParams::default(), &pod).await.context("creating a pod")?;
        }
        self.journal.act("pods-created", json!({"name": name, "count": count, "gpus": gpus}));
        Ok(())
    }

    /// Deletes every pod.
    ///
    /// # Errors
    /// When the apiserver refuses.
    pub async fn delete_pods(&self) -> Result<()> {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.pods_api().delete_collection(&at_once, &ListParams::default()).await.context("deleting the pods")?;
        self.journal.act("pods-deleted", json!({}));
        Ok(())
    }

    /// Waits until this many pods run and none waits.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub async fn until_running(&mut self, count: usize, within: Duration) -> Result<()> {
        self.until(&format!("{count} pods Running"), within, async |scene| scene.all_run(count).await).await
    }

    /// Whether there are so many pods and all of them run.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub async fn all_run(&self, count: usize) -> Result<bool> {
        let pods = self.pods().await?;
        let runs = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        Ok(pods.len() == count && pods.iter().all(runs))
    }

    /// Every Node.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let nodes: Api<Node> = Api::all(self.plane.client.clone());
        Ok(nodes.list(&ListParams::default()).await.context("listing nodes")?.items)
    }

    /// How many Nodes each group has.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub async fn nodes_by_group(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for node in self.nodes().await? {
            let group = node.metadata.labels.unwrap_or_default().remove("rig/group").unwrap_or_default();
            *counts.entry(group).or_default() += 1;
        }
        Ok(counts)
    }

    /// The pod's node, if it has one.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub async fn node_of(&self, pod: &str) -> Result<Option<Node>> {
        let pod = self.pods_api().get(pod).await.context("reading a pod")?;
        let Some(name) = pod.spec.and_then(|spec| spec.node_name) else { return Ok(None) };
        Ok(self.nodes().await?.into_iter().find(|node| node.metadata.name.as_deref() == Some(&name)))
    }

    /// Deletes one pod.
    ///
    /// # Errors
    /// When the apiserver refuses.
    pub async fn delete_pod(&self, pod: &str) -> Result<()> {
        self.pods_api().delete(pod, &DeleteParams::default()).await.context("deleting a pod")?;
        self.journal.act("pod-deleted", json!({"pod": pod}));
        Ok(())
    }

    /// Every pod.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        Ok(self.pods_api().list(&ListParams::default()).await.context("listing pods")?.items)
    }

    fn pods_api(&self) -> Api<Pod> {
        Api::namespaced(self.plane.client.clone(), "default")
    }
}
