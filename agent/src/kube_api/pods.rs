//! The pods of this node, as the API server tells them: a list, then a watch, and a list again when the watch is lost. Only uid, labels and
//! container ids are read of each.

use std::collections::BTreeMap;
use std::convert::Infallible;

use kube::Client;
use kube::api::{Api, ListParams, NotUsed, Object, WatchEvent, WatchParams};
use serde::Deserialize;
use tokio_stream::StreamExt as _;

use super::{World, pause, resource, within};
use crate::config::limits;
use crate::pods::identity::{Identities, Pod, Source};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    container_statuses: Vec<Container>,
    init_container_statuses: Vec<Container>,
    ephemeral_container_statuses: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    #[serde(rename = "containerID")]
    id: Option<String>,
}

type Written = Object<NotUsed, Status>;

/// Pods by uid.
type Known = BTreeMap<String, Pod>;

/// Watches for as long as the agent runs.
pub(super) async fn watch(world: World, client: Client) {
    let mut failures = 0_u32;
    loop {
        let Err(error) = once(&world, &client, &mut failures).await;
        failures = failures.saturating_add(1);
        tracing::warn!("the node's pods cannot be watched: {error:#}; what is known stands, and it is tried again");
        tokio::time::sleep(pause(failures)).await;
    }
}

/// One list and the watch that begins where it ended, until something fails. A watch ends by itself after some minutes: that is no failure. Whatever a
/// watch says ends the row of `failures`.
async fn once(world: &World, client: &Client, failures: &mut u32) -> anyhow::Result<Infallible> {
    let api: Api<Written> = Api::all_with(client.clone(), &resource("Pod"));
    let mine = format!("spec.nodeName={}", world.config.node_name);
    let asked = ListParams::default().fields(&mine).limit(limits::API_PODS).match_any();
    let list = within(limits::API_ANSWER, api.list(&asked)).await?;
    let mut version = list.metadata.resource_version.unwrap_or_default();
    let mut known: Known = list.items.into_iter().map(pod).map(|pod| (pod.uid.clone(), pod)).collect();
    publish(world, &known);
    // Other labels may be asked for.
    let mut changes = world.live.changes();
    let parameters = WatchParams::default().fields(&mine).timeout(limits::API_WATCH.as_secs() as u32);
    loop {
        let mut events = std::pin::pin!(within(limits::API_ANSWER, api.watch(&parameters, &version)).await?);
        // The server ends a watch after the time asked for; one that stays silent much longer has lost its connection.
        let ended = tokio::time::timeout(limits::API_WATCH + limits::API_WAIT, async {
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    changed = changes.changed() => {
                        changed?;
                        publish(world, &known);
                        continue;
                    }
                };
                let Some(event) = event else { return Ok(()) };
                let event = event?;
                if !matches!(event, WatchEvent::Error(_)) {
                    *failures = 0;
                }
                match event {
                    WatchEvent::Added(written) | WatchEvent::Modified(written) => {
                        version = written.metadata.resource_version.clone().unwrap_or_default();
                        let pod = pod(written);
                        if keep(&mut known, pod) {
                            publish(world, &known);
                        }
                    }
                    WatchEvent::Deleted(written) => {
                        version = written.metadata.resource_version.clone().unwrap_or_default();
                        if known.remove(&pod(written).uid).is_some() {
                            publish(world, &known);
                        }
                    }
                    WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                    // Most often 410: the version is too old, and a new list is needed.
                    WatchEvent::Error(status) => anyhow::bail!("the API server ended the watch: {}", status.message),
                }
            }
        });
        ended.await.map_err(|_| anyhow::anyhow!("the watch fell silent"))??;
        *failures = 0;
        // A server that ends every watch at once is not asked in a circle.
        tokio::time::sleep(pause(0)).await;
    }
}

/// Whether anything is new. Beyond the limit only what is known already is kept up to date.
fn keep(known: &mut Known, pod: Pod) -> bool {
    let fits = known.len() < limits::API_PODS as usize || known.contains_key(&pod.uid);
    fits && known.insert(pod.uid.clone(), pod.clone()).as_ref() != Some(&pod)
}

fn publish(world: &World, known: &Known) {
    let identities = Identities::new(known.values().cloned(), &world.live.config().shown);
    world.pods.identities.publish(Source::ApiServer, Some(identities));
}

fn pod(written: Written) -> Pod {
    let status = written.status.unwrap_or_default();
    let all = status.container_statuses.into_iter();
    let all = all.chain(status.init_container_statuses).chain(status.ephemeral_container_statuses);
    let metadata = written.metadata;
    // A static pod is in the API as a mirror: its cgroup has the uid that the kubelet made of its file.
    let mirrored = metadata.annotations.and_then(|mut all| all.remove("kubernetes.io/config.mirror"));
    Pod {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: mirrored.or(metadata.uid).unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        containers: all
            .filter_map(|container| Some((container.name, container.id.filter(|id| !id.is_empty())?)))
            .collect(),
    }
}
