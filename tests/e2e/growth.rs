//! Pods wait, machines come: how many, which, and whether they are what was promised.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1 as k8s;
use prost::Message as _;
use windlass_proto::{core, externalgrpc::NodeGroupTemplateNodeInfoRequest, quantity};
use windlass_tests::rig::scene::{Scene, Setup};

use crate::runner::{Stage, Story, story};

/// From pods that wait to pods that run, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(90);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story!(scale_from_zero, on Every),
        story!(slow_device_plugin, on SimAndAws),
        story!(cpu_pod_buys_no_gpu, on SimAndAwsDesired),
        story!(mutual_tls_and_the_expanders_own_certificate, by Real),
    ]
}

/// Two pods with a GPU each: two machines of the cheaper market, as the template promised, and not one more.
async fn scale_from_zero(stage: Stage) -> Result<()> {
    let mut scene = stage.scene(Setup::default()).await?;
    scene.create_pods("gpu", 2, 1).await?;
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("spot-a10g", 2)]).await?;
    let (question, _) = scene.journal.questions().into_iter().next().context("the expander was never asked")?;
    let offered: Vec<_> = question.options.iter().map(|option| option.node_group_id.as_str()).collect();
    ensure!(offered.contains(&"spot-a10g") && offered.contains(&"od-a10g"), "the expander was offered {offered:?}");
    let nodes = question.node_map.len() + question.node_bytes_map.len();
    ensure!(nodes >= 3, "the expander was shown {nodes} templates, not all");
    template_equals_node(&mut scene, "spot-a10g").await?;
    scene.nothing_further_is_bought().await
}

/// GPUs that become allocatable only after 15 s must not look like GPUs that are missing.
async fn slow_device_plugin(stage: Stage) -> Result<()> {
    let mut scene = stage.scene(Setup::default()).await?;
    scene.conduct.lock().devices_after = Duration::from_secs(15);
    scene.create_pods("gpu", 2, 1).await?;
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("spot-a10g", 2)]).await?;
    scene.nothing_further_is_bought().await
}

/// A pod that asks for no GPU (and tolerates their taint) gets the machine without one, although spot comes first.
async fn cpu_pod_buys_no_gpu(stage: Stage) -> Result<()> {
    let mut scene = stage.scene(Setup::default()).await?;
    scene.create_pods("plain", 1, 0).await?;
    scene.until_running(1, SOON).await?;
    exactly(&mut scene, &[("cpu", 1)]).await?;
    scene.nothing_further_is_bought().await
}

/// Nothing in between: the autoscaler's own client speaks mutual TLS to the provider, and trusts the certificate that the
/// expander made for itself.
async fn mutual_tls_and_the_expanders_own_certificate(stage: Stage) -> Result<()> {
    let mut scene = stage.scene(Setup { direct: true, ..Setup::default() }).await?;
    scene.create_pods("gpu", 2, 1).await?;
    scene.until_running(2, SOON).await?;
    exactly(&mut scene, &[("spot-a10g", 2)]).await?;
    let decisions = scene.provider.get("/decisions").await?;
    ensure!(decisions.contains("spot-a10g"), "the expander was not heard: {decisions}");
    scene.nothing_further_is_bought().await
}

/// These Nodes and no others, each bought once.
pub(crate) async fn exactly(scene: &mut Scene, expected: &[(&str, usize)]) -> Result<()> {
    let expected: BTreeMap<String, usize> = expected.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect();
    let nodes = scene.nodes_by_group().await?;
    ensure!(nodes == expected, "expected the nodes {expected:?}, found {nodes:?}");
    let machines = expected.values().sum::<usize>();
    ensure!(scene.machines() == machines, "{} machines ran for {machines} nodes", scene.machines());
    Ok(())
}

/// Field by field: what the provider promised of a machine, and the Node that its kubelet registered.
async fn template_equals_node(scene: &mut Scene, group: &str) -> Result<()> {
    let request = NodeGroupTemplateNodeInfoRequest { id: group.to_owned() };
    let answer =
        scene.asks().node_group_template_node_info(request).await.context("asking for a template")?.into_inner();
    ensure!(answer.node_bytes == answer.node_info, "the template differs between its two fields");
    let template = core::Node::decode(answer.node_bytes.as_slice()).context("the template is no Node")?;
    let nodes = scene.nodes().await?;
    let of_group = |node: &&k8s::Node| {
        node.metadata.labels.as_ref().and_then(|l| l.get("rig/group")).is_some_and(|id| id == group)
    };
    let node = nodes.iter().find(of_group).context("no Node to compare")?;
    let promised = promised(&template);
    let real = real(node);
    for key in promised.keys().chain(real.keys()) {
        let (promised, real) = (promised.get(key), real.get(key));
        // On AWS the provider keeps back what EKS reserves, and the rig's kubelets reserve nothing: less may be promised
        // of what can be allocated, never more.
        let less = scene.aws.is_some() && key.starts_with("allocatable ") && milli(promised) <= milli(real);
        ensure!(promised == real || less, "{group}: {key} is {real:?} on the Node and {promised:?} in the template");
    }
    Ok(())
}

/// What a template says, as `path -> value`; what only a living node has is left out.
fn promised(template: &core::Node) -> BTreeMap<String, String> {
    let (metadata, spec) = (template.metadata.clone().unwrap_or_default(), template.spec.clone().unwrap_or_default());
    let status = template.status.clone().unwrap_or_default();
    let text = |quantity: &core::Quantity| quantity.string().to_owned();
    let labels = metadata.labels.iter().map(|(key, value)| (key.clone(), value.clone()));
    let taints = spec.taints.iter().map(|taint| (taint.key(), taint.value(), taint.effect()));
    let conditions = status.conditions.iter().map(|c| (c.r#type().to_owned(), c.status().to_owned()));
    let capacity = status.capacity.iter().map(|(name, quantity)| (name.clone(), text(quantity)));
    let allocatable = status.allocatable.iter().map(|(name, quantity)| (name.clone(), text(quantity)));
    let mut fields = fields_of(labels, taints);
    fields.extend(amounts("capacity", capacity));
    fields.extend(amounts("allocatable", allocatable));
    fields.extend(conditions.map(|(kind, status)| (format!("condition {kind}"), status)));
    fields
}

/// What a Node says, in the same words.
fn real(node: &k8s::Node) -> BTreeMap<String, String> {
    let status = node.status.clone().unwrap_or_default();
    let taints = node.spec.clone().unwrap_or_default().taints.unwrap_or_default();
    let taints = taints.iter().map(|t| (t.key.as_str(), t.value.as_deref().unwrap_or_default(), t.effect.as_str()));
    let mut fields = fields_of(node.metadata.labels.clone().unwrap_or_default(), taints);
    fields.extend(amounts("capacity", status.capacity.unwrap_or_default().into_iter().map(|(n, q)| (n, q.0))));
    fields.extend(amounts("allocatable", status.allocatable.unwrap_or_default().into_iter().map(|(n, q)| (n, q.0))));
    fields.extend(
        status.conditions.unwrap_or_default().into_iter().map(|c| (format!("condition {}", c.type_), c.status)),
    );
    fields
}

/// Labels and taints. The name of the host is a node's own, and the controller copies two labels under their old names.
fn fields_of<'a>(
    labels: impl IntoIterator<Item = (String, String)>,
    taints: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) -> BTreeMap<String, String> {
    let kept = |key: &String| key != "kubernetes.io/hostname" && !key.starts_with("beta.kubernetes.io/");
    let labels = labels.into_iter().filter(|(key, _)| kept(key)).map(|(key, value)| (format!("label {key}"), value));
    let taints = taints.map(|(key, value, effect)| (format!("taint {key}"), format!("{value}:{effect}")));
    labels.chain(taints).collect()
}

/// Quantities in thousandths: `4` and `4000m` are the same.
fn amounts(list: &str, amounts: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let exact = |text: &str| quantity::milli_value(text).map_or_else(|_| text.to_owned(), |milli| format!("{milli}m"));
    amounts.map(|(name, text)| (format!("{list} {name}"), exact(&text))).collect()
}

/// An amount as [`amounts`] writes it.
fn milli(amount: Option<&String>) -> i128 {
    amount.and_then(|text| text.strip_suffix('m')?.parse().ok()).unwrap_or_default()
}
