//! Instance types, from the table and from EC2's own words.

use super::*;

fn described(body: &str) -> InstanceType {
    let text = format!(
        "<DescribeInstanceTypesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
         <instanceTypeSet><item>{body}</item></instanceTypeSet></DescribeInstanceTypesResponse>"
    );
    let page: Described = quick_xml::de::from_str(&text).unwrap();
    page.split().0.remove(0)
}

fn gpu(manufacturer: &str, name: &str, rest: &str) -> InstanceType {
    described(&format!(
        "<instanceType>x1.large</instanceType><hypervisor>nitro</hypervisor><gpuInfo><gpus><item>{rest}\
         <manufacturer>{manufacturer}</manufacturer><name>{name}</name><memoryInfo><sizeInMiB>22888</sizeInMiB></memoryInfo>\
         </item></gpus><totalGpuMemoryInMiB>22888</totalGpuMemoryInMiB></gpuInfo>"
    ))
}

#[test]
fn every_row_of_the_table_is_read() {
    let rows: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).skip(1).collect();
    assert!(rows.len() > 300);
    for row in rows {
        let of = parse(row).unwrap_or_else(|| panic!("{row}"));
        assert!(of.vcpus > 0 && of.memory > 0 && of.eni_pods > 0, "{row}");
        assert_eq!(of.gpus.is_some(), row.split(',').nth(5).unwrap().contains('/'), "{row}");
    }
}

/// Slices of a GPU have a part of its memory.
#[test]
fn types_with_the_same_accelerator_agree_on_its_memory_maker_and_architecture() {
    let mut seen = std::collections::BTreeMap::new();
    for row in TABLE.lines().filter(|line| !line.starts_with('#')).skip(1) {
        let of = parse(row).unwrap_or_else(|| panic!("{row}"));
        let Some(gpus) = of.gpus else { continue };
        let family = of.name.split('.').next().unwrap();
        assert!(gpus.count > 0 && u64::from(gpus.count) <= of.vcpus, "{row}");
        let whole = *seen.entry((gpus.model.clone(), gpus.resource.clone())).or_insert(gpus.memory_mib);
        // The V100 is made with 16 GiB and with 32, the A100 with 40 and with 80.
        let twice = matches!(family, "p3dn" | "p4de") && gpus.memory_mib == 2 * whole;
        let part = family.ends_with("6f") && [2, 4, 8].iter().any(|part| whole / part == gpus.memory_mib);
        assert!(gpus.memory_mib == whole || twice || part, "{row}: {whole} MiB elsewhere");
        assert_eq!(of.neuron_cores > 0, gpus.resource == "aws.amazon.com/neuron", "{row}");
    }
    let makers: std::collections::BTreeSet<_> = seen.keys().map(|(_, resource)| resource.as_str()).collect();
    let expected = ["amd.com/gpu", "aws.amazon.com/neuron", "habana.ai/gaudi", "nvidia.com/gpu"];
    assert_eq!(makers.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_known_gpu_type_has_its_gpus() {
    let gpus = shipped("p5.48xlarge").unwrap().gpus.unwrap();
    assert_eq!((gpus.model.as_str(), gpus.count, gpus.memory_mib), ("nvidia-h100", 8, 80 << 10));
    assert!(shipped("p5.48xlargest").is_none());
}

// in-tree: every accelerator is written as nvidia.com/gpu, and Neuron devices are not there at all.
#[test]
fn accelerators_are_named_by_their_maker() {
    for (manufacturer, name, resource, model) in [
        ("NVIDIA", "A10G", "nvidia.com/gpu", "nvidia-a10g"),
        ("NVIDIA", "L40S", "nvidia.com/gpu", "nvidia-l40s"),
        ("AMD", "Radeon Pro V520", "amd.com/gpu", "amd-radeon-pro-v520"),
        ("Habana", "Gaudi HL-205", "habana.ai/gaudi", "habana-gaudi"),
    ] {
        let gpus = gpu(manufacturer, name, "<count>4</count>").gpus.unwrap();
        assert_eq!((gpus.resource.as_str(), gpus.model.as_str(), gpus.count), (resource, model, 4));
    }
    let neuron = described(
        "<instanceType>trn1.32xlarge</instanceType><neuronInfo><neuronDevices><item><count>16</count><name>Trainium</name>\
         <coreInfo><count>2</count><version>2</version></coreInfo><memoryInfo><sizeInMiB>32768</sizeInMiB></memoryInfo></item>\
         </neuronDevices></neuronInfo>",
    );
    assert_eq!(neuron.neuron_cores, 32);
    let gpus = neuron.gpus.unwrap();
    assert_eq!(
        (gpus.resource.as_str(), gpus.model.as_str(), gpus.count),
        ("aws.amazon.com/neuron", "aws-trainium", 16)
    );
}

// in-tree: a fractional type has no GPU.
#[test]
fn a_fraction_of_a_gpu_is_a_gpu() {
    let rest = "<count>0</count><logicalGpuCount>1</logicalGpuCount><gpuPartitionSize>0.125</gpuPartitionSize>";
    assert_eq!(gpu("NVIDIA", "L4", rest).gpus.unwrap().count, 1);
    assert_eq!(shipped("g6f.xlarge").unwrap().gpus.unwrap().count, 1);
}

#[test]
fn pods_follow_from_the_default_network_cards_interfaces() {
    let p4d = described(
        "<instanceType>p4d.24xlarge</instanceType><hypervisor>nitro</hypervisor>\
         <processorInfo><supportedArchitectures><item>x86_64</item></supportedArchitectures></processorInfo>\
         <vCpuInfo><defaultVCpus>96</defaultVCpus><defaultCores>48</defaultCores></vCpuInfo>\
         <memoryInfo><sizeInMiB>1179648</sizeInMiB></memoryInfo>\
         <instanceStorageInfo><totalSizeInGB>8000</totalSizeInGB></instanceStorageInfo>\
         <networkInfo><maximumNetworkInterfaces>60</maximumNetworkInterfaces>\
         <ipv4AddressesPerInterface>50</ipv4AddressesPerInterface><defaultNetworkCardIndex>0</defaultNetworkCardIndex>\
         <networkCards><item><networkCardIndex>0</networkCardIndex><maximumNetworkInterfaces>15</maximumNetworkInterfaces></item>\
         <item><networkCardIndex>1</networkCardIndex><maximumNetworkInterfaces>15</maximumNetworkInterfaces></item></networkCards>\
         </networkInfo>",
    );
    assert_eq!((p4d.eni_pods, p4d.vcpus, p4d.memory), (737, 96, 1152 * GIB));
    assert_eq!((p4d.arch.as_str(), p4d.nitro, p4d.local_storage), ("amd64", true, 8_000_000_000_000));
}

#[test]
fn arm_is_told_by_the_architectures() {
    let g5g = described(
        "<instanceType>g5g.xlarge</instanceType><processorInfo><supportedArchitectures><item>arm64</item>\
         </supportedArchitectures></processorInfo>",
    );
    assert_eq!((g5g.arch.as_str(), g5g.eni_pods), ("arm64", 58));
}
