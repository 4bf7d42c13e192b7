//! The rows of a page, of which the families' getters make series: GPUs, shares, MIG instances.

use super::Sources;
use super::labels::{LabelSets, Labels};
use super::series::Block;
use crate::attribution::{GpuUse, InstanceUse, Share};
use crate::families::{self, Family, Get, GpuRow, Own, ShareRow};
use crate::gpu::{Memory, MigInstance};

/// All rows, each list in the order of its label sets.
pub(super) struct Rows<'a> {
    gpus: Vec<GpuRow<'a>>,
    shares: Vec<ShareRow<'a>>,
    labels: &'a LabelSets,
}

impl<'a> Rows<'a> {
    /// Those of a page, with the label sets that were made for it.
    pub(super) fn new(sources: &Sources<'a>, labels: &'a LabelSets) -> Self {
        let Sources { snapshot, totals, time, .. } = *sources;
        let gpu = |gpu: &'a GpuUse| GpuRow { gpu, total: totals.of_gpu(&gpu.gpu.identity.uuid), time };
        let share = |(at, share): (usize, &'a Share)| {
            let gpu = snapshot.gpus.get(share.gpu)?;
            let instance = share.instance.and_then(|index| gpu.gpu.mig.as_ref()?.get(index));
            Some(ShareRow { share, gpu, instance, total: totals.of(at) })
        };
        let gpus = snapshot.gpus.iter().map(gpu).collect();
        Self { gpus, shares: snapshot.shares.iter().enumerate().filter_map(share).collect(), labels }
    }

    /// Writes a family's series.
    pub(super) fn write(&self, family: &Family, own: &Own<'_>, block: &mut Block<'_, '_>) {
        let Self { gpus, shares, labels } = self;
        match family.get {
            Get::Gpu(get) => block.each(&labels.gpu, gpus.iter().map(get)),
            Get::GpuBy { label, get } => {
                for (row, labels) in gpus.iter().zip(&labels.gpu) {
                    for (word, value) in get(row) {
                        block.further(labels, &[(label, word)], value);
                    }
                }
            }
            Get::Instance(get) => block.each(&labels.instance, self.instances().map(|(instance, _)| get(instance))),
            Get::InstanceRest(get) => {
                block.each(&labels.instance, self.instances().map(|(_, rest)| rest.and_then(get)));
            }
            Get::Container(get) => block.each(&labels.share, shares.iter().map(get)),
            Get::Dcgm { gpu, instance } => {
                block.each(&labels.dcgm_gpu, gpus.iter().map(gpu));
                block.each(&labels.dcgm_share, shares.iter().map(|row| instance(row.instance?)));
                block.each(&labels.free, self.free().map(|free| instance(free?)));
            }
            Get::DcgmMemory(get) => {
                let value = |memory: Option<Memory>| memory.map(|memory| families::mebibytes(get(memory)));
                // The one holder's labels stand on the GPU's own series.
                let beside = |row: &ShareRow<'_>| match row.instance {
                    Some(instance) => value(instance.memory),
                    None if row.gpu.holders == 1 && row.share.held => None,
                    None => value(row.gpu.gpu.memory),
                };
                block.each(&labels.dcgm_gpu, gpus.iter().map(|row| value(row.gpu.gpu.memory)));
                block.each(&labels.dcgm_share, shares.iter().map(beside));
                block.each(&labels.free, self.free().map(|free| value(free?.memory)));
            }
            Get::DcgmShared { share, rest } => {
                // An exclusive GPU has one series, its holder's; the rest appears only where there is a rest.
                let shown = |row: &GpuRow<'_>| rest(row).filter(|value| row.gpu.holders != 1 || *value > 0.0);
                block.each(&labels.dcgm_share, shares.iter().map(share));
                block.each(&labels.dcgm_rest, gpus.iter().map(shown));
            }
            Get::DcgmBy(get) => {
                for (row, labels) in gpus.iter().zip(&labels.dcgm_gpu) {
                    for (pairs, value) in get(row) {
                        block.further(labels, &pairs, value);
                    }
                }
            }
            Get::Own(get) => {
                for (pairs, value) in get(own) {
                    block.further(&Labels::NONE, &pairs, value);
                }
            }
        }
    }

    /// The MIG instances of all GPUs, each with what of it belongs to nobody.
    fn instances(&self) -> impl Iterator<Item = (&'a MigInstance, Option<&'a InstanceUse>)> {
        self.gpus.iter().flat_map(|row| {
            let rests = row.gpu.instances.iter().map(Some).chain(std::iter::repeat(None));
            row.gpu.gpu.mig.iter().flatten().zip(rests)
        })
    }

    /// The GPU instances that nobody holds.
    fn free(&self) -> impl Iterator<Item = Option<&'a MigInstance>> {
        self.labels.free_at.iter().map(|(gpu, index)| self.gpus.get(*gpu)?.gpu.gpu.mig.as_ref()?.get(*index))
    }
}
