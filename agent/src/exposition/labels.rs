//! The label sets of the page's series: ours, and DCGM's. They are made from the page's subjects alone, and anew only where those have changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::subjects::{Gpu, Instance, Share, Subjects};
use crate::pods::Owner;

/// Longest value of a label, in bytes. Names in Kubernetes have at most 253; anything longer is a mistake or an attack on the reader's memory.
const LABEL_MAX: usize = 512;
/// Room that most label sets fit into, in bytes.
const USUAL: usize = 512;

/// Labels that single series of DCGM's add to the GPU's. A label twice in a series spoils the whole page for its reader, and a pod says nothing of its GPU.
const DCGM_FURTHER: [&str; 8] =
    ["err_code", "err_msg", "window_size_in_ms", "xid", "clock_event", "GPU_I_PROFILE", "GPU_I_ID", "hpc_job"];
/// Labels of whoever scrapes: a reader that keeps a page's labels would take a pod's word for where it was scraped.
const OF_TARGETS: [&str; 2] = ["job", "instance"];

/// Labels as they stand on the page.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    /// From the opening brace to the last value, without the closing brace; empty without labels.
    text: Vec<u8>,
    /// Whether every value has a length that a reader should be asked to keep.
    fit: bool,
}

impl Labels {
    /// None.
    pub(super) const NONE: Self = Self { text: Vec::new(), fit: true };

    /// To be added to.
    fn new() -> Self {
        Self { text: Vec::with_capacity(USUAL), fit: true }
    }

    /// One more.
    fn with(mut self, name: &str, value: &str) -> Self {
        self.fit &= fits(value);
        let before = if self.text.is_empty() { b'{' } else { b',' };
        write_label(before, name, value, &mut self.text);
        self
    }

    /// Nothing more: no longer than it has to be.
    fn done(mut self) -> Self {
        self.text.shrink_to_fit();
        self
    }

    /// Whether one has this name. What only looks like one, inside a value, counts too: better a label less than one twice.
    fn has(&self, name: &str) -> bool {
        let is_here = |label: String| self.text.windows(label.len()).any(|here| here == label.as_bytes());
        ["{", ","].iter().any(|before| is_here(format!("{before}{name}=\"")))
    }

    /// Whether they, and further ones, have lengths that a reader should be asked to keep.
    pub(super) fn fit(&self, further: &[(&str, impl AsRef<str>)]) -> bool {
        self.fit && further.iter().all(|(_, value)| fits(value.as_ref()))
    }

    /// Writes them and further ones behind a name.
    pub(super) fn write(&self, further: &[(&str, impl AsRef<str>)], page: &mut Vec<u8>) {
        page.extend_from_slice(&self.text);
        let mut before = if self.text.is_empty() { b'{' } else { b',' };
        for (name, value) in further {
            write_label(before, name, value.as_ref(), page);
            before = b',';
        }
        if before == b',' {
            page.push(b'}');
        }
    }
}

fn fits(value: &str) -> bool {
    value.len() <= LABEL_MAX
}

fn write_label(before: u8, name: &str, value: &str, to: &mut Vec<u8>) {
    to.push(before);
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b"=\"");
    if value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        to.extend_from_slice(escaped.as_bytes());
    } else {
        to.extend_from_slice(value.as_bytes());
    }
    to.push(b'"');
}

/// All label sets of a page, in the order of its rows.
#[derive(Debug, Clone, Default)]
pub(super) struct LabelSets {
    pub(super) gpu: Vec<Labels>,
    pub(super) share: Vec<Labels>,
    pub(super) instance: Vec<Labels>,
    pub(super) dcgm_gpu: Vec<Labels>,
    pub(super) dcgm_share: Vec<Labels>,
    pub(super) dcgm_rest: Vec<Labels>,
    pub(super) free: Vec<Labels>,
    /// Which GPU instances those are that nobody holds: positions of GPU and instance.
    pub(super) free_at: Vec<(usize, usize)>,
}

impl LabelSets {
    /// Those of a page about these.
    pub(super) fn of(all: &Subjects) -> Self {
        let dcgm = |gpu, instance, share| dcgm_labels(all, gpu, instance, share);
        let share = |share| all.place(share).map(|place| (share, place));
        let shares = || all.shares.iter().filter_map(share);
        let alone = |(at, gpu)| dcgm(gpu, None, holder(&all.shares, at));
        let free_at = self::free_at(all);
        let free = |(gpu, index): &(usize, usize)| {
            let gpu = all.gpus.get(*gpu)?;
            Some(dcgm(gpu, Some(gpu.instances.get(*index)?), None))
        };
        Self {
            gpu: all.gpus.iter().map(|gpu| gpu_labels(all, gpu)).collect(),
            share: shares().map(|(share, (gpu, instance))| share_labels(all, gpu, instance, share)).collect(),
            instance: all
                .gpus
                .iter()
                .flat_map(|gpu| gpu.instances.iter().map(move |instance| instance_labels(all, gpu, instance)))
                .collect(),
            dcgm_gpu: all.gpus.iter().enumerate().map(alone).collect(),
            dcgm_share: shares().map(|(share, (gpu, instance))| dcgm(gpu, instance, Some(share))).collect(),
            dcgm_rest: all.gpus.iter().map(|gpu| dcgm(gpu, None, None)).collect(),
            free: free_at.iter().filter_map(free).collect(),
            free_at,
        }
    }
}

/// One MIG device of each GPU instance in which no container has a share: positions of GPU and instance.
fn free_at(all: &Subjects) -> Vec<(usize, usize)> {
    let id = |gpu: usize, instance: &Instance| Some((gpu, instance.gpu_instance?));
    let mut seen: BTreeSet<_> = all.shares.iter().filter_map(|share| id(share.gpu, all.place(share)?.1?)).collect();
    let mut free = Vec::new();
    for (at, gpu) in all.gpus.iter().enumerate() {
        for (index, instance) in gpu.instances.iter().enumerate() {
            if id(at, instance).is_some_and(|id| seen.insert(id)) {
                free.push((at, index));
            }
        }
    }
    free
}

/// The one share that holds a whole GPU.
fn holder(shares: &[Share], gpu: usize) -> Option<&Share> {
    let mut held = shares.iter().filter(|share| share.gpu == gpu && share.held && share.instance.is_none());
    held.next().filter(|_| held.next().is_none())
}

fn gpu_labels(all: &Subjects, gpu: &Gpu) -> Labels {
    Labels::new()
        .with("gpu", &gpu.identity.index.to_string())
        .with("uuid", &gpu.identity.uuid)
        .with("model", gpu.identity.model.as_deref().unwrap_or_default())
        .with("node", &all.node)
        .done()
}

fn instance_labels(all: &Subjects, gpu: &Gpu, instance: &Instance) -> Labels {
    Labels::new()
        .with("gpu", &gpu.identity.index.to_string())
        .with("uuid", &instance.uuid)
        .with("mig_profile", &instance.profile)
        .with("gpu_instance", &instance.gpu_instance.map_or_else(String::new, |id| id.to_string()))
        .with("node", &all.node)
        .done()
}

fn share_labels(all: &Subjects, gpu: &Gpu, instance: Option<&Instance>, share: &Share) -> Labels {
    let owner = &share.owner;
    let labels = Labels::new()
        .with("namespace", &owner.namespace)
        .with("pod", &owner.pod)
        .with("container", &owner.container)
        .with("gpu", &gpu.identity.index.to_string())
        .with("uuid", instance.map_or(&gpu.identity.uuid, |instance| &instance.uuid))
        .with("mig_profile", instance.map_or("", |instance| &instance.profile))
        .with("node", &all.node);
    identity_labels(all, owner).iter().fold(labels, |labels, (name, value)| labels.with(name, value)).done()
}

/// The labels of a pod's identity.
fn identity_labels<'a>(all: &'a Subjects, owner: &Owner) -> &'a [(Arc<str>, Arc<str>)] {
    all.identities.of(owner).map(|identity| identity.labels.as_slice()).unwrap_or_default()
}

fn dcgm_labels(all: &Subjects, gpu: &Gpu, instance: Option<&Instance>, share: Option<&Share>) -> Labels {
    let identity = &*gpu.identity;
    let mut labels = Labels::new()
        .with("gpu", &identity.index.to_string())
        .with("UUID", &identity.uuid)
        .with("pci_bus_id", identity.pci_bus_id.as_deref().unwrap_or_default())
        .with("device", &identity.minor.map_or_else(String::new, |minor| format!("nvidia{minor}")))
        .with("modelName", identity.model.as_deref().unwrap_or_default())
        // dcgm-exporter has changed from one to the other: rules and dashboards select on both.
        .with("Hostname", &all.node)
        .with("hostname", &all.node);
    for label in &all.choice.labels {
        if let Some(value) = label.of(identity, all.driver_version.as_deref()) {
            labels = labels.with(label.name, &value);
        }
    }
    if let Some(instance) = instance {
        let id = instance.gpu_instance.map_or_else(String::new, |id| id.to_string());
        labels = labels.with("GPU_I_PROFILE", &instance.profile).with("GPU_I_ID", &id);
    }
    if let Some(job) = instance.map_or(&gpu.job, |instance| &instance.job) {
        labels = labels.with("hpc_job", job);
    }
    let owner = share.map(|share| &*share.owner);
    let name = |field: fn(&Owner) -> &str| owner.map_or("", field);
    labels = labels
        .with("namespace", name(|owner| &owner.namespace))
        .with("pod", name(|owner| &owner.pod))
        .with("container", name(|owner| &owner.container));
    for (name, value) in owner.map(|owner| identity_labels(all, owner)).unwrap_or_default() {
        // dcgm-exporter shows pod labels under their own names: where that is a name, and nobody else's.
        let fits = |own: &&str| own.starts_with(|first: char| first.is_ascii_alphabetic()) && !OF_TARGETS.contains(own);
        let own = name.strip_prefix("label_").filter(fits);
        let name = own.unwrap_or(name);
        if !labels.has(name) && !DCGM_FURTHER.contains(&name) {
            labels = labels.with(name, value);
        }
    }
    labels.done()
}
