//! What an EC2 instance type offers: as `DescribeInstanceTypes` says, or from a table that is shipped for the time when it
//! does not answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ec2::Page;
use crate::fleet::group::{Gpus, Shape};

mod accelerators;

const TABLE: &str = include_str!("types.csv");
const GIB: u64 = 1 << 30;
/// Families on the Xen hypervisor, which know no prefixes. Source: EC2's word on the hypervisor of each type, 2026-08.
const XEN: [&str; 23] = [
    "c1", "c3", "c4", "d2", "f1", "g2", "g3", "g3s", "h1", "i2", "i3", "m1", "m2", "m3", "m4", "p2", "p3", "r3", "r4",
    "t1", "t2", "x1", "x1e",
];

/// One instance type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct InstanceType {
    pub(super) name: String,
    /// `amd64` or `arm64`.
    pub(super) arch: String,
    pub(super) vcpus: u64,
    /// Bytes that the type is sold with; a kernel sees less.
    pub(super) memory: u64,
    /// Most pods by the VPC CNI, an address each.
    pub(super) eni_pods: u32,
    /// Whether its interfaces take prefixes of addresses.
    pub(super) nitro: bool,
    /// Bytes of local disks.
    pub(super) local_storage: u64,
    pub(super) gpus: Option<Gpus>,
    /// Neuron cores, which the device plugin offers beside the devices.
    pub(super) neuron_cores: u32,
}

/// The type as the shipped table has it.
pub(super) fn shipped(name: &str) -> Option<InstanceType> {
    let row = TABLE.lines().find(|line| line.split(',').next() == Some(name))?;
    parse(row)
}

/// A shape of which nothing is known: the group's own tags are to fill it in.
pub(super) fn unknown(instance_type: &str) -> Shape {
    Shape {
        instance_type: instance_type.to_owned(),
        arch: "amd64".to_owned(),
        cpu_milli: 0,
        memory: 0,
        ephemeral_storage: 20 * GIB,
        pods: 0,
        reserved_cpu_milli: 0,
        reserved_memory: 0,
        reserved_ephemeral_storage: 0,
        gpus: None,
        extended: BTreeMap::new(),
    }
}

fn parse(row: &str) -> Option<InstanceType> {
    let mut cells = row.split(',');
    let mut next = || cells.next();
    let (name, arch) = (next()?.to_owned(), next()?.to_owned());
    let mut number = || next()?.parse::<u64>().ok();
    let (vcpus, memory, eni_pods) = (number()?, number()?.checked_mul(GIB)?, u32::try_from(number()?).ok()?);
    let gpus = gpus(&mut cells);
    let family = name.split('.').next().unwrap_or_default();
    Some(InstanceType {
        nitro: !XEN.contains(&family),
        neuron_cores: accelerators::cores(gpus.as_ref()),
        name,
        arch,
        vcpus,
        memory,
        eni_pods,
        local_storage: 0,
        gpus,
    })
}

fn gpus<'a>(cells: &mut impl Iterator<Item = &'a str>) -> Option<Gpus> {
    let resource = cells.next().filter(|resource| !resource.is_empty())?.to_owned();
    let model = cells.next()?.to_owned();
    let count = cells.next()?.parse().ok()?;
    let memory_mib = cells.next()?.parse().ok()?;
    Some(Gpus { model, count, memory_mib, resource })
}

/// One page of `DescribeInstanceTypes`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Described {
    #[serde(default)]
    instance_type_set: Items<Answer>,
    next_token: Option<String>,
}

/// How EC2 writes a list.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub(super) struct Items<T> {
    #[serde(default = "Vec::new")]
    pub(super) item: Vec<T>,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self { item: Vec::new() }
    }
}

impl Page for Described {
    type Item = InstanceType;

    fn split(self) -> (Vec<InstanceType>, Option<String>) {
        (self.instance_type_set.item.into_iter().map(Answer::read).collect(), self.next_token)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    instance_type: String,
    #[serde(default)]
    hypervisor: String,
    #[serde(default)]
    bare_metal: bool,
    #[serde(default)]
    processor_info: Processor,
    #[serde(default)]
    v_cpu_info: Vcpus,
    #[serde(default)]
    memory_info: Memory,
    #[serde(default)]
    instance_storage_info: Storage,
    #[serde(default)]
    network_info: Network,
    #[serde(default)]
    gpu_info: accelerators::GpuInfo,
    #[serde(default)]
    neuron_info: accelerators::NeuronInfo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Processor {
    supported_architectures: Items<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Vcpus {
    default_v_cpus: u64,
}

/// Of a machine or of a device.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    #[serde(rename = "sizeInMiB")]
    size_in_mib: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Storage {
    #[serde(rename = "totalSizeInGB")]
    total_size_in_gb: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Network {
    maximum_network_interfaces: u32,
    ipv4_addresses_per_interface: u32,
    default_network_card_index: u32,
    network_cards: Items<Card>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Card {
    network_card_index: u32,
    maximum_network_interfaces: u32,
}

impl Network {
    /// As the CNI counts: addresses of the default network card's interfaces, less one each, and two pods on the
    /// host's network.
    fn pods(&self) -> u32 {
        let card = self.network_cards.item.iter().find(|it| it.network_card_index == self.default_network_card_index);
        let interfaces = card.map_or(self.maximum_network_interfaces, |card| card.maximum_network_interfaces);
        let each = self.ipv4_addresses_per_interface.saturating_sub(1);
        interfaces.checked_mul(each).filter(|pods| *pods > 0).map_or(0, |pods| pods.saturating_add(2))
    }
}

impl Answer {
    fn read(self) -> InstanceType {
        let arm = self.processor_info.supported_architectures.item.iter().any(|it| it.starts_with("arm64"));
        let (neuron, neuron_cores) = self.neuron_info.read();
        let shipped = shipped(&self.instance_type);
        let eni_pods = match self.network_info.pods() {
            0 => shipped.as_ref().map_or(0, |it| it.eni_pods),
            pods => pods,
        };
        InstanceType {
            arch: if arm { "arm64" } else { "amd64" }.to_owned(),
            vcpus: self.v_cpu_info.default_v_cpus,
            memory: self.memory_info.size_in_mib.saturating_mul(1 << 20),
            eni_pods,
            nitro: self.hypervisor == "nitro" || self.bare_metal,
            local_storage: self.instance_storage_info.total_size_in_gb.saturating_mul(1_000_000_000),
            gpus: self.gpu_info.read().or(neuron),
            neuron_cores,
            name: self.instance_type,
        }
    }
}

#[cfg(test)]
mod tests;
