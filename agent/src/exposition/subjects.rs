//! What a page is about, without any value. Names, helps and label sets are made from this and from nothing else: while it stays as it is, they do, and a
//! series differs from the one in its place on an earlier page by its value alone.

use std::sync::Arc;

use super::Sources;
use crate::attribution::GpuUse;
use crate::families::choice::Choice;
use crate::gpu::{Identity, MigInstance};
use crate::jobs::Jobs;
use crate::pods::Owner;
use crate::pods::identity::Identities;

/// All of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Subjects {
    /// The `node` label.
    pub(super) node: Box<str>,
    /// Version of the kernel driver.
    pub(super) driver_version: Option<Arc<str>>,
    /// The DCGM families, with their names, helps and labels.
    pub(super) choice: Arc<Choice>,
    /// Uids and labels of pods.
    pub(super) identities: Arc<Identities>,
    /// In the snapshot's order.
    pub(super) gpus: Vec<Gpu>,
    /// In the snapshot's order.
    pub(super) shares: Vec<Share>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gpu {
    /// Who it is.
    pub(super) identity: Arc<Identity>,
    /// The job that has it for itself.
    pub(super) job: Option<Arc<str>>,
    /// Its MIG instances.
    pub(super) instances: Vec<Instance>,
}

/// One MIG instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Instance {
    pub(super) uuid: Arc<str>,
    pub(super) profile: Arc<str>,
    pub(super) gpu_instance: Option<u32>,
    /// The job that has it for itself.
    pub(super) job: Option<Arc<str>>,
}

/// What a container has of a device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    pub(super) owner: Arc<Owner>,
    /// Position among the GPUs.
    pub(super) gpu: usize,
    /// Position among the GPU's instances.
    pub(super) instance: Option<usize>,
    /// Whether the kubelet gave the device to the container.
    pub(super) held: bool,
}

impl Subjects {
    /// Those of a page.
    pub(super) fn of(sources: &Sources<'_>) -> Self {
        let Sources { snapshot, identities, node, choice, own, .. } = *sources;
        let share = |share: &crate::attribution::Share| Share {
            owner: Arc::clone(&share.owner),
            gpu: share.gpu,
            instance: share.instance,
            held: share.held,
        };
        Self {
            node: node.into(),
            driver_version: snapshot.driver_version.clone(),
            choice: Arc::clone(choice),
            identities: Arc::clone(identities),
            gpus: snapshot.gpus.iter().map(|gpu| self::gpu(gpu, own.jobs)).collect(),
            shares: snapshot.shares.iter().map(share).collect(),
        }
    }

    /// The GPU of a share, and the instance.
    pub(super) fn place(&self, share: &Share) -> Option<(&Gpu, Option<&Instance>)> {
        let gpu = self.gpus.get(share.gpu)?;
        Some((gpu, share.instance.and_then(|index| gpu.instances.get(index))))
    }
}

fn gpu(of: &GpuUse, jobs: Option<&Jobs>) -> Gpu {
    let identity = &of.gpu.identity;
    let job = |instance| jobs.and_then(|jobs| jobs.alone(identity.index, instance)).cloned();
    let instance = |mig: &MigInstance| Instance {
        uuid: Arc::clone(&mig.uuid),
        profile: Arc::clone(&mig.profile),
        gpu_instance: mig.gpu_instance,
        job: job(mig.gpu_instance),
    };
    Gpu {
        identity: Arc::clone(identity),
        job: job(None),
        instances: of.gpu.mig.iter().flatten().map(instance).collect(),
    }
}
