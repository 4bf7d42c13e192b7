//! What the model said beside what was recorded.
//!
//! The decisive calls (`BestOptions`, `IncreaseSize`, `DecreaseTargetSize`, `DeleteNodes` of instances that are no Nodes) must be
//! the same, in the same order, with the same arguments. Between two of them, and up to the end of a loop:
//! `TargetSize` calls must be the same in the same order; every other read must be made as often with the same arguments.
//! Not compared, because CA itself does not fix it:
//! the order of those other reads (Go maps, one goroutine per group); how often a real node's group is looked up (a background
//! deletion races with the cache); the order of options, pods and ids in one request; which of several equal pods is named;
//! the random number in the name of a node still to come; when within its loop a background deletion of a real node happens.

use std::collections::BTreeMap;

use prost::Message as _;
use windlass_proto::{core, expander::BestOptionsRequest, externalgrpc::ExternalGrpcNode};
use windlass_provider::replay::{autoscaler::Call, cluster::PodView};

use super::stage::is_real;

/// The calls of one loop, as far as they are compared.
#[derive(Debug, Default, PartialEq)]
struct Block {
    sizes: Vec<String>,
    reads: BTreeMap<String, usize>,
}

/// Every way in which two loops differ.
pub(crate) fn differences(recorded: &[Call], model: &[Call]) -> Vec<String> {
    let ((decided, blocks), (ours, our_blocks)) = (split(recorded), split(model));
    if decided != ours {
        return vec![format!("decided: recorded {decided:?}, model {ours:?}")];
    }
    let mut found = Vec::new();
    for (theirs, ours) in blocks.iter().zip(&our_blocks) {
        if theirs.sizes != ours.sizes {
            found.push(format!("sizes: recorded {:?}, model {:?}", theirs.sizes, ours.sizes));
        }
        let mut names: Vec<&String> = theirs.reads.keys().chain(ours.reads.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let count = |block: &Block| block.reads.get(name).copied().unwrap_or(0);
            if count(theirs) != count(ours) {
                found.push(format!("reads: recorded {}, model {} of {name}", count(theirs), count(ours)));
            }
        }
    }
    found
}

fn split(calls: &[Call]) -> (Vec<String>, Vec<Block>) {
    let (mut decided, mut blocks) = (Vec::new(), vec![Block::default()]);
    for call in calls {
        let Some(block) = blocks.last_mut() else { continue };
        match call {
            Call::BestOptions(request) => {
                decided.push(best_options(request));
                blocks.push(Block::default());
            }
            Call::IncreaseSize(request) => {
                decided.push(format!("IncreaseSize {} {}", request.id, request.delta));
                blocks.push(Block::default());
            }
            Call::DecreaseTargetSize(request) => {
                decided.push(format!("DecreaseTargetSize {} {}", request.id, request.delta));
                blocks.push(Block::default());
            }
            Call::DeleteNodes(request) => {
                let mut nodes: Vec<String> = request.nodes.iter().map(node).collect();
                nodes.sort();
                let text = format!("DeleteNodes {} {}", request.id, nodes.join(" "));
                if request.nodes.iter().any(is_real) {
                    *block.reads.entry(text).or_default() += 1;
                } else {
                    decided.push(text);
                    blocks.push(Block::default());
                }
            }
            Call::TargetSize(request) => block.sizes.push(request.id.clone()),
            Call::NodeGroupForNode(request) => {
                let one = request.node.clone().unwrap_or_default();
                let count = block.reads.entry(format!("NodeGroupForNode {}", node(&one))).or_default();
                *count = if is_real(&one) { 1 } else { *count + 1 };
            }
            other => *block.reads.entry(read(other)).or_default() += 1,
        }
    }
    (decided, blocks)
}

fn read(call: &Call) -> String {
    match call {
        Call::Nodes(request) => format!("Nodes {}", request.id),
        Call::TemplateNodeInfo(request) => format!("TemplateNodeInfo {}", request.id),
        Call::GetOptions(request) => format!("GetOptions {} {:?}", request.id, request.defaults),
        Call::PricingNodePrice(request) => {
            let old = span(request.start_time, request.end_time);
            let new = span(request.start_timestamp, request.end_timestamp);
            let one = request.node.clone().unwrap_or_default();
            format!("PricingNodePrice {} for {old:?} {new:?} s", node(&one))
        }
        Call::PricingPodPrice(request) => {
            let old = span(request.start_time, request.end_time);
            let new = span(request.start_timestamp, request.end_timestamp);
            let forms = [&request.pod, &request.pod_bytes].map(|bytes| (!bytes.is_empty()).then(|| pod(bytes)));
            format!("PricingPodPrice {forms:?} for {old:?} {new:?} s")
        }
        other => format!("{other:?}"),
    }
}

/// The seconds between two times, where the release sends them in this form.
fn span(start: Option<prost_types::Timestamp>, end: Option<prost_types::Timestamp>) -> Option<i64> {
    Some(end?.seconds - start?.seconds)
}

/// A name without the random number of a template's.
pub(crate) fn plain(text: &str) -> String {
    let Some(rest) = text.strip_prefix("template-node-for-") else { return text.to_owned() };
    let parts =
        rest.split('-').filter(|part| part.len() < 15 || part.contains(|letter: char| !letter.is_ascii_digit()));
    format!("template-node-for-{}", parts.collect::<Vec<_>>().join("-"))
}

/// Name, provider id, labels and annotations. The name of a node still to come has a random number in it.
fn node(node: &ExternalGrpcNode) -> String {
    let sorted = |map: &dyn Fn() -> Vec<(String, String)>| {
        let mut pairs = map();
        pairs.sort();
        pairs.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect::<Vec<_>>().join(",")
    };
    let labels = sorted(&|| node.labels.clone().into_iter().collect());
    let annotations = sorted(&|| node.annotations.clone().into_iter().collect());
    format!("{} {} [{labels}] [{annotations}]", plain(&node.name), node.provider_id)
}

/// Options by group, with the number of nodes and what the pods ask for; and the groups whose nodes are shown, in which
/// form of the message.
fn best_options(request: &BestOptionsRequest) -> String {
    let mut options: Vec<String> = request
        .options
        .iter()
        .map(|option| {
            let mut pods: Vec<String> = [("pod", &option.pod), ("podBytes", &option.pod_bytes)]
                .into_iter()
                .flat_map(|(form, list)| list.iter().map(move |bytes| format!("{form} {}", pod(bytes))))
                .collect();
            pods.sort();
            format!("{} x{} for {pods:?}", option.node_group_id, option.node_count)
        })
        .collect();
    options.sort();
    let keys = |groups: Vec<&String>| -> Vec<String> { groups.into_iter().cloned().collect() };
    let (mut old, mut new) = (keys(request.node_map.keys().collect()), keys(request.node_bytes_map.keys().collect()));
    old.sort();
    new.sort();
    format!("BestOptions {options:?} nodeMap {old:?} nodeBytesMap {new:?}")
}

fn pod(bytes: &[u8]) -> String {
    let pod = PodView::from_proto(&core::Pod::decode(bytes).unwrap());
    format!("{}/{:?}", pod.namespace, pod.requests)
}
