//! From a snapshot to the text of `/metrics`: pure, through the `prometheus` crate's model and encoder, so that gone pods leave nothing behind.
//! Label sets are made once per page and lent to one family after the other.

pub mod forms;

mod labels;

use self::labels::{add, by, dcgm_labels, gpu_labels, instances, labelled, share_labels};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

use crate::attribution::Snapshot;
use crate::attribution::totals::Totals;
use crate::families::choice::Choice;
use crate::families::{self, Family, Get, GpuRow, Kind, Own, Sample, ShareRow};
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

/// Longest value of a label, in bytes. Names in Kubernetes have at most 253; anything longer is a mistake or an attack on the reader's memory.
const LABEL_MAX: usize = 512;

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

/// Renders. `room` is how large the last page was: it spares growing the buffer.
pub fn render(sources: &Sources<'_>, room: usize) -> prometheus::Result<Page> {
    let mut rows = Rows::new(sources);
    let mut page = Page { text: Vec::with_capacity(room + room / 8), ..Page::default() };
    let native = families::native().map(|family| (family, family.name, family.kind, family.help));
    let dcgm = sources.choice.shown.iter().map(|shown| (shown.family, &*shown.name, shown.kind, &*shown.help));
    for (family, name, kind, help) in native.chain(dcgm) {
        let mut lent = Lent::default();
        rows.lend(family, kind, sources.own, &mut lent);
        page.dropped.long_label += lent.long_label;
        let free = sources.series_max.saturating_sub(page.series);
        if lent.metrics.len() > free {
            let over = lent.metrics.split_off(free);
            page.dropped.max_series += over.len() as u64;
            // The agent's own families come first and hold no slots, so that places are cut where metrics are.
            let places = lent.places.split_off(free.min(lent.places.len()));
            rows.take_back(over, places);
        }
        if lent.metrics.is_empty() {
            continue;
        }
        page.series += lent.metrics.len();
        let mut encoded = MetricFamily::default();
        encoded.set_name(name.to_owned());
        encoded.set_help(help.to_owned());
        encoded.set_field_type(match kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
        });
        encoded.set_metric(lent.metrics);
        TextEncoder::new().encode(std::slice::from_ref(&encoded), &mut page.text)?;
        rows.take_back(encoded.take_metric(), lent.places);
    }
    Ok(page)
}

/// A set of labels that waits for the next family; `None` while it is lent.
type Slot = Option<Metric>;

/// The metrics of one family, and from which slots they came.
#[derive(Default)]
struct Lent {
    metrics: Vec<Metric>,
    places: Vec<(Scope, usize)>,
    long_label: u64,
}

impl Lent {
    /// Takes metrics that have no slot to return to.
    fn gather(&mut self, metrics: impl Iterator<Item = Metric>) {
        for metric in metrics {
            if fits(&metric) {
                self.metrics.push(metric);
            } else {
                self.long_label += 1;
            }
        }
    }
}

/// Which list of slots.
#[derive(Clone, Copy)]
enum Scope {
    Gpu,
    Share,
    DcgmGpu,
    DcgmShare,
    DcgmRest,
}

/// All rows with their label sets.
struct Rows<'a> {
    node: &'a str,
    gpus: Vec<GpuRow<'a>>,
    shares: Vec<ShareRow<'a>>,
    slots: [Vec<Slot>; 5],
}

impl<'a> Rows<'a> {
    fn new(sources: &Sources<'a>) -> Self {
        let Sources { snapshot, totals, time, .. } = *sources;
        let gpus: Vec<GpuRow<'a>> = snapshot
            .gpus
            .iter()
            .map(|gpu| GpuRow { gpu, nobody: totals.of_nobody(&gpu.gpu.identity.uuid), time })
            .collect();
        let shares: Vec<ShareRow<'a>> = snapshot
            .shares
            .iter()
            .filter_map(|share| {
                let gpu = snapshot.gpus.get(share.gpu)?;
                let instance = share.instance.and_then(|index| gpu.gpu.mig.as_ref()?.get(index));
                Some(ShareRow { share, gpu, instance, total: totals.of(snapshot, share) })
            })
            .collect();
        let slots = [
            gpus.iter().map(|row| Some(gpu_labels(row, sources.node))).collect(),
            shares.iter().map(|row| Some(share_labels(row, sources))).collect(),
            gpus.iter().enumerate().map(|(at, row)| Some(dcgm_labels(row, holder(&shares, at), sources))).collect(),
            shares.iter().map(|row| Some(dcgm_labels(row, Some(row), sources))).collect(),
            gpus.iter().map(|row| Some(dcgm_labels(row, None, sources))).collect(),
        ];
        Self { node: sources.node, gpus, shares, slots }
    }

    /// Fills in a family's values and lends the label sets for which there is one.
    fn lend(&mut self, family: &Family, kind: Kind, own: &Own<'_>, lent: &mut Lent) {
        let Self { node, gpus, shares, slots } = self;
        let [gpu, share, dcgm_gpu, dcgm_share, dcgm_rest] = slots;
        let node = *node;
        let metric = |(pairs, value): Sample| {
            let mut metric = labelled(pairs.into_iter());
            set(&mut metric, kind, value);
            metric
        };
        match family.get {
            Get::Gpu(get) => fill(lent, Scope::Gpu, kind, gpu, gpus.iter().map(get)),
            Get::GpuBy { label, get } => {
                lent.gather(gpus.iter().flat_map(|row| by(row, label, get, node)).map(metric));
            }
            Get::Instance(get) => {
                lent.gather(gpus.iter().flat_map(|row| instances(row, |instance, _| get(instance), node)).map(metric));
            }
            Get::InstanceRest(get) => {
                lent.gather(gpus.iter().flat_map(|row| instances(row, |_, rest| get(rest), node)).map(metric));
            }
            Get::Container(get) => fill(lent, Scope::Share, kind, share, shares.iter().map(get)),
            Get::Dcgm { gpu, instance } => {
                fill(lent, Scope::DcgmGpu, kind, dcgm_gpu, gpus.iter().map(gpu));
                fill(lent, Scope::DcgmShare, kind, dcgm_share, shares.iter().map(|row| instance(row.instance?)));
            }
            Get::DcgmShared { share, rest } => {
                // An exclusive GPU has one series, its holder's; the rest appears only where there is a rest.
                let shown = |row: &GpuRow<'_>| rest(row).filter(|value| row.gpu.holders != 1 || *value > 0.0);
                fill(lent, Scope::DcgmShare, kind, dcgm_share, shares.iter().map(share));
                fill(lent, Scope::DcgmRest, kind, dcgm_rest, gpus.iter().map(shown));
            }
            Get::DcgmBy(get) => {
                let with = |(row, slot): (&GpuRow<'_>, &Slot)| {
                    let ((pairs, value), mut metric) = (get(row)?, slot.clone()?);
                    add(&mut metric, pairs.into_iter());
                    set(&mut metric, kind, value);
                    Some(metric)
                };
                lent.gather(gpus.iter().zip(dcgm_gpu.iter()).filter_map(with));
            }
            Get::Own(get) => lent.gather(get(own).into_iter().map(metric)),
        }
    }

    fn take_back(&mut self, metrics: Vec<Metric>, places: Vec<(Scope, usize)>) {
        for (metric, (scope, at)) in metrics.into_iter().zip(places) {
            if let Some(slot) = self.slots.get_mut(scope as usize).and_then(|slots| slots.get_mut(at)) {
                *slot = Some(metric);
            }
        }
    }
}

fn fill(lent: &mut Lent, scope: Scope, kind: Kind, slots: &mut [Slot], values: impl Iterator<Item = Option<f64>>) {
    for (at, (slot, value)) in slots.iter_mut().zip(values).enumerate() {
        let Some(value) = value else { continue };
        let Some(mut metric) = slot.take_if(|metric| fits(metric)) else {
            lent.long_label += 1;
            continue;
        };
        set(&mut metric, kind, value);
        lent.metrics.push(metric);
        lent.places.push((scope, at));
    }
}

/// Whether every label's value has a length that a reader should be asked to keep.
fn fits(metric: &Metric) -> bool {
    metric.get_label().iter().all(|pair| pair.value().len() <= LABEL_MAX)
}

fn set(metric: &mut Metric, kind: Kind, value: f64) {
    match kind {
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
}

/// The one share that holds a whole GPU.
fn holder<'r, 'a>(shares: &'r [ShareRow<'a>], gpu: usize) -> Option<&'r ShareRow<'a>> {
    let mut held = shares.iter().filter(|row| row.share.gpu == gpu && row.share.held && row.instance.is_none());
    held.next().filter(|_| held.next().is_none())
}

#[cfg(test)]
mod tests;
