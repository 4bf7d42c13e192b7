//! Which option is taken: the gRPC expander's word where one is configured, then waste, then chance.

use prost::Message as _;
use windlass_proto::expander::{BestOptionsRequest, Option as Candidate};

use super::{
    client::{Answer, Trouble},
    flags::{Era, Expander},
    pass::Pass,
    price::cheapest,
};
use crate::replay::cluster::{NodeView, PodView};

/// One way to help pods.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) group: String,
    pub(super) nodes: i64,
    pub(super) pods: Vec<PodView>,
}

/// The option to take; None where the expander left none. `size`: nodes in the cluster.
pub(super) fn choose(pass: &mut Pass, options: Vec<Choice>, size: usize) -> Answer<Option<Choice>> {
    let mut options = match pass.flags().expander {
        Expander::Grpc | Expander::GrpcLeastWaste => ask_expander(pass, options)?,
        Expander::LeastWaste => least_waste(pass, options),
        Expander::Price => cheapest(pass, options, size)?,
    };
    if pass.flags().expander == Expander::GrpcLeastWaste && options.len() > 1 {
        options = least_waste(pass, options);
    }
    if options.is_empty() {
        return Ok(None);
    }
    let pick = pass.flags().tie % options.len();
    Ok(Some(options.swap_remove(pick)))
}

/// What the gRPC expander leaves, in its order. All of them where it fails, times out or names none that was offered; an
/// empty answer means none from 1.32 on, and all before.
fn ask_expander(pass: &mut Pass, options: Vec<Choice>) -> Answer<Vec<Choice>> {
    let response = match pass.client.best_options(request(pass, &options)) {
        Ok(response) => response,
        Err(Trouble::Failed(failure)) => {
            pass.event("ExpanderFailed", "grpc", failure.to_string());
            return Ok(options);
        }
        Err(crash) => return Err(crash),
    };
    if response.options.is_empty() && pass.era() >= Era::V1_33 {
        return Ok(Vec::new());
    }
    let named = |id: &String| options.iter().find(|choice| choice.group == *id).cloned();
    let left: Vec<Choice> = response.options.iter().filter_map(|option| named(&option.node_group_id)).collect();
    Ok(if left.is_empty() { options } else { left })
}

fn request(pass: &Pass, options: &[Choice]) -> BestOptionsRequest {
    let (old, new) = (pass.era() <= Era::V1_34, pass.era() >= Era::V1_34);
    let bytes = |pods: &[PodView]| -> Vec<_> { pods.iter().map(|pod| pod.to_proto().encode_to_vec().into()).collect() };
    let nodes = |wanted: bool| {
        let every = pass.templates.iter().filter(|_| wanted);
        every.map(|(group, node)| (group.clone(), node.to_proto().encode_to_vec().into())).collect()
    };
    BestOptionsRequest {
        options: options
            .iter()
            .map(|choice| Candidate {
                node_group_id: choice.group.clone(),
                node_count: i32::try_from(choice.nodes).unwrap_or(i32::MAX),
                debug: String::new(),
                pod: if old { bytes(&choice.pods) } else { Vec::new() },
                pod_bytes: if new { bytes(&choice.pods) } else { Vec::new() },
            })
            .collect(),
        node_map: nodes(old),
        node_bytes_map: nodes(new),
    }
}

/// Those that leave the smallest share of cpu and memory unused, by capacity; GPUs do not count.
fn least_waste(pass: &Pass, options: Vec<Choice>) -> Vec<Choice> {
    let scored: Vec<(f64, Choice)> = options
        .into_iter()
        .filter_map(|choice| {
            let template = pass.templates.get(&choice.group)?;
            Some((waste(&choice, template, "cpu") + waste(&choice, template, "memory"), choice))
        })
        .collect();
    let best = scored.iter().map(|(score, _)| *score).fold(f64::INFINITY, f64::min);
    scored.into_iter().filter(|(score, _)| *score <= best).map(|(_, choice)| choice).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a share, compared with others of its kind")]
fn waste(choice: &Choice, template: &NodeView, resource: &str) -> f64 {
    let whole = template.capacity.get(resource).copied().unwrap_or(0) as f64 * choice.nodes as f64;
    let asked: u64 = choice.pods.iter().filter_map(|pod| pod.requests.get(resource)).sum();
    if whole == 0.0 { 0.0 } else { (whole - asked as f64) / whole }
}
