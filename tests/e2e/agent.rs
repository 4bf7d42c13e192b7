//! What the agent does at the Kubernetes API when it is allowed to, with the rights of its manifest and no others.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Event, Node, Pod, Taint};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use windlass_agent::{
    Running,
    config::{Config, kubernetes::Kubernetes},
    notices::Kind,
    pods::identity::{LabelNames, Shown},
};
use windlass_tests::{
    metadata::{Cloud, Metadata},
    nvml::{Gpus, ModelName, Process, Profile},
    proc::{Cgroup, Container, Host},
    rig::plane::{Plane, client_of},
    scrape::{Page, Scraper, Series},
};

use crate::runner::{Stage, Story, story};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(90);
const KEY: &str = "status-taint.cluster-autoscaler.kubernetes.io/windlass-notice";

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story!(a_notice_taints_the_own_node_and_is_taken_back, by None),
        story!(pod_uid_and_labels_come_from_an_informer_limited_to_the_own_node, by None),
    ]
}

/// A rebalance hint taints the node and comes to nothing; a spot notice taints it, is withdrawn while the agent is away, and the next agent frees the
/// node. Other taints stay, and another node is out of reach.
async fn a_notice_taints_the_own_node_and_is_taken_back(stage: Stage) -> Result<()> {
    let plane = stage.plane().await?;
    let nodes: Api<Node> = Api::all(plane.client.clone());
    for name in ["gpu-1", "gpu-2"] {
        let taints = json!([{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]);
        let node = json!({"metadata": {"name": name}, "spec": {"taints": taints}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await.context("creating a node")?;
    }
    let kubeconfig = agent_kubeconfig(&plane).await?;
    let metadata = Metadata::start(Cloud::Ec2)?;
    metadata.set("instance-life-cycle", Some("spot"));
    let agent = agent(&metadata, &kubeconfig).await?;

    metadata.set("events/recommendations/rebalance", Some("{}"));
    until(&nodes, "rebalance_recommendation", |value| value == Some("rebalance_recommendation")).await?;
    until(&nodes, "the hint came to nothing", |value| value.is_none()).await?;
    metadata.set("events/recommendations/rebalance", None);
    metadata.set("spot/instance-action", Some(r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#));
    until(&nodes, "the spot notice", |value| value == Some("spot_interruption")).await?;
    agent.stop().await;
    metadata.set("spot/instance-action", None);
    let agent = self::agent(&metadata, &kubeconfig).await?;
    until(&nodes, "freed after a restart", |value| value.is_none()).await?;
    agent.stop().await;

    let events: Api<Event> = Api::namespaced(plane.client.clone(), "default");
    let told = events.list(&ListParams::default().fields("involvedObject.kind=Node,involvedObject.name=gpu-1")).await?;
    let count = |reason: &str| told.items.iter().filter(|event| event.reason.as_deref() == Some(reason)).count();
    ensure!(count("CloudNotice") == 2 && count("CloudNoticeOver") == 2, "Events: {:?}", told.items);
    another_node_is_out_of_reach(&kubeconfig).await
}

async fn agent_kubeconfig(plane: &Plane) -> Result<PathBuf> {
    plane.kubectl(&["create", "namespace", "windlass"]).await?;
    let bound = ["--bound-object-kind=Node", "--bound-object-name=gpu-1"];
    plane.account_kubeconfig(&["agent.yaml", "agent-rights.yaml"], "windlass-agent", "windlass", &bound).await
}

/// An agent on the node `gpu-1`, on a machine without a GPU.
async fn agent(metadata: &Metadata, kubeconfig: &std::path::Path) -> Result<Running> {
    let kubernetes = Kubernetes {
        taint_on: vec![Kind::SpotInterruption, Kind::RebalanceRecommendation],
        rebalance_hold: Duration::from_secs(8),
        kubeconfig: Some(kubeconfig.to_owned()),
        ..Kubernetes::default()
    };
    let metadata = Some(metadata.endpoint().parse().map_err(anyhow::Error::msg)?);
    let library = Some(PathBuf::from("/nonexistent/libnvidia-ml.so.1"));
    let node_name = "gpu-1".to_owned();
    windlass_agent::start(Config { kubernetes, metadata, nvml_library: library, node_name, ..Config::default() }).await
}

/// Waits until our taint has a value, or none. The other taint never goes.
async fn until(nodes: &Api<Node>, what: &str, is_so: impl Fn(Option<&str>) -> bool) -> Result<()> {
    let look = async {
        loop {
            let node = nodes.get("gpu-1").await?;
            let taints: Vec<Taint> = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            ensure!(taints.iter().any(|taint| taint.key == "nvidia.com/gpu"), "a foreign taint is gone: {taints:?}");
            let ours = taints.iter().find(|taint| taint.key == KEY);
            ensure!(ours.is_none_or(|taint| taint.effect == "NoSchedule"), "{ours:?}");
            if is_so(ours.and_then(|taint| taint.value.as_deref())) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.with_context(|| format!("never: {what}"))?
}

/// The agent's credential changes taints of its own node, nothing else of it, and no other node.
async fn another_node_is_out_of_reach(kubeconfig: &std::path::Path) -> Result<()> {
    let nodes: Api<Node> = Api::all(client_of(kubeconfig)?);
    for (name, patch) in
        [("gpu-2", json!({"spec": {"taints": []}})), ("gpu-1", json!({"metadata": {"labels": {"team": "mine"}}}))]
    {
        match nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.message.contains("the agent may change") => {}
            other => bail!("{name} could be changed: {other:?}"),
        }
    }
    nodes.patch("gpu-1", &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": []}}))).await?;
    Ok(())
}

/// Without a kubelet's word: the API server names the container of a process by its id, with the pod's uid and the labels that were asked for. A pod
/// of another node is not known here.
async fn pod_uid_and_labels_come_from_an_informer_limited_to_the_own_node(stage: Stage) -> Result<()> {
    let plane = stage.plane().await?;
    let nodes: Api<Node> = Api::all(plane.client.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "gpu-1"}}))?).await?;
    let kubeconfig = agent_kubeconfig(&plane).await?;
    let host = Host::new()?;
    let mut profile = Profile::idle(ModelName::T4, 1);
    let (here, elsewhere) = (Container::new("default", "here", "main"), Container::new("default", "elsewhere", "main"));
    for (pid, container) in [(100, &here), (200, &elsewhere)] {
        host.process(pid, container, Cgroup::Systemd)?;
        profile.gpu(0).processes.push(Process::new(pid, 20.0, 100));
    }
    let gpus = Gpus::new(&profile)?;
    let pods: Api<Pod> = Api::default_namespaced(plane.client.clone());
    running(&pods, &elsewhere, "gpu-2").await?;
    let shown = Shown { uid: true, labels: Some(LabelNames::parse("team").map_err(anyhow::Error::msg)?) };
    let kubernetes = Kubernetes { pod_informer: true, kubeconfig: Some(kubeconfig), ..Kubernetes::default() };
    let agent = windlass_agent::start(Config {
        kubernetes,
        shown,
        nvml_library: Some(gpus.library()),
        host_proc: host.proc(),
        host_logs: host.logs(),
        node_name: "gpu-1".to_owned(),
        ..Config::default()
    })
    .await?;

    // After the agent's list: the watch brings it, and its labels when they change.
    let uid = running(&pods, &here, "gpu-1").await?;
    let label = |series: &Series, name: &str| series.labels.get(name).cloned().unwrap_or_default();
    let named = |series: &Series| label(series, "pod_uid") == uid && label(series, "label_team") == "vision";
    series(&agent, "the pod is named", |page| {
        page.select("gpu_utilization", &[("pod", "here")]).iter().any(|s| named(s))
    })
    .await?;
    let page = series(&agent, "one process stays unknown", |page| {
        page.value("windlass_agent_unknown_processes", &[]) == Some(1.0)
    });
    ensure!(
        page.await?.select("gpu_utilization", &[("pod", "elsewhere")]).is_empty(),
        "a pod of another node is named"
    );
    let patch = Patch::Merge(json!({"metadata": {"labels": {"team": "speech", "secret": "x"}}}));
    pods.patch("here", &PatchParams::default(), &patch).await?;
    let page =
        series(&agent, "the new label", |page| !page.select("gpu_utilization", &[("label_team", "speech")]).is_empty());
    ensure!(page.await?.series.iter().all(|series| !series.labels.contains_key("label_secret")), "nobody asked for it");
    agent.stop().await;
    Ok(())
}

/// A pod on a node, as the kubelet there would report it. Answers its uid.
async fn running(pods: &Api<Pod>, container: &Container, node: &str) -> Result<String> {
    let pod = json!({
        "metadata": {"name": container.pod, "labels": {"team": "vision"}},
        "spec": {"nodeName": node, "containers": [{"name": container.name, "image": "none"}], "tolerations": [{"operator": "Exists"}]},
    });
    let made = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await.context("creating a pod")?;
    let status = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": container.name, "containerID": format!("containerd://{}", container.id),
        "image": "none", "imageID": "", "ready": true, "restartCount": 0,
    }]}});
    pods.patch_status(&container.pod, &PatchParams::default(), &Patch::Merge(status)).await.context("its status")?;
    made.metadata.uid.context("a pod without a uid")
}

/// The first page that is so.
async fn series(agent: &Running, what: &str, is_so: impl Fn(&Page) -> bool) -> Result<Page> {
    let mut scraper = Scraper::connect(agent.address)?;
    let look = async {
        loop {
            let answer = scraper.get("/metrics", &[])?;
            if answer.status == 200 {
                let page = Page::parse(&answer.text()?)?;
                if is_so(&page) {
                    return Ok(page);
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.with_context(|| format!("never: {what}"))?
}
