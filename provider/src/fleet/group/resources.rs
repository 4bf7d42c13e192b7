//! Resources by name, as people write them in tags and in the configuration, put over what a machine's type says: GPUs
//! shared by time-slicing, MIG slices, and whatever else a device plugin offers.

use std::collections::BTreeMap;

use windlass_proto::quantity;

use super::{Gpus, Shape};

/// What a MIG slice is called: `nvidia.com/mig-1g.10gb`.
const MIG: &str = "nvidia.com/mig-";
/// Accelerators as their device plugins name them, the whole ones first.
const ACCELERATORS: [&str; 9] = [
    "nvidia.com/gpu",
    "nvidia.com/gpu.shared",
    "amd.com/gpu",
    "habana.ai/gaudi",
    "gpu.intel.com/xe",
    "aws.amazon.com/neuron",
    "qualcomm.com/qaic",
    "microsoft.com/directx",
    MIG,
];

/// Whether pods ask for this resource when they want an accelerator, whole or in part.
#[must_use]
pub fn is_accelerator(resource: &str) -> bool {
    rank(resource).is_some()
}

fn rank(resource: &str) -> Option<usize> {
    ACCELERATORS.iter().position(|name| *name == resource || (*name == MIG && resource.starts_with(MIG)))
}

/// Memory that the name of a MIG slice tells, in MiB.
fn slice_memory(resource: &str) -> Option<u64> {
    let size = resource.strip_prefix(MIG)?.split('.').nth(1)?.strip_suffix("gb")?;
    size.parse::<u64>().ok()?.checked_mul(1024)
}

impl Shape {
    /// Puts `resources` over what the shape says, and returns what could not be read, each with its remedy.
    pub fn overlay(&mut self, resources: &BTreeMap<String, String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut accelerators = BTreeMap::new();
        for (name, text) in resources {
            let Some(value) = quantity::value(text).ok().and_then(|value| u64::try_from(value).ok()) else {
                wrong.push(format!("{name}={text} is no quantity; write e.g. 4, 500m or 16Gi"));
                continue;
            };
            match name.as_str() {
                "cpu" => self.cpu_milli = milli(text).unwrap_or(self.cpu_milli),
                "memory" => self.memory = value,
                "ephemeral-storage" => self.ephemeral_storage = value,
                "pods" => self.pods = u32::try_from(value).unwrap_or(u32::MAX),
                name if is_accelerator(name) => _ = accelerators.insert(name.to_owned(), value),
                _ => _ = self.extended.insert(name.to_owned(), value),
            }
        }
        self.offer(accelerators);
        self.reserved_cpu_milli = self.reserved_cpu_milli.min(self.cpu_milli);
        self.reserved_memory = self.reserved_memory.min(self.memory);
        self.reserved_ephemeral_storage = self.reserved_ephemeral_storage.min(self.ephemeral_storage);
        wrong
    }

    /// These accelerators are what pods can ask for: they stand in place of what the type says, since GPUs that are cut
    /// or shared under another name are no longer offered whole.
    pub(in crate::fleet) fn offer(&mut self, accelerators: BTreeMap<String, u64>) {
        if accelerators.is_empty() {
            return;
        }
        let mut rows: Vec<_> = accelerators.into_iter().filter(|(_, count)| *count > 0).collect();
        rows.sort_by_key(|(name, _)| rank(name));
        let mut rows = rows.into_iter();
        let before = self.gpus.take();
        self.gpus = rows.next().map(|(resource, count)| {
            let whole = before.as_ref().map_or(0, |gpus| gpus.memory_mib);
            let model = before.map_or_else(|| model_of(&resource).to_owned(), |gpus| gpus.model);
            let memory_mib = slice_memory(&resource).unwrap_or(whole);
            Gpus { model, count: u32::try_from(count).unwrap_or(u32::MAX), memory_mib, resource }
        });
        self.extended.extend(rows);
    }
}

fn milli(text: &str) -> Option<u64> {
    u64::try_from(quantity::milli_value(text).ok()?).ok()
}

/// A name for an accelerator of which only the resource is known.
fn model_of(resource: &str) -> &str {
    resource.split(['.', '/']).next().unwrap_or(resource)
}

#[cfg(test)]
mod tests {
    use crate::fleet::{group::Shape, tests::group};

    fn overlaid(resources: &[(&str, &str)]) -> (Shape, Vec<String>) {
        let mut shape = group("g", 0, 1).shape;
        let resources = resources.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let wrong = shape.overlay(&resources);
        (shape, wrong)
    }

    #[test]
    fn time_slicing_replicas_count_as_gpus() {
        let gpus = overlaid(&[("nvidia.com/gpu", "4")]).0.gpus.unwrap();
        assert_eq!((gpus.count, gpus.model.as_str(), gpus.memory_mib), (4, "nvidia-a10g", 24_576));
    }

    #[test]
    fn mig_slices_stand_in_place_of_whole_gpus() {
        let (shape, _) = overlaid(&[("nvidia.com/mig-1g.10gb", "7"), ("nvidia.com/mig-3g.40gb", "2")]);
        let gpus = shape.gpus.unwrap();
        assert_eq!((gpus.resource.as_str(), gpus.count, gpus.memory_mib), ("nvidia.com/mig-1g.10gb", 7, 10_240));
        assert_eq!(shape.extended["nvidia.com/mig-3g.40gb"], 2);
    }

    #[test]
    fn whole_gpus_beside_slices_are_kept_when_somebody_says_so() {
        let (shape, _) = overlaid(&[("nvidia.com/mig-1g.10gb", "7"), ("nvidia.com/gpu", "1")]);
        assert_eq!(shape.gpus.unwrap().resource, "nvidia.com/gpu");
        assert_eq!(shape.extended["nvidia.com/mig-1g.10gb"], 7);
    }

    #[test]
    fn any_other_resource_is_shown_to_the_autoscaler() {
        let (shape, wrong) = overlaid(&[("vpc.amazonaws.com/efa", "32"), ("hugepages-2Mi", "5Gi"), ("cpu", "3500m")]);
        assert_eq!((shape.extended["vpc.amazonaws.com/efa"], shape.extended["hugepages-2Mi"]), (32, 5 << 30));
        assert_eq!((shape.cpu_milli, wrong.len()), (3500, 0));
    }

    #[test]
    fn what_is_no_quantity_is_said_and_costs_that_resource_alone() {
        let (shape, wrong) = overlaid(&[("memory", "many"), ("pods", "30"), ("cpu", "-1")]);
        assert_eq!((shape.pods, shape.memory, shape.cpu_milli, wrong.len()), (30, 16 << 30, 4000, 2));
    }

    #[test]
    fn no_gpus_is_a_word_too() {
        assert!(overlaid(&[("nvidia.com/gpu", "0")]).0.gpus.is_none());
    }
}
