//! Accelerators of an instance type, by their maker: the resource pods ask for, and the value of the GPU label.

use serde::Deserialize;

use super::{Items, Memory};
use crate::fleet::group::Gpus;

const NEURON: &str = "aws.amazon.com/neuron";

/// Resource by maker, as the makers' own device plugins name them.
const MAKERS: [(&str, &str); 5] = [
    ("nvidia", "nvidia.com/gpu"),
    ("amd", "amd.com/gpu"),
    ("habana", "habana.ai/gaudi"),
    ("qualcomm", "qualcomm.com/qaic"),
    ("intel", "gpu.intel.com/xe"),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GpuInfo {
    gpus: Items<Gpu>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Gpu {
    name: String,
    manufacturer: String,
    count: u32,
    /// Devices that a machine sees; a fraction of a GPU is one, while `count` is then 0.
    logical_gpu_count: Option<u32>,
    memory_info: Memory,
}

impl GpuInfo {
    /// Devices of the first maker; EC2 has no type with several.
    pub(super) fn read(self) -> Option<Gpus> {
        let first = self.gpus.item.first()?;
        let maker = first.manufacturer.to_lowercase();
        let known = MAKERS.iter().find(|(name, _)| maker.starts_with(name));
        let resource = known.map_or_else(|| format!("{maker}.com/gpu"), |(_, resource)| (*resource).to_owned());
        let count = self.gpus.item.iter().map(|gpu| gpu.logical_gpu_count.unwrap_or(0).max(gpu.count)).sum();
        let memory_mib = first.memory_info.size_in_mib;
        (count > 0).then(|| Gpus { model: model(&maker, &first.name), count, memory_mib, resource })
    }
}

/// `nvidia-a10g`, `amd-radeon-pro-v520`: what is usually written as the value of the GPU label.
fn model(maker: &str, name: &str) -> String {
    let words = name.to_lowercase().replace([' ', '_'], "-");
    let words = words.strip_prefix("gaudi-hl-").map_or(words.as_str(), |_| "gaudi");
    format!("{}-{words}", maker.split(' ').next().unwrap_or(maker))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NeuronInfo {
    neuron_devices: Items<Device>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Device {
    count: u32,
    name: String,
    core_info: Cores,
    memory_info: Memory,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cores {
    count: u32,
}

impl NeuronInfo {
    /// The devices, and how many cores they have together.
    pub(super) fn read(self) -> (Option<Gpus>, u32) {
        let Some(first) = self.neuron_devices.item.first() else { return (None, 0) };
        let count = self.neuron_devices.item.iter().map(|it| it.count).sum();
        let cores = self.neuron_devices.item.iter().map(|it| it.count.saturating_mul(it.core_info.count)).sum();
        let model = format!("aws-{}", first.name.to_lowercase());
        let gpus = Gpus { model, count, memory_mib: first.memory_info.size_in_mib, resource: NEURON.to_owned() };
        ((count > 0).then_some(gpus), cores)
    }
}

/// Cores of a type that only the shipped table tells of: two to a device, four on the first Inferentia, eight on the
/// second Trainium.
pub(super) fn cores(gpus: Option<&Gpus>) -> u32 {
    gpus.filter(|gpus| gpus.resource == NEURON).map_or(0, |gpus| {
        let each = match gpus.model.as_str() {
            "aws-trainium2" => 8,
            "aws-inferentia" => 4,
            _ => 2,
        };
        gpus.count.saturating_mul(each)
    })
}
