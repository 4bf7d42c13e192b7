//! Instance types in EC2's own words: a few real ones of every kind, and what attribute-based requirements select.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::request::Parameters;

/// Type, architecture, vCPUs, memory in MiB, network interfaces, addresses of each.
const PLAIN: &[(&str, &str, u32, u32, u32, u32)] = &[
    ("m5.large", "x86_64", 2, 8_192, 3, 10),
    ("m6g.large", "arm64", 2, 8_192, 3, 10),
    ("c5.xlarge", "x86_64", 4, 8_192, 4, 15),
    ("t3.medium", "x86_64", 2, 4_096, 3, 6),
    ("g4dn.xlarge", "x86_64", 4, 16_384, 3, 10),
    ("g4ad.xlarge", "x86_64", 4, 16_384, 2, 4),
    ("g5.xlarge", "x86_64", 4, 16_384, 4, 15),
    ("g5.2xlarge", "x86_64", 8, 32_768, 4, 15),
    ("g5.12xlarge", "x86_64", 48, 196_608, 15, 50),
    ("g5g.xlarge", "arm64", 4, 8_192, 4, 15),
    ("g6f.large", "x86_64", 2, 8_192, 2, 10),
    ("p4d.24xlarge", "x86_64", 96, 1_179_648, 60, 50),
    ("p5.48xlarge", "x86_64", 192, 2_097_152, 64, 50),
    ("dl1.24xlarge", "x86_64", 96, 786_432, 60, 50),
    ("inf2.xlarge", "x86_64", 4, 16_384, 4, 15),
    ("trn1.32xlarge", "x86_64", 128, 524_288, 40, 50),
];

/// Type, manufacturer, name, count, memory of each in MiB.
const GPUS: &[(&str, &str, &str, u32, u32)] = &[
    ("g4dn.xlarge", "NVIDIA", "T4", 1, 16_384),
    ("g4ad.xlarge", "AMD", "Radeon Pro V520", 1, 8_192),
    ("g5.xlarge", "NVIDIA", "A10G", 1, 22_888),
    ("g5.2xlarge", "NVIDIA", "A10G", 1, 22_888),
    ("g5.12xlarge", "NVIDIA", "A10G", 4, 22_888),
    ("g5g.xlarge", "NVIDIA", "T4g", 1, 16_384),
    ("p4d.24xlarge", "NVIDIA", "A100", 8, 40_960),
    ("p5.48xlarge", "NVIDIA", "H100", 8, 81_920),
    ("dl1.24xlarge", "Habana", "Gaudi HL-205", 8, 32_768),
];

/// Type, name, devices, cores of each, memory of each in MiB.
const NEURON: &[(&str, &str, u32, u32, u32)] =
    &[("inf2.xlarge", "Inferentia2", 1, 2, 32_768), ("trn1.32xlarge", "Trainium", 16, 2, 32_768)];

/// Every type the fake knows from the start.
pub(super) fn known() -> BTreeMap<String, Value> {
    let mut types: BTreeMap<String, Value> = PLAIN.iter().map(|row| (row.0.to_owned(), plain(row))).collect();
    for (name, manufacturer, gpu, count, memory) in GPUS {
        let gpus =
            json!([{"name": gpu, "manufacturer": manufacturer, "count": count, "memoryInfo": {"sizeInMiB": memory}}]);
        set(&mut types, name, "gpuInfo", json!({"gpus": gpus, "totalGpuMemoryInMiB": count * memory}));
    }
    let slice = json!([{
        "name": "L4", "manufacturer": "NVIDIA", "logicalGpuCount": 1, "gpuPartitionSize": 0.125,
        "memoryInfo": {"sizeInMiB": 2_861},
    }]);
    set(&mut types, "g6f.large", "gpuInfo", json!({"gpus": slice, "totalGpuMemoryInMiB": 2_861}));
    for (name, device, count, cores, memory) in NEURON {
        let devices = json!([{
            "name": device, "count": count, "coreInfo": {"count": cores, "version": 2}, "memoryInfo": {"sizeInMiB": memory},
        }]);
        let info = json!({"neuronDevices": devices, "totalNeuronDeviceMemoryInMiB": count * memory});
        set(&mut types, name, "neuronInfo", info);
    }
    types
}

fn set(types: &mut BTreeMap<String, Value>, name: &str, key: &str, value: Value) {
    if let Some(known) = types.get_mut(name) {
        known[key] = value;
    }
}

fn plain(row: &(&str, &str, u32, u32, u32, u32)) -> Value {
    let (name, architecture, vcpus, memory, interfaces, addresses) = row;
    json!({
        "instanceType": name, "currentGeneration": true, "bareMetal": false, "hypervisor": "nitro",
        "supportedUsageClasses": ["on-demand", "spot"], "supportedRootDeviceTypes": ["ebs"],
        "processorInfo": {"supportedArchitectures": [architecture]},
        "vCpuInfo": {"defaultVCpus": vcpus}, "memoryInfo": {"sizeInMiB": memory}, "instanceStorageSupported": false,
        "networkInfo": {
            "maximumNetworkInterfaces": interfaces, "ipv4AddressesPerInterface": addresses, "maximumNetworkCards": 1,
            "defaultNetworkCardIndex": 0,
            "networkCards": [{"networkCardIndex": 0, "maximumNetworkInterfaces": interfaces}],
        },
    })
}

/// What an attribute-based group asks of a type, as far as it is told apart here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requirements {
    vcpus: (u64, u64),
    memory: (u64, u64),
    accelerators: (u64, u64),
    manufacturers: Vec<String>,
    allowed: Vec<String>,
}

impl Requirements {
    /// From a group's words (`VCpuCount`) or a launch template's (`vCpuCount`).
    pub(super) fn of_value(value: &Value) -> Self {
        let either =
            |upper: &str, lower: &str| if value[upper].is_null() { value[lower].clone() } else { value[upper].clone() };
        let range = |upper: &str, lower: &str| {
            let range = either(upper, lower);
            let bound = |one: &str, other: &str| range[one].as_u64().or(range[other].as_u64());
            (bound("Min", "min").unwrap_or(0), bound("Max", "max").unwrap_or(u64::MAX))
        };
        let words = |upper: &str, lower: &str| {
            let list = either(upper, lower);
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_lowercase).collect()
        };
        Self {
            vcpus: range("VCpuCount", "vCpuCount"),
            memory: range("MemoryMiB", "memoryMiB"),
            accelerators: range("AcceleratorCount", "acceleratorCount"),
            manufacturers: words("AcceleratorManufacturers", "acceleratorManufacturerSet"),
            allowed: words("AllowedInstanceTypes", "allowedInstanceTypeSet"),
        }
    }

    /// From a call of `GetInstanceTypesFromInstanceRequirements`.
    pub(super) fn of_parameters(parameters: &Parameters) -> Self {
        let number = |name: &str, end: &str| parameters.number(&format!("InstanceRequirements.{name}.{end}"));
        let bound = |name: &str, end: &str| number(name, end).and_then(|value| u64::try_from(value).ok());
        let range = |name: &str| (bound(name, "Min").unwrap_or(0), bound(name, "Max").unwrap_or(u64::MAX));
        let words = |name: &str| {
            parameters.list(&format!("InstanceRequirements.{name}")).iter().map(|word| word.to_lowercase()).collect()
        };
        Self {
            vcpus: range("VCpuCount"),
            memory: range("MemoryMiB"),
            accelerators: range("AcceleratorCount"),
            manufacturers: words("AcceleratorManufacturer"),
            allowed: words("AllowedInstanceType"),
        }
    }

    /// The types that fit, by name.
    pub(super) fn matching(&self, types: &BTreeMap<String, Value>) -> Vec<String> {
        types.iter().filter(|(name, of)| self.fits(name, of)).map(|(name, _)| name.clone()).collect()
    }

    fn fits(&self, name: &str, of: &Value) -> bool {
        let within = |value: u64, range: (u64, u64)| (range.0..=range.1).contains(&value);
        let gpus = of["gpuInfo"]["gpus"].as_array().cloned().unwrap_or_default();
        let count = gpus.iter().filter_map(|gpu| gpu["count"].as_u64()).sum();
        let made_by = |gpu: &Value| gpu["manufacturer"].as_str().map(str::to_lowercase).unwrap_or_default();
        let allowed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        within(of["vCpuInfo"]["defaultVCpus"].as_u64().unwrap_or(0), self.vcpus)
            && within(of["memoryInfo"]["sizeInMiB"].as_u64().unwrap_or(0), self.memory)
            && within(count, self.accelerators)
            && (self.manufacturers.is_empty() || gpus.iter().any(|gpu| self.manufacturers.contains(&made_by(gpu))))
            && (self.allowed.is_empty() || self.allowed.iter().any(allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_select_types_in_either_spelling() {
        let of_group = json!({"VCpuCount": {"Min": 4, "Max": 8}, "AcceleratorCount": {"Min": 1}, "AcceleratorManufacturers": ["nvidia"]});
        let of_template = json!({"vCpuCount": {"min": 4, "max": 8}, "acceleratorCount": {"min": 1}, "acceleratorManufacturerSet": ["nvidia"]});
        let form = "InstanceRequirements.VCpuCount.Min=4&InstanceRequirements.VCpuCount.Max=8&InstanceRequirements.AcceleratorCount.Min=1&InstanceRequirements.AcceleratorManufacturer.1=nvidia";
        let expected = ["g4dn.xlarge", "g5.2xlarge", "g5.xlarge", "g5g.xlarge"];
        for requirements in [
            Requirements::of_value(&of_group),
            Requirements::of_value(&of_template),
            Requirements::of_parameters(&Parameters::of_form(form)),
        ] {
            assert_eq!(requirements.matching(&known()), expected);
        }
    }
}
