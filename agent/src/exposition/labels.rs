//! The label sets of the page's series: ours, and DCGM's. Each is made once per page.

use std::borrow::Cow;

use super::Sources;
use crate::attribution::InstanceUse;
use crate::families::{By, GpuRow, Sample, ShareRow};
use crate::gpu::{Gpu, Identity, MigInstance};
use crate::pods::Owner;

/// Longest value of a label, in bytes. Names in Kubernetes have at most 253; anything longer is a mistake or an attack on the reader's memory.
const LABEL_MAX: usize = 512;

/// Labels as they stand on the page.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    /// From the opening brace to the last value, without the closing brace; empty without labels.
    text: String,
    /// Whether every value has a length that a reader should be asked to keep.
    pub(super) fit: bool,
}

impl Labels {
    pub(super) fn new<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> Self {
        Self { text: String::new(), fit: true }.with(pairs)
    }

    /// Further labels.
    pub(super) fn with<'a>(mut self, pairs: impl Iterator<Item = (&'a str, String)>) -> Self {
        for (name, value) in pairs {
            self.fit &= value.len() <= LABEL_MAX;
            self.text.push(if self.text.is_empty() { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            if value.contains(['\\', '"', '\n']) {
                self.text.push_str(&value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
            } else {
                self.text.push_str(&value);
            }
            self.text.push('"');
        }
        self
    }

    /// Writes them behind a name.
    pub(super) fn write(&self, page: &mut Vec<u8>) {
        page.extend_from_slice(self.text.as_bytes());
        if !self.text.is_empty() {
            page.push(b'}');
        }
    }
}

pub(super) fn gpu_labels(row: &GpuRow<'_>, node: &str) -> Labels {
    Labels::new(gpu_pairs(row, node).into_iter())
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

pub(super) fn share_labels(row: &ShareRow<'_>, sources: &Sources<'_>) -> Labels {
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
    Labels::new(pairs.into_iter().chain(identity_pairs(owner, sources)))
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

pub(super) fn dcgm_labels(
    of: &impl OfGpu,
    share: Option<&ShareRow<'_>>,
    instance: Option<&MigInstance>,
    sources: &Sources<'_>,
) -> Labels {
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
    if let Some(instance) = instance {
        pairs.push(("GPU_I_PROFILE", (*instance.profile).to_owned()));
        pairs.push(("GPU_I_ID", instance.gpu_instance.map_or_else(String::new, |id| id.to_string())));
    }
    let instance = instance.and_then(|instance| instance.gpu_instance);
    if let Some(job) = sources.own.jobs.and_then(|jobs| jobs.alone(identity.index, instance)) {
        pairs.push(("hpc_job", (**job).to_owned()));
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
    Labels::new(pairs.into_iter())
}
