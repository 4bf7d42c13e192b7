//! A GPU is not stranded: pods that ask none keep off GPU groups when another fits, and what a pod says of GPU model and
//! memory is respected. CA checked labels already, against templates; this filter knows what the labels mean.

use super::{Candidate, PodAsk, Policy, Word, packing, packing::Room, plural};
use crate::fleet::group::{Gpus, Group};

/// Label of NVIDIA's GPU feature discovery: `NVIDIA-A10G`, `Tesla-T4`, `NVIDIA-H100-80GB-HBM3`.
const PRODUCT: &str = "nvidia.com/gpu.product";
/// Label of NVIDIA's GPU feature discovery, in MiB.
const MEMORY: &str = "nvidia.com/gpu.memory";

pub(super) fn judge(row: &[Candidate<'_>], policy: &Policy) -> Vec<Word> {
    let cpu_group = row.iter().any(|candidate| gpus(candidate).is_none() && candidate.choice.group.is_some());
    row.iter().map(|candidate| word(candidate, cpu_group, policy)).collect()
}

fn gpus<'a>(candidate: &Candidate<'a>) -> Option<&'a Gpus> {
    candidate.choice.group?.shape.gpus.as_ref()
}

fn word(candidate: &Candidate<'_>, cpu_group: bool, policy: &Policy) -> Word {
    let Some(group) = candidate.choice.group else { return Word::Keep("a group that no listing has shown".to_owned()) };
    let Some(gpus) = &group.shape.gpus else { return Word::Keep("no GPU in the group".to_owned()) };
    if let Some(mismatch) = candidate.demand.kinds.iter().find_map(|kind| mismatch(kind.pod, group, gpus, policy)) {
        return Word::Drop(mismatch);
    }
    if candidate.demand.gpu_pods == 0 && cpu_group {
        return Word::Drop(format!(
            "would strand {}: none of its pods asks for one",
            plural(total(candidate, gpus), "GPU")
        ));
    }
    let needed = needed(candidate, group);
    let launch = u64::from(candidate.launch);
    if candidate.demand.gpu_pods < candidate.demand.pods && needed < launch && cpu_group {
        let stranded = (launch - needed).saturating_mul(u64::from(gpus.count));
        return Word::Drop(format!(
            "would strand {}: {needed} of {launch} nodes do for the pods that ask for one",
            plural(stranded, "GPU")
        ));
    }
    match candidate.demand.gpu_pods {
        0 => Word::Keep("none of its pods asks for a GPU, but no group without GPUs fits".to_owned()),
        pods => {
            let pods = plural(pods, "pod");
            Word::Keep(format!("{} × {} for {pods} with a GPU request", total(candidate, gpus), gpus.model))
        }
    }
}

fn total(candidate: &Candidate<'_>, gpus: &Gpus) -> u64 {
    u64::from(candidate.launch).saturating_mul(u64::from(gpus.count))
}

/// How many machines the pods that ask for a GPU need at least.
fn needed(candidate: &Candidate<'_>, group: &Group) -> u64 {
    let kinds = candidate.demand.kinds.iter().filter(|kind| kind.pod.needs.asks_gpu());
    packing::least_machines(kinds, &Room::of(&group.shape))
}

/// What a pod requires of its GPU and this group does not have.
fn mismatch(pod: &PodAsk, group: &Group, gpus: &Gpus, policy: &Policy) -> Option<String> {
    if pod.needs.selector.is_empty() && pod.needs.gpu_memory_over.is_none() {
        return None;
    }
    let asked = |label: &str| pod.needs.selector.get(label).map(String::as_str);
    if let Some(model) = asked(&policy.gpu_label).filter(|model| *model != gpus.model) {
        return Some(format!("{} asks for {model}, the group has {}", pod.name, gpus.model));
    }
    if let Some(product) = asked(PRODUCT).filter(|product| !is_product(product, group, gpus)) {
        return Some(format!("{} asks for {product}, the group has {}", pod.name, gpus.model));
    }
    let lacks = |asked: u64| Some(format!("{} asks for GPUs of {asked} MiB, these have {}", pod.name, gpus.memory_mib));
    if let Some(exact) =
        asked(MEMORY).and_then(|text| text.parse::<u64>().ok()).filter(|exact| !is_memory(*exact, group, gpus))
    {
        return lacks(exact);
    }
    pod.needs.gpu_memory_over.filter(|over| gpus.memory_mib <= *over).and_then(lacks)
}

/// Whether the product label of a machine of this group would have that value. Where the group does not say, the words
/// of the model are looked for in the product: `nvidia-a10g` and `NVIDIA-A10G` are one, `nvidia-l4` and `NVIDIA-L40S` two.
fn is_product(product: &str, group: &Group, gpus: &Gpus) -> bool {
    if let Some(label) = group.labels.get(PRODUCT) {
        return label == product;
    }
    let words = |text: &str| -> Vec<String> {
        let lower = text.to_ascii_lowercase();
        let known = |word: &&str| !matches!(*word, "" | "nvidia" | "tesla" | "geforce");
        lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(known).map(str::to_owned).collect()
    };
    let product = words(product);
    words(&gpus.model).first().is_none_or(|model| product.contains(model))
}

/// Whether the memory label of a machine of this group would have that value. A driver holds a few percent back and
/// marketing rounds (an L40S of 48 GiB reports 46068 MiB), so without a label an eighth either way is the same GPU.
fn is_memory(exact: u64, group: &Group, gpus: &Gpus) -> bool {
    match group.labels.get(MEMORY) {
        Some(label) => label.parse() == Ok(exact),
        None => exact.abs_diff(gpus.memory_mib) <= gpus.memory_mib / 8,
    }
}
