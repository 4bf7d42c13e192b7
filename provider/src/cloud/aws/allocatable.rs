//! What a machine of a type leaves for pods once it is a node of EKS: pods by the rules of the VPC CNI, reservations by
//! those of the images. Values only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::types::InstanceType;
use crate::fleet::group::Shape;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What hypervisor, firmware and kernel keep of the memory a type is sold with, in thousandths. It differs by type and
/// image and no API tells it; this is Karpenter's default (`VM_MEMORY_OVERHEAD_PERCENT`), and seldom too little.
const MEMORY_KEPT: u64 = 75;
/// The kubelet's `evictionHard` for memory, on every image of EKS.
const EVICTION_MEMORY: u64 = 100 * MIB;
/// The kubelet's `evictionHard` for the disk (`nodefs.available`), one part in so many.
const EVICTION_DISK: u64 = 10;
/// `kubeReserved` for the disk, on every image of EKS.
const RESERVED_DISK: u64 = GIB;
/// The data volume of an image when nothing says otherwise.
const VOLUME: u64 = 20 * GIB;
/// What partition table and file system keep of a root volume of Amazon Linux: 20 GiB show as 20959212 KiB.
const FILE_SYSTEM: u64 = 12_308 * KIB;
/// The same on Bottlerocket's data volume, in thousandths.
const FILE_SYSTEM_BOTTLEROCKET: u64 = 17;
/// Pods that EKS allows on small and on large machines where it decides itself, or where addresses come by prefix.
const PODS_ALLOWED: (u32, u32) = (110, 250);
/// A machine is large with more CPUs than this.
const LARGE: u64 = 30;
/// Addresses in a prefix.
const PREFIX: u32 = 16;

/// What runs on the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Family {
    /// AL2 and AL2023; Ubuntu's images for EKS follow them.
    #[default]
    AmazonLinux,
    /// Bottlerocket.
    Bottlerocket,
    /// Windows.
    Windows,
}

/// How a group sets up its machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) family: Family,
    /// `maxPods`, where someone wrote it down.
    pub(super) max_pods: Option<u32>,
    /// The CNI hands out prefixes instead of single addresses.
    pub(super) prefixes: bool,
    /// A managed node group without an image of its own: EKS computes `maxPods`.
    pub(super) managed: bool,
    /// Bytes of the volume that pods' data is on.
    pub(super) volume: Option<u64>,
    /// Pods' data is on the local disks instead.
    pub(super) on_local_disks: bool,
}

/// The shape of a node on this type.
pub(super) fn shape(of: &InstanceType, host: &Host) -> Shape {
    let pods = pods(of, host);
    // nodeadm counts reservations by the addresses, whatever maxPods says; Bottlerocket by maxPods.
    let counted = if host.family == Family::Bottlerocket { pods } else { of.eni_pods };
    let memory = of.memory - of.memory / 1000 * MEMORY_KEPT;
    let storage = storage(of, host);
    let cores = (of.neuron_cores > 0).then(|| ("aws.amazon.com/neuroncore".to_owned(), u64::from(of.neuron_cores)));
    Shape {
        instance_type: of.name.clone(),
        arch: of.arch.clone(),
        cpu_milli: of.vcpus * 1000,
        memory,
        ephemeral_storage: storage,
        pods,
        reserved_cpu_milli: reserved_cpu_milli(of.vcpus).min(of.vcpus * 1000),
        reserved_memory: (reserved_memory(counted) + EVICTION_MEMORY).min(memory),
        reserved_ephemeral_storage: (RESERVED_DISK + storage / EVICTION_DISK).min(storage),
        gpus: of.gpus.clone(),
        extended: cores.into_iter().collect::<BTreeMap<_, _>>(),
    }
}

fn pods(of: &InstanceType, host: &Host) -> u32 {
    if let Some(pods) = host.max_pods {
        return pods;
    }
    if host.family == Family::Windows {
        return PODS_ALLOWED.0;
    }
    let by_prefix = host.prefixes && of.nitro;
    let addresses = match by_prefix {
        true => of.eni_pods.saturating_sub(2).saturating_mul(PREFIX).saturating_add(2),
        false => of.eni_pods,
    };
    let allowed = if of.vcpus > LARGE { PODS_ALLOWED.1 } else { PODS_ALLOWED.0 };
    if by_prefix || host.managed { addresses.min(allowed) } else { addresses }
}

/// `kubeReserved` for CPU: 6 % of the first, 1 % of the second, 0.5 % of the next two, 0.25 % of the others.
/// Source: nodeadm and Bottlerocket, which do the same sum.
fn reserved_cpu_milli(vcpus: u64) -> u64 {
    let milli = vcpus * 1000;
    let bands = [(0, 1000, 600), (1000, 2000, 100), (2000, 4000, 50), (4000, u64::MAX, 25)];
    let band = |(from, to, share): (u64, u64, u64)| milli.min(to).saturating_sub(from) * share / 10_000;
    bands.into_iter().map(band).sum()
}

/// `kubeReserved` for memory: 255 MiB and 11 MiB for each pod. Source: as above.
fn reserved_memory(pods: u32) -> u64 {
    (255 + 11 * u64::from(pods)) * MIB
}

fn storage(of: &InstanceType, host: &Host) -> u64 {
    if host.on_local_disks && of.local_storage > 0 {
        return of.local_storage;
    }
    let volume = host.volume.unwrap_or(VOLUME);
    match host.family {
        Family::Bottlerocket => volume - volume / 1000 * FILE_SYSTEM_BOTTLEROCKET,
        Family::AmazonLinux | Family::Windows => volume.saturating_sub(FILE_SYSTEM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::types::shipped;

    fn of(name: &str, host: &Host) -> Shape {
        shape(&shipped(name).unwrap(), host)
    }

    // in-tree: allocatable equals capacity.
    #[test]
    fn reservations_are_those_of_eks_images() {
        let shape = of("g5.xlarge", &Host::default());
        assert_eq!((shape.cpu_milli, shape.reserved_cpu_milli), (4000, 80));
        assert_eq!(shape.reserved_memory, (255 + 11 * 58 + 100) * MIB);
        assert_eq!(shape.ephemeral_storage, 20_959_212 * KIB);
        assert_eq!(shape.reserved_ephemeral_storage, GIB + 20_959_212 * KIB / 10);
        assert_eq!(of("p5.48xlarge", &Host::default()).reserved_cpu_milli, 550);
    }

    // in-tree: 110 pods on every machine.
    #[test]
    fn most_pods_follow_the_addresses_and_the_prefixes() {
        let host = |prefixes, managed| Host { prefixes, managed, ..Host::default() };
        for (name, host, expected) in [
            ("g5.xlarge", host(false, false), 58),
            ("g5.xlarge", host(true, false), 110),
            ("p4d.24xlarge", host(false, false), 737),
            ("p4d.24xlarge", host(false, true), 250),
            ("p4d.24xlarge", host(true, true), 250),
            ("p3.2xlarge", host(true, false), 58),
            ("g4ad.xlarge", host(true, false), 98),
            ("g5.xlarge", Host { max_pods: Some(29), ..host(true, true) }, 29),
        ] {
            assert_eq!(of(name, &host).pods, expected, "{name} {host:?}");
        }
    }

    #[test]
    fn bottlerocket_reserves_by_its_most_pods_and_keeps_data_on_its_second_volume() {
        let host = Host { family: Family::Bottlerocket, max_pods: Some(110), ..Host::default() };
        let shape = of("g5.xlarge", &Host { volume: Some(100 * GIB), ..host });
        assert_eq!(shape.reserved_memory, (255 + 11 * 110 + 100) * MIB);
        assert_eq!(shape.ephemeral_storage, 100 * GIB - 100 * GIB / 1000 * 17);
    }

    #[test]
    fn local_disks_take_the_place_of_the_volume_where_asked() {
        let mut p4d = shipped("p4d.24xlarge").unwrap();
        p4d.local_storage = 8_000_000_000_000;
        let host = Host { on_local_disks: true, ..Host::default() };
        assert_eq!(shape(&p4d, &host).ephemeral_storage, 8_000_000_000_000);
        assert_eq!(of("g5.xlarge", &host).ephemeral_storage, 20_959_212 * KIB);
    }

    #[test]
    fn neuron_cores_stand_beside_their_devices() {
        let shape = of("inf2.48xlarge", &Host::default());
        assert_eq!((shape.gpus.unwrap().count, shape.extended["aws.amazon.com/neuroncore"]), (12, 24));
    }
}
