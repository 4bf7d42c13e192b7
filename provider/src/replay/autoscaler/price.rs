//! `--expander=price`: what an hour of each option costs against what its pods are worth.

use prost::Message as _;
use windlass_proto::externalgrpc::{PricingNodePriceRequest, PricingPodPriceRequest};

use super::{
    choice::Choice,
    client::{Answer, tolerate},
    flags::Era,
    pass::{Pass, gpu, wire},
};
use crate::{
    replay::cluster::{NodeView, PodView, Resources},
    timestamp::Timestamp,
};

/// Prices are asked for this long from now, in seconds.
const HOUR: i64 = 3600;
/// Added to both sides of the ratio so that pods without requests do not divide by nothing: what this pod costs.
const STABILIZER: [(&str, u64); 2] = [("cpu", 500), ("memory", 500 << 20)];
/// Groups with GPUs fit nothing else, and are compared with each other by price alone.
const GPU_UNFITNESS: f64 = 1000.0;

/// The cheapest, by CA's measure; an option with any price missing is left out. `size`: nodes in the cluster.
pub(super) fn cheapest(pass: &mut Pass, options: Vec<Choice>, size: usize) -> Answer<Vec<Choice>> {
    let requests: Resources = STABILIZER.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
    let stabilizer = pod_price(pass, &PodView::new("stabilize", "", requests, Timestamp(0)))?.unwrap_or(0.0);
    let mut best: Vec<(f64, Choice)> = Vec::new();
    for choice in options {
        let Some(score) = score(pass, &choice, stabilizer, size)? else { continue };
        let lowest = best.first().map_or(f64::INFINITY, |(lowest, _)| *lowest);
        if score < lowest {
            best.clear();
        }
        if score <= lowest {
            best.push((score, choice));
        }
    }
    Ok(best.into_iter().map(|(_, choice)| choice).collect())
}

#[expect(clippy::cast_precision_loss, reason = "a score, compared with others of its kind")]
fn score(pass: &mut Pass, choice: &Choice, stabilizer: f64, size: usize) -> Answer<Option<f64>> {
    let Some(template) = pass.templates.get(&choice.group).cloned() else { return Ok(None) };
    let Some(node) = node_price(pass, &template)? else { return Ok(None) };
    let mut pods = 0.0;
    for pod in &choice.pods {
        let Some(price) = pod_price(pass, pod)? else { return Ok(None) };
        pods += price;
    }
    let label = pass.client.gpu_label();
    let ratio = (node * choice.nodes as f64 + stabilizer) / (pods + stabilizer);
    let unfitness = if template.labels.contains_key(&label) || gpu(&template).is_some() {
        GPU_UNFITNESS
    } else {
        let many = ((choice.nodes - 1) as f64 / 15.0).tanh();
        (unfitness(&template, size) - 1.0) * (1.0 - many) + 1.0
    };
    Ok(Some(ratio * unfitness))
}

/// How far the node's cpu is from what suits a cluster of this size: 1 CPU, doubling each time the cluster triples.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn unfitness(template: &NodeView, size: usize) -> f64 {
    let steps = [2, 6, 20, 60, 200].iter().filter(|most| size > **most).count();
    let preferred = (1000_u64 << steps) as f64;
    let cpu = template.capacity.get("cpu").copied().unwrap_or(1).max(1) as f64;
    (preferred / cpu).max(cpu / preferred)
}

/// Now and in an hour, in the old fields, which are whole seconds, and in the new ones.
struct Times {
    old: Option<(prost_types::Timestamp, prost_types::Timestamp)>,
    new: Option<(prost_types::Timestamp, prost_types::Timestamp)>,
}

fn times(pass: &Pass) -> Times {
    let seconds = i64::try_from(pass.now.0 / 1000).unwrap_or(0);
    let nanos = i32::try_from(pass.now.0 % 1000).unwrap_or(0) * 1_000_000;
    let span = |nanos: i32| {
        let at = |seconds: i64| prost_types::Timestamp { seconds, nanos };
        (at(seconds), at(seconds + HOUR))
    };
    Times { old: (pass.era() <= Era::V1_34).then(|| span(0)), new: (pass.era() >= Era::V1_34).then(|| span(nanos)) }
}

fn node_price(pass: &mut Pass, template: &NodeView) -> Answer<Option<f64>> {
    let Times { old, new } = times(pass);
    tolerate(pass.client.node_price(PricingNodePriceRequest {
        node: Some(wire(template)),
        start_time: old.map(|(start, _)| start),
        end_time: old.map(|(_, end)| end),
        start_timestamp: new.map(|(start, _)| start),
        end_timestamp: new.map(|(_, end)| end),
    }))
}

fn pod_price(pass: &mut Pass, pod: &PodView) -> Answer<Option<f64>> {
    let Times { old, new } = times(pass);
    let bytes = pod.to_proto().encode_to_vec();
    tolerate(pass.client.pod_price(PricingPodPriceRequest {
        pod: if old.is_some() { bytes.clone() } else { Vec::new() },
        pod_bytes: if new.is_some() { bytes } else { Vec::new() },
        start_time: old.map(|(start, _)| start),
        end_time: old.map(|(_, end)| end),
        start_timestamp: new.map(|(start, _)| start),
        end_timestamp: new.map(|(_, end)| end),
    }))
}
