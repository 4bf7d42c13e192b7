//! Who holds which device, as the kubelet tells it: containers, device ids in all their forms, and the lookup from a GPU to its holders.
//! Pure values; the socket is in `pods/kubelet.rs`, processes are in `pods/processes.rs`.
//!
//! The kubelet's PodResources names pods and containers but neither uids nor container ids, and a process tells only those two
//! (`/proc/PID/cgroup`). For a GPU with one holder no join is needed. For a shared one the join is made, without the API server, from what
//! the kubelet writes on the node:
//!
//! 1. `<host-logs>/containers/<pod>_<namespace>_<container>-<container id>.log`: container id -> (namespace, pod, container), exact.
//! 2. else `<host-logs>/pods/<namespace>_<pod>_<uid>/`: pod uid -> (namespace, pod), and the container is the only one of that pod which holds the device.
//! 3. else the device manager's checkpoint: pod uid -> container -> device ids, matched with the PodResources entry that holds the same ids.
//!
//! A process that no step can name stays unknown: its use is shown as unattributed and never spread over the holders.

pub mod cgroup;
pub mod checkpoint;
pub mod kubelet;
pub mod poll;
pub mod processes;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gpu::{Identity, MigInstance};

/// A container, by the names that people and Prometheus use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// The id as the device plugin made it, replica suffix included.
    pub device_id: Box<str>,
}

/// A device id, understood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// `GPU-<uuid>` or `MIG-<uuid>`.
    Uuid(Box<str>),
    /// `MIG-GPU-<uuid>/<gpu instance>/<compute instance>`: MIG before driver R470.
    Instance {
        /// The GPU it is part of.
        parent: Box<str>,
        /// GPU instance id.
        gpu_instance: u32,
        /// Compute instance id.
        compute_instance: u32,
    },
    /// GKE's `nvidia<minor>` and `nvidia<minor>/gi<instance>`.
    Minor {
        /// The n of `/dev/nvidia<n>`.
        minor: u32,
        /// GPU instance id, on a partitioned GPU.
        gpu_instance: Option<u32>,
    },
}

/// Understands a device id. The replica of a shared device (`::3`, `/vgpu3`) is dropped: replicas share one device.
/// `None` for the slot ids of plugins that we do not know; their use is found through processes.
#[must_use]
pub fn device(id: &str) -> Option<Device> {
    let id = id.split_once("::").map_or(id, |(device, _replica)| device);
    if let Some(legacy) = id.strip_prefix("MIG-GPU-") {
        let (uuid, ids) = legacy.split_once('/')?;
        let (gpu_instance, compute_instance) = ids.split_once('/')?;
        return Some(Device::Instance {
            parent: format!("GPU-{uuid}").into(),
            gpu_instance: gpu_instance.parse().ok()?,
            compute_instance: compute_instance.parse().ok()?,
        });
    }
    if id.starts_with("GPU-") || id.starts_with("MIG-") {
        return Some(Device::Uuid(id.into()));
    }
    let mut parts = id.strip_prefix("nvidia")?.split('/');
    let minor = parts.next()?.parse().ok()?;
    let mut gpu_instance = None;
    for part in parts {
        match (part.strip_prefix("gi"), part.strip_prefix("vgpu")) {
            (Some(instance), _) => gpu_instance = Some(instance.parse().ok()?),
            (None, Some(_replica)) => {}
            (None, None) => return None,
        }
    }
    Some(Device::Minor { minor, gpu_instance })
}

/// The kubelet's answer, indexed by device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
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
        for assignment in &assignments {
            let Some(device) = device(&assignment.device_id) else {
                holders.unknown_ids += 1;
                continue;
            };
            let owners = holders.by_device.entry(device).or_default();
            if !owners.contains(&assignment.owner) {
                owners.push(Arc::clone(&assignment.owner));
            }
        }
        for owners in holders.by_device.values_mut() {
            owners.sort_unstable();
        }
        holders.assignments = assignments;
        holders
    }

    /// Containers that hold the whole GPU or replicas of it, in order of name.
    #[must_use]
    pub fn of_gpu(&self, gpu: &Identity) -> Vec<Arc<Owner>> {
        let minor = gpu.minor.map(|minor| Device::Minor { minor, gpu_instance: None });
        self.gather([Some(Device::Uuid((*gpu.uuid).into())), minor])
    }

    /// Containers that hold a MIG instance or replicas of it, in order of name.
    #[must_use]
    pub fn of_instance(&self, gpu: &Identity, instance: &MigInstance) -> Vec<Arc<Owner>> {
        let legacy = instance.gpu_instance.zip(instance.compute_instance).map(|(gpu_instance, compute_instance)| {
            Device::Instance { parent: (*gpu.uuid).into(), gpu_instance, compute_instance }
        });
        let minor = gpu.minor.zip(instance.gpu_instance);
        let minor = minor.map(|(minor, instance)| Device::Minor { minor, gpu_instance: Some(instance) });
        self.gather([Some(Device::Uuid((*instance.uuid).into())), legacy, minor])
    }

    fn gather<const N: usize>(&self, devices: [Option<Device>; N]) -> Vec<Arc<Owner>> {
        let mut owners: Vec<_> =
            devices.iter().flatten().filter_map(|device| self.by_device.get(device)).flatten().cloned().collect();
        owners.sort_unstable();
        owners.dedup();
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
    fn every_form_of_device_id_is_understood() {
        let uuid = |uuid: &str| Some(Device::Uuid(uuid.into()));
        let minor = |minor, gpu_instance| Some(Device::Minor { minor, gpu_instance });
        for (id, expect) in [
            ("GPU-6a1f", uuid("GPU-6a1f")),
            ("GPU-6a1f::0", uuid("GPU-6a1f")),
            ("MIG-77aa::3", uuid("MIG-77aa")),
            (
                "MIG-GPU-6a1f/7/0",
                Some(Device::Instance { parent: "GPU-6a1f".into(), gpu_instance: 7, compute_instance: 0 }),
            ),
            ("MIG-GPU-6a1f/7", None),
            ("nvidia0", minor(0, None)),
            ("nvidia3/gi1", minor(3, Some(1))),
            ("nvidia0/vgpu7", minor(0, None)),
            ("nvidia0/gi2/vgpu1", minor(0, Some(2))),
            ("nvidia", None),
            ("nvidia0/mystery", None),
            ("slot-47", None),
            ("", None),
            ("::", None),
        ] {
            assert_eq!(device(id), expect, "{id}");
        }
    }

    #[test]
    fn a_container_with_several_replicas_holds_the_gpu_once() {
        let give = |owner: &Arc<Owner>, id: &str| Assignment { owner: Arc::clone(owner), device_id: id.into() };
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
            let holders = Holders::new(vec![Assignment { owner: owner("a", "main"), device_id: id.into() }]);
            assert_eq!(holders.of_instance(&gpu, &instance), [owner("a", "main")], "{id}");
            assert!(holders.of_gpu(&gpu).is_empty(), "{id}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(id in ".*") {
            let _parsed = device(&id);
        }
    }
}
