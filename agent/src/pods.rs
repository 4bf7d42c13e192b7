//! Who holds which device, as the kubelet tells it: containers, device ids in all their forms, and the lookup from a GPU to its holders.
//! Pure values; the sockets are in `pods/kubelet.rs` and `pods/kubelet/pods.rs`, processes are in `pods/processes.rs`.
//!
//! The kubelet's PodResources names pods and containers but neither uids nor container ids, and a process tells only those two
//! (`/proc/PID/cgroup`). For a GPU with one holder no join is needed. For a shared one the join is made from what is known on the node:
//!
//! 0. the kubelet's Pods API, or an informer, where there is one (`pods/identity.rs`): container id and pod uid -> names, exact.
//! 1. `<host-logs>/containers/<pod>_<namespace>_<container>-<container id>.log`: container id -> (namespace, pod, container), exact.
//! 2. else `<host-logs>/pods/<namespace>_<pod>_<uid>/`: pod uid -> (namespace, pod), and the container is the only one of that pod which holds the device.
//! 3. else the device manager's checkpoint: pod uid -> container -> device ids, matched with the PodResources entry that holds the same ids.
//!
//! A process that no step can name stays unknown: its use is shown as unattributed and never spread over the holders.

pub mod cgroup;
pub mod checkpoint;
pub mod device;
pub mod identity;
pub mod kubelet;
pub mod poll;
pub mod processes;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use self::device::{Device, claimed, device, partition_profile};
use crate::gpu::{Identity, MigInstance};

/// A container, by the names that people and Prometheus use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Owner {
    /// Namespace of the pod.
    pub namespace: Arc<str>,
    /// Name of the pod.
    pub pod: Arc<str>,
    /// Name of the container.
    pub container: Arc<str>,
}

/// One device id that the kubelet gave to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Who got it.
    pub owner: Arc<Owner>,
    /// The id as the device plugin made it, replica suffix included; or the name of a claimed device.
    pub device_id: Box<str>,
    /// Whether it came by a claim (DRA) and not through a device plugin.
    pub claimed: bool,
}

/// The kubelet's answer, indexed by device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    by_uuid: BTreeMap<Box<str>, Vec<Arc<Owner>>>,
    /// Those that are not named by a uuid: there are none as a rule.
    by_device: BTreeMap<Device, Vec<Arc<Owner>>>,
    /// Everything that was given out, ids as they came: the other half of the checkpoint join.
    pub assignments: Vec<Assignment>,
    /// Ids in forms that we do not know.
    pub unknown_ids: usize,
    /// Containers by pod uid, out of the checkpoint.
    pub names: checkpoint::Names,
}

impl Holders {
    /// Indexes assignments. A container that holds several replicas of a device holds it once.
    #[must_use]
    pub fn new(assignments: Vec<Assignment>) -> Self {
        let mut holders = Self::default();
        for Assignment { owner, device_id, claimed: by_claim } in &assignments {
            let understood = if *by_claim { claimed(device_id) } else { device(device_id) };
            let owners = match understood {
                Some(Device::Uuid(uuid)) => holders.by_uuid.entry(uuid).or_default(),
                Some(device) => holders.by_device.entry(device).or_default(),
                None => {
                    holders.unknown_ids += 1;
                    continue;
                }
            };
            owners.push(Arc::clone(owner));
        }
        for owners in holders.by_uuid.values_mut().chain(holders.by_device.values_mut()) {
            owners.sort_unstable();
            owners.dedup();
        }
        holders.assignments = assignments;
        holders
    }

    /// Containers that hold the whole GPU or replicas of it, in order of name.
    #[must_use]
    pub fn of_gpu(&self, gpu: &Identity) -> Vec<Arc<Owner>> {
        self.gather(&gpu.uuid, || [gpu.minor.map(|minor| Device::Minor { minor, gpu_instance: None })])
    }

    /// Containers that hold a MIG instance or replicas of it, in order of name.
    #[must_use]
    pub fn of_instance(&self, gpu: &Identity, instance: &MigInstance) -> Vec<Arc<Owner>> {
        self.gather(&instance.uuid, || {
            let legacy =
                instance.gpu_instance.zip(instance.compute_instance).map(|(gpu_instance, compute_instance)| {
                    Device::Instance { parent: (*gpu.uuid).into(), gpu_instance, compute_instance }
                });
            let minor = gpu.minor.zip(instance.gpu_instance);
            [legacy, minor.map(|(minor, instance)| Device::Minor { minor, gpu_instance: Some(instance) })]
        })
    }

    /// Whether a MIG device is held by a claim.
    #[must_use]
    pub fn has_claims(&self) -> bool {
        self.by_device.keys().any(|device| matches!(device, Device::Partition { .. }))
    }

    /// Claimed MIG devices of a GPU with this profile, in order of placement; each with its holders.
    #[must_use]
    pub fn of_partitions(&self, gpu: &Identity, profile: &str) -> Vec<(u32, &[Arc<Owner>])> {
        let wanted = partition_profile(profile);
        let fits = |device: &Device| match device {
            Device::Partition { minor, profile, placement, .. } => {
                (Some(*minor) == gpu.minor && **profile == *wanted).then_some(*placement)
            }
            _ => None,
        };
        self.by_device.iter().filter_map(|(device, owners)| Some((fits(device)?, owners.as_slice()))).collect()
    }

    /// Who holds a device by its uuid, and by the other names that it may have.
    fn gather<const N: usize>(&self, uuid: &str, names: impl FnOnce() -> [Option<Device>; N]) -> Vec<Arc<Owner>> {
        let mut owners = self.by_uuid.get(uuid).cloned().unwrap_or_default();
        if !self.by_device.is_empty() {
            let names = names();
            let by_name = names.iter().flatten().filter_map(|device| self.by_device.get(device));
            owners.extend(by_name.flatten().cloned());
            owners.sort_unstable();
            owners.dedup();
        }
        owners
    }
}

/// To whom a process belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// A container that could be named.
    Container(Arc<Owner>),
    /// In no pod: the node's own.
    Host,
    /// NVIDIA's MPS server by its name: what it does, it does for its clients, wherever it runs. With the container that it runs in, since
    /// any process can give itself that name.
    MpsServer(Option<Arc<Owner>>),
    /// In a pod that could not be named, gone, or not readable.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(pod: &str, container: &str) -> Arc<Owner> {
        Arc::new(Owner { namespace: "ml".into(), pod: pod.into(), container: container.into() })
    }

    #[test]
    fn a_container_with_several_replicas_holds_the_gpu_once() {
        let give = |owner: &Arc<Owner>, id: &str| Assignment {
            owner: Arc::clone(owner),
            device_id: id.into(),
            claimed: false,
        };
        let (a, b) = (owner("a", "main"), owner("b", "main"));
        let holders =
            Holders::new(vec![give(&b, "GPU-1::4"), give(&a, "GPU-1::0"), give(&a, "GPU-1::1"), give(&a, "slot-9")]);
        let gpu = Identity { uuid: "GPU-1".into(), minor: Some(0), ..Identity::default() };
        assert_eq!(holders.of_gpu(&gpu), [a, b]);
        assert_eq!(holders.unknown_ids, 1);
    }

    #[test]
    fn an_instance_is_found_by_each_of_its_names() {
        let gpu = Identity { uuid: "GPU-1".into(), minor: Some(2), ..Identity::default() };
        let instance = MigInstance {
            uuid: "MIG-9".into(),
            gpu_instance: Some(5),
            compute_instance: Some(0),
            ..MigInstance::default()
        };
        for id in ["MIG-9", "MIG-GPU-1/5/0", "nvidia2/gi5", "MIG-9::1", "nvidia2/gi5/vgpu0"] {
            let holders =
                Holders::new(vec![Assignment { owner: owner("a", "main"), device_id: id.into(), claimed: false }]);
            assert_eq!(holders.of_instance(&gpu, &instance), [owner("a", "main")], "{id}");
            assert!(holders.of_gpu(&gpu).is_empty(), "{id}");
        }
    }
}
