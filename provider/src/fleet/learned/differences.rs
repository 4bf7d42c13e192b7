//! Our description of a node beside a real one, field by field.

use std::collections::BTreeMap;

use super::{Learned, is_shared, number};
use crate::fleet::{
    group::{Group, Taint},
    template::{self, Dialect},
};

/// A description may promise this much less than there is without a word, in thousandths: what the hypervisor and the
/// file system keep is only known from the machine itself.
const MODEST: u64 = 80;
/// And this much more.
const BOLD: u64 = 5;

/// Everything in which `group` describes another node than the one that came, a sentence each.
pub(super) fn told(real: &Learned, group: &Group, dialect: &Dialect) -> Vec<String> {
    let node = template::node(group, dialect);
    let labels = node.metadata.map(|meta| meta.labels).unwrap_or_default();
    let allocatable = node.status.map(|status| status.allocatable).unwrap_or_default();
    let allocatable: BTreeMap<_, _> = allocatable.iter().map(|(name, it)| (name.as_str(), it.string())).collect();
    let mut found: Vec<String> = Vec::new();
    for (key, value) in labels.iter().filter(|(key, _)| is_shared(key)) {
        match real.labels.get(key) {
            Some(it) if it == value => {}
            Some(it) => found.push(format!("label {key} is {it}, not {value}")),
            None => found.push(format!("label {key} is not on it, {value} was said")),
        }
    }
    for (name, said) in &allocatable {
        let is = real.allocatable.get(*name).map_or("0", String::as_str);
        if differs(name, said, is) {
            found.push(format!("allocatable {name} is {is}, not {said}"));
        }
    }
    let more = real
        .allocatable
        .iter()
        .filter(|(name, it)| !allocatable.contains_key(name.as_str()) && number(it).is_some_and(|count| count > 0));
    found.extend(more.map(|(name, is)| format!("allocatable {name} is {is}, nothing was said")));
    let told = |taint: &Taint| format!("{}={}:{}", taint.key, taint.value, taint.effect);
    let missing = group.taints.iter().filter(|taint| !real.taints.contains(taint));
    found.extend(missing.map(|taint| format!("taint {} is not on it", told(taint))));
    let unsaid = real.taints.iter().filter(|taint| !group.taints.contains(taint));
    found.extend(unsaid.map(|taint| format!("taint {} is on it, nothing was said", told(taint))));
    found.into_iter().map(|it| format!("its real node differs from its description: {it}")).collect()
}

fn differs(name: &str, said: &str, is: &str) -> bool {
    let (said, is) = match name {
        "cpu" => (milli(said), milli(is)),
        _ => (number(said).unwrap_or(0), number(is).unwrap_or(0)),
    };
    match name {
        "memory" | "ephemeral-storage" if said <= is => (is - said).saturating_mul(1000) > is.saturating_mul(MODEST),
        "memory" | "ephemeral-storage" => (said - is).saturating_mul(1000) > is.saturating_mul(BOLD),
        _ => said != is,
    }
}

fn milli(text: &str) -> u64 {
    windlass_proto::quantity::milli_value(text).ok().and_then(|value| u64::try_from(value).ok()).unwrap_or(0)
}
