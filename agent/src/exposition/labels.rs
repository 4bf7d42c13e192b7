//! The label sets of the page's series: ours, and DCGM's. Each is made once per page.

use std::borrow::Cow;

use prometheus::proto::{LabelPair, Metric};

use super::Sources;
use crate::attribution::InstanceUse;
use crate::families::{By, GpuRow, Sample, ShareRow};
use crate::gpu::{Gpu, Identity, MigInstance};
use crate::pods::Owner;

pub(super) fn gpu_labels(row: &GpuRow<'_>, node: &str) -> Metric {
    labelled(gpu_pairs(row, node).into_iter())
}

fn gpu_pairs(row: &GpuRow<'_>, node: &str) -> [(&'static str, String); 4] {
    let identity = &row.gpu.gpu.identity;
    [
        ("gpu", identity.index.to_string()),
        ("uuid", (*identity.uuid).to_owned()),
        ("model", identity.model.as_deref().unwrap_or_default().to_owned()),
        ("node", node.to_owned()),
    ]
}

/// The series of one GPU that differ in one more label.
pub(super) fn by(row: &GpuRow<'_>, label: &'static str, get: fn(&GpuRow<'_>) -> By, node: &str) -> Vec<Sample> {
    let sample = |(word, value): (Cow<'static, str>, f64)| {
        let mut pairs = gpu_pairs(row, node).to_vec();
        pairs.push((label, word.into_owned()));
        (pairs, value)
    };
    get(row).into_iter().map(sample).collect()
}

/// The series of one GPU's MIG instances.
pub(super) fn instances(
    row: &GpuRow<'_>,
    get: impl Fn(&MigInstance, &InstanceUse) -> Option<f64>,
    node: &str,
) -> Vec<Sample> {
    let Gpu { identity, mig, .. } = &row.gpu.gpu;
    let sample = |(instance, rest): (&MigInstance, &InstanceUse)| {
        let pairs = vec![
            ("gpu", identity.index.to_string()),
            ("uuid", (*instance.uuid).to_owned()),
            ("mig_profile", (*instance.profile).to_owned()),
            ("gpu_instance", instance.gpu_instance.map_or_else(String::new, |id| id.to_string())),
            ("node", node.to_owned()),
        ];
        Some((pairs, get(instance, rest)?))
    };
    mig.iter().flatten().zip(&row.gpu.instances).filter_map(sample).collect()
}

pub(super) fn share_labels(row: &ShareRow<'_>, sources: &Sources<'_>) -> Metric {
    let identity = &row.gpu.gpu.identity;
    let owner = &row.share.owner;
    let pairs: [(&str, String); 7] = [
        ("namespace", (*owner.namespace).to_owned()),
        ("pod", (*owner.pod).to_owned()),
        ("container", (*owner.container).to_owned()),
        ("gpu", identity.index.to_string()),
        ("uuid", row.instance.map_or(&*identity.uuid, |instance| &*instance.uuid).to_owned()),
        ("mig_profile", row.instance.map_or("", |instance| &*instance.profile).to_owned()),
        ("node", sources.node.to_owned()),
    ];
    labelled(pairs.into_iter().chain(identity_pairs(owner, sources)))
}

/// The labels of a pod's identity.
fn identity_pairs<'a>(owner: &Owner, sources: &Sources<'a>) -> impl Iterator<Item = (&'a str, String)> + use<'a> {
    let labels = sources.identities.of(owner).map(|identity| identity.labels.as_slice());
    labels.unwrap_or_default().iter().map(|(name, value)| (&**name, (**value).to_owned()))
}

/// Both kinds of row know their GPU.
pub(super) trait OfGpu {
    fn identity(&self) -> &Identity;
}

impl OfGpu for GpuRow<'_> {
    fn identity(&self) -> &Identity {
        &self.gpu.gpu.identity
    }
}

impl OfGpu for ShareRow<'_> {
    fn identity(&self) -> &Identity {
        &self.gpu.gpu.identity
    }
}

pub(super) fn dcgm_labels(of: &impl OfGpu, share: Option<&ShareRow<'_>>, sources: &Sources<'_>) -> Metric {
    let identity = of.identity();
    let owner = share.map(|row| &row.share.owner);
    let name = |field: fn(&Owner) -> &str| owner.map_or("", |owner| field(owner)).to_owned();
    let mut pairs: Vec<(&str, String)> = vec![
        ("gpu", identity.index.to_string()),
        ("UUID", (*identity.uuid).to_owned()),
        ("pci_bus_id", identity.pci_bus_id.as_deref().unwrap_or_default().to_owned()),
        ("device", identity.minor.map_or_else(String::new, |minor| format!("nvidia{minor}"))),
        ("modelName", identity.model.as_deref().unwrap_or_default().to_owned()),
        // dcgm-exporter has changed from one to the other: rules and dashboards select on both.
        ("Hostname", sources.node.to_owned()),
        ("hostname", sources.node.to_owned()),
    ];
    let driver = sources.snapshot.driver_version.as_deref();
    pairs.extend(sources.choice.labels.iter().filter_map(|label| Some((label.name, label.of(identity, driver)?))));
    if let Some(instance) = share.and_then(|row| row.instance) {
        pairs.push(("GPU_I_PROFILE", (*instance.profile).to_owned()));
        pairs.push(("GPU_I_ID", instance.gpu_instance.map_or_else(String::new, |id| id.to_string())));
    }
    pairs.push(("namespace", name(|owner| &owner.namespace)));
    pairs.push(("pod", name(|owner| &owner.pod)));
    pairs.push(("container", name(|owner| &owner.container)));
    for (name, value) in owner.into_iter().flat_map(|owner| identity_pairs(owner, sources)) {
        // dcgm-exporter shows pod labels under their own names, where the series does not have one of that name already.
        let name = name.strip_prefix("label_").unwrap_or(name);
        if pairs.iter().all(|(taken, _)| *taken != name) {
            pairs.push((name, value));
        }
    }
    labelled(pairs.into_iter())
}

pub(super) fn labelled<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> Metric {
    let mut metric = Metric::default();
    add(&mut metric, pairs);
    metric
}

/// Further labels.
pub(super) fn add<'a>(metric: &mut Metric, pairs: impl Iterator<Item = (&'a str, String)>) {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    let mut labels = metric.take_label();
    labels.extend(pairs.map(pair));
    metric.set_label(labels);
}
