//! The label sets of the page's series: ours, and DCGM's. Each is made once per page.

use std::sync::Arc;

use super::{InstanceRow, Sources};
use crate::families::{GpuRow, ShareRow};
use crate::gpu::{Identity, MigInstance};
use crate::pods::Owner;

/// Longest value of a label, in bytes. Names in Kubernetes have at most 253; anything longer is a mistake or an attack on the reader's memory.
const LABEL_MAX: usize = 512;
/// Room that most label sets fit into, in bytes.
const USUAL: usize = 256;

/// Labels that single series of DCGM's add to the GPU's. A label twice in a series spoils the whole page for its reader, and a pod says nothing of its GPU.
const DCGM_FURTHER: [&str; 8] =
    ["err_code", "err_msg", "window_size_in_ms", "xid", "clock_event", "GPU_I_PROFILE", "GPU_I_ID", "hpc_job"];
/// Labels of whoever scrapes: a reader that keeps a page's labels would take a pod's word for where it was scraped.
const OF_TARGETS: [&str; 2] = ["job", "instance"];

/// Labels as they stand on the page.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    /// From the opening brace to the last value, without the closing brace; empty without labels.
    text: String,
    /// Whether every value has a length that a reader should be asked to keep.
    pub(super) fit: bool,
}

impl Labels {
    /// None.
    pub(super) fn new() -> Self {
        Self { text: String::with_capacity(USUAL), fit: true }
    }

    /// One more.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.fit &= value.len() <= LABEL_MAX;
        self.text.push(if self.text.is_empty() { '{' } else { ',' });
        self.text.push_str(name);
        self.text.push_str("=\"");
        if value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
            self.text.push_str(&value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
        } else {
            self.text.push_str(value);
        }
        self.text.push('"');
        self
    }

    /// Whether one has this name. What only looks like one, inside a value, counts too: better a label less than one twice.
    fn has(&self, name: &str) -> bool {
        [b'{', b','].iter().any(|&before| self.text.contains(&format!("{}{name}=\"", char::from(before))))
    }

    /// Further ones.
    pub(super) fn with_all(self, pairs: &[(&str, String)]) -> Self {
        pairs.iter().fold(self, |labels, (name, value)| labels.with(name, value))
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
    let identity = &row.gpu.gpu.identity;
    Labels::new()
        .with("gpu", &identity.index.to_string())
        .with("uuid", &identity.uuid)
        .with("model", identity.model.as_deref().unwrap_or_default())
        .with("node", node)
}

pub(super) fn instance_labels(row: &InstanceRow<'_>, node: &str) -> Labels {
    let instance = row.instance;
    Labels::new()
        .with("gpu", &row.gpu.gpu.identity.index.to_string())
        .with("uuid", &instance.uuid)
        .with("mig_profile", &instance.profile)
        .with("gpu_instance", &instance.gpu_instance.map_or_else(String::new, |id| id.to_string()))
        .with("node", node)
}

pub(super) fn share_labels(row: &ShareRow<'_>, sources: &Sources<'_>) -> Labels {
    let identity = &row.gpu.gpu.identity;
    let owner = &row.share.owner;
    let labels = Labels::new()
        .with("namespace", &owner.namespace)
        .with("pod", &owner.pod)
        .with("container", &owner.container)
        .with("gpu", &identity.index.to_string())
        .with("uuid", row.instance.map_or(&identity.uuid, |instance| &instance.uuid))
        .with("mig_profile", row.instance.map_or("", |instance| &instance.profile))
        .with("node", sources.node);
    identity_labels(owner, sources).iter().fold(labels, |labels, (name, value)| labels.with(name, value))
}

/// The labels of a pod's identity.
fn identity_labels<'a>(owner: &Owner, sources: &Sources<'a>) -> &'a [(Arc<str>, Arc<str>)] {
    sources.identities.of(owner).map(|identity| identity.labels.as_slice()).unwrap_or_default()
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
    let mut labels = Labels::new()
        .with("gpu", &identity.index.to_string())
        .with("UUID", &identity.uuid)
        .with("pci_bus_id", identity.pci_bus_id.as_deref().unwrap_or_default())
        .with("device", &identity.minor.map_or_else(String::new, |minor| format!("nvidia{minor}")))
        .with("modelName", identity.model.as_deref().unwrap_or_default())
        // dcgm-exporter has changed from one to the other: rules and dashboards select on both.
        .with("Hostname", sources.node)
        .with("hostname", sources.node);
    let driver = sources.snapshot.driver_version.as_deref();
    for label in &sources.choice.labels {
        if let Some(value) = label.of(identity, driver) {
            labels = labels.with(label.name, &value);
        }
    }
    if let Some(instance) = instance {
        let id = instance.gpu_instance.map_or_else(String::new, |id| id.to_string());
        labels = labels.with("GPU_I_PROFILE", &instance.profile).with("GPU_I_ID", &id);
    }
    let instance = instance.and_then(|instance| instance.gpu_instance);
    if let Some(job) = sources.own.jobs.and_then(|jobs| jobs.alone(identity.index, instance)) {
        labels = labels.with("hpc_job", job);
    }
    let owner = share.map(|row| &row.share.owner);
    let name = |field: fn(&Owner) -> &str| owner.map_or("", |owner| field(owner));
    labels = labels
        .with("namespace", name(|owner| &owner.namespace))
        .with("pod", name(|owner| &owner.pod))
        .with("container", name(|owner| &owner.container));
    for (name, value) in owner.map(|owner| identity_labels(owner, sources)).unwrap_or_default() {
        // dcgm-exporter shows pod labels under their own names: where that is a name, and nobody else's.
        let fits = |own: &&str| own.starts_with(|first: char| first.is_ascii_alphabetic()) && !OF_TARGETS.contains(own);
        let own = name.strip_prefix("label_").filter(fits);
        let name = own.unwrap_or(name);
        if !labels.has(name) && !DCGM_FURTHER.contains(&name) {
            labels = labels.with(name, value);
        }
    }
    labels
}
