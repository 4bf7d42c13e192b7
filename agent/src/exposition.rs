//! From a snapshot to the text of `/metrics`: pure, and made anew each time, so that gone pods leave nothing behind.
//! Label sets are written once per page and repeated by one family after the other.

pub mod forms;

mod labels;

use std::collections::BTreeSet;
use std::io::Write as _;

use self::labels::{Labels, dcgm_labels, gpu_labels, instance_labels, share_labels};

use crate::attribution::totals::Totals;
use crate::attribution::{GpuUse, InstanceUse, Snapshot};
use crate::families::choice::Choice;
use crate::families::{self, Family, Get, GpuRow, Kind, Own, Sample, ShareRow};
use crate::gpu::{Memory, MigInstance};
use crate::pods::identity::Identities;

/// What a page is made from.
pub struct Sources<'a> {
    /// The tick.
    pub snapshot: &'a Snapshot,
    /// Uids and labels of pods.
    pub identities: &'a Identities,
    /// The counters, advanced to the tick.
    pub totals: &'a Totals,
    /// Time of the reading, seconds since 1970.
    pub time: f64,
    /// The `node` label.
    pub node: &'a str,
    /// The DCGM families, with their names.
    pub choice: &'a Choice,
    /// The agent about itself.
    pub own: &'a Own<'a>,
    /// Most series that the page may have.
    pub series_max: usize,
}

/// A rendered page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Prometheus text format 0.0.4.
    pub text: Vec<u8>,
    /// Series on it.
    pub series: usize,
    /// Series that did not get on it.
    pub dropped: Dropped,
}

/// Series that are not on a page, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The page was full.
    pub max_series: u64,
    /// A label's value was too long.
    pub long_label: u64,
}

impl Dropped {
    /// Counts a further page's.
    pub fn add(&mut self, other: Self) {
        self.max_series += other.max_series;
        self.long_label += other.long_label;
    }
}

/// Renders into the buffer of a page that nobody reads any more, or into a new one.
#[must_use]
pub fn render(sources: &Sources<'_>, mut buffer: Vec<u8>) -> Page {
    buffer.clear();
    let rows = Rows::new(sources);
    let mut page = Page { text: buffer, ..Page::default() };
    let native = families::native().map(|family| (family, family.name, family.kind, family.help));
    let dcgm = sources.choice.shown.iter().map(|shown| (shown.family, &*shown.name, shown.kind, &*shown.help));
    for (family, name, kind, help) in native.chain(dcgm) {
        let mut block = Block { page: &mut page, series_max: sources.series_max, name, kind, help, begun: false };
        rows.write(family, sources.own, &mut block);
    }
    page
}

/// One family on its way to the page. What is said about it is written with its first series.
struct Block<'a> {
    page: &'a mut Page,
    series_max: usize,
    name: &'a str,
    kind: Kind,
    help: &'a str,
    begun: bool,
}

impl Block<'_> {
    /// A series, unless the page is full or a label is too long.
    fn series(&mut self, labels: &Labels, value: f64) {
        if !labels.fit {
            self.page.dropped.long_label += 1;
            return;
        }
        if self.page.series >= self.series_max {
            self.page.dropped.max_series += 1;
            return;
        }
        self.page.series += 1;
        if !std::mem::replace(&mut self.begun, true) {
            self.head();
        }
        let text = &mut self.page.text;
        text.extend_from_slice(self.name.as_bytes());
        labels.write(text);
        text.push(b' ');
        // What serde_json writes numbers with too; `fmt` takes several times as long.
        let mut digits = zmij::Buffer::new();
        let value = digits.format(value);
        text.extend_from_slice(value.strip_suffix(".0").unwrap_or(value).as_bytes());
        text.push(b'\n');
    }

    fn head(&mut self) {
        let (text, name, kind) = (&mut self.page.text, self.name, self.kind.word());
        let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _written = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A series for each value that there is; label sets and values in the same order.
    fn each<'l>(&mut self, labels: impl IntoIterator<Item = &'l Labels>, values: impl Iterator<Item = Option<f64>>) {
        for (labels, value) in labels.into_iter().zip(values) {
            if let Some(value) = value {
                self.series(labels, value);
            }
        }
    }

    /// Series with labels of their own.
    fn samples(&mut self, samples: impl IntoIterator<Item = Sample>) {
        for (pairs, value) in samples {
            self.series(&Labels::new().with_all(&pairs), value);
        }
    }
}

/// One MIG instance.
struct InstanceRow<'a> {
    gpu: &'a GpuUse,
    instance: &'a MigInstance,
    rest: &'a InstanceUse,
}

/// All rows with their label sets.
struct Rows<'a> {
    gpus: Vec<GpuRow<'a>>,
    shares: Vec<ShareRow<'a>>,
    instances: Vec<InstanceRow<'a>>,
    gpu: Vec<Labels>,
    share: Vec<Labels>,
    instance: Vec<Labels>,
    dcgm_gpu: Vec<Labels>,
    dcgm_share: Vec<Labels>,
    dcgm_rest: Vec<Labels>,
    /// GPU instances that nobody holds, with DCGM's labels.
    free: Vec<(&'a MigInstance, Labels)>,
}

impl<'a> Rows<'a> {
    fn new(sources: &Sources<'a>) -> Self {
        let Sources { snapshot, totals, time, .. } = *sources;
        let gpus: Vec<GpuRow<'a>> = snapshot
            .gpus
            .iter()
            .map(|gpu| GpuRow { gpu, total: totals.of_gpu(&gpu.gpu.identity.uuid), time })
            .collect();
        let shares: Vec<ShareRow<'a>> = snapshot
            .shares
            .iter()
            .enumerate()
            .filter_map(|(at, share)| {
                let gpu = snapshot.gpus.get(share.gpu)?;
                let instance = share.instance.and_then(|index| gpu.gpu.mig.as_ref()?.get(index));
                Some(ShareRow { share, gpu, instance, total: totals.of(at) })
            })
            .collect();
        let instances: Vec<InstanceRow<'a>> = snapshot.gpus.iter().flat_map(instances).collect();
        Self {
            gpu: gpus.iter().map(|row| gpu_labels(row, sources.node)).collect(),
            share: shares.iter().map(|row| share_labels(row, sources)).collect(),
            instance: instances.iter().map(|row| instance_labels(row, sources.node)).collect(),
            dcgm_gpu: gpus
                .iter()
                .enumerate()
                .map(|(at, row)| dcgm_labels(row, holder(&shares, at), None, sources))
                .collect(),
            dcgm_share: shares.iter().map(|row| dcgm_labels(row, Some(row), row.instance, sources)).collect(),
            dcgm_rest: gpus.iter().map(|row| dcgm_labels(row, None, None, sources)).collect(),
            free: free(&gpus, &shares)
                .map(|(row, instance)| (instance, dcgm_labels(row, None, Some(instance), sources)))
                .collect(),
            gpus,
            shares,
            instances,
        }
    }

    /// Writes a family's series.
    fn write(&self, family: &Family, own: &Own<'_>, block: &mut Block<'_>) {
        let Self { gpus, shares, instances, .. } = self;
        match family.get {
            Get::Gpu(get) => block.each(&self.gpu, gpus.iter().map(get)),
            Get::GpuBy { label, get } => {
                for (row, labels) in gpus.iter().zip(&self.gpu) {
                    for (word, value) in get(row) {
                        block.series(&labels.clone().with(label, &word), value);
                    }
                }
            }
            Get::Instance(get) => block.each(&self.instance, instances.iter().map(|row| get(row.instance))),
            Get::InstanceRest(get) => block.each(&self.instance, instances.iter().map(|row| get(row.rest))),
            Get::Container(get) => block.each(&self.share, shares.iter().map(get)),
            Get::Dcgm { gpu, instance } => {
                block.each(&self.dcgm_gpu, gpus.iter().map(gpu));
                block.each(&self.dcgm_share, shares.iter().map(|row| instance(row.instance?)));
                block
                    .each(self.free.iter().map(|(_, labels)| labels), self.free.iter().map(|(free, _)| instance(free)));
            }
            Get::DcgmMemory(get) => {
                let value = |memory: Option<Memory>| memory.map(|memory| families::mebibytes(get(memory)));
                // The one holder's labels stand on the GPU's own series.
                let beside = |row: &ShareRow<'_>| match row.instance {
                    Some(instance) => value(instance.memory),
                    None if row.gpu.holders == 1 && row.share.held => None,
                    None => value(row.gpu.gpu.memory),
                };
                block.each(&self.dcgm_gpu, gpus.iter().map(|row| value(row.gpu.gpu.memory)));
                block.each(&self.dcgm_share, shares.iter().map(beside));
                let free = self.free.iter().map(|(free, _)| value(free.memory));
                block.each(self.free.iter().map(|(_, labels)| labels), free);
            }
            Get::DcgmShared { share, rest } => {
                // An exclusive GPU has one series, its holder's; the rest appears only where there is a rest.
                let shown = |row: &GpuRow<'_>| rest(row).filter(|value| row.gpu.holders != 1 || *value > 0.0);
                block.each(&self.dcgm_share, shares.iter().map(share));
                block.each(&self.dcgm_rest, gpus.iter().map(shown));
            }
            Get::DcgmBy(get) => {
                for (row, labels) in gpus.iter().zip(&self.dcgm_gpu) {
                    for (pairs, value) in get(row) {
                        block.series(&labels.clone().with_all(&pairs), value);
                    }
                }
            }
            Get::Own(get) => block.samples(get(own)),
        }
    }
}

/// The MIG instances of a GPU.
fn instances(gpu: &GpuUse) -> impl Iterator<Item = InstanceRow<'_>> {
    let all = gpu.gpu.mig.iter().flatten().zip(&gpu.instances);
    all.map(move |(instance, rest)| InstanceRow { gpu, instance, rest })
}

/// One MIG device of each GPU instance in which no container has a share.
fn free<'r, 'a>(
    gpus: &'r [GpuRow<'a>],
    shares: &[ShareRow<'a>],
) -> impl Iterator<Item = (&'r GpuRow<'a>, &'a MigInstance)> {
    let id = |gpu: usize, instance: &MigInstance| Some((gpu, instance.gpu_instance?));
    let mut seen: BTreeSet<_> = shares.iter().filter_map(|row| id(row.share.gpu, row.instance?)).collect();
    let all =
        gpus.iter().enumerate().flat_map(|(at, row)| row.gpu.gpu.mig.iter().flatten().map(move |mig| (at, row, mig)));
    all.filter_map(move |(at, row, instance)| seen.insert(id(at, instance)?).then_some((row, instance)))
}

/// The one share that holds a whole GPU.
fn holder<'r, 'a>(shares: &'r [ShareRow<'a>], gpu: usize) -> Option<&'r ShareRow<'a>> {
    let mut held = shares.iter().filter(|row| row.share.gpu == gpu && row.share.held && row.instance.is_none());
    held.next().filter(|_| held.next().is_none())
}

#[cfg(test)]
mod tests;
