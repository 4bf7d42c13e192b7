//! The MIG instances of one GPU: enumerated anew every few seconds, since an instance's handle dies with it and no event tells.
//! Memory is read at every pass.

use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::calls::{Calls, Outcome};
use super::device::memory;
use super::raw::Handle;
use crate::gpu::{MigInstance, Process};

/// One instance with its live handle.
pub(super) struct Slice {
    pub(super) handle: Handle,
    pub(super) identity: MigInstance,
}

/// NVML's `NVML_DEVICE_MIG_ENABLE`.
const ENABLED: u32 = 1;
/// More instances than any GPU has: the bound on a count that the driver gives.
const INSTANCES_MAX: u32 = 64;

/// The instances now, or `None` when MIG is off. Those of `before` stand where the driver does not say for the moment.
pub(super) fn enumerate(gpu: &Handle, before: Option<Vec<Slice>>, calls: &mut Calls<'_>) -> Option<Vec<Slice>> {
    let device = gpu.device();
    match calls.ask("mig_mode", || device.mig_mode()) {
        Some(mode) if mode.current == ENABLED => {}
        None if !calls.refuses("mig_mode") => return before,
        _ => return None,
    }
    let Some(count) = calls.ask("mig_device_count", || device.mig_device_count()) else {
        return Some(before.unwrap_or_default());
    };
    let found = (0..count.min(INSTANCES_MAX)).filter_map(|index| {
        // An index without an instance answers NOT_FOUND: a hole, not an error.
        let handle = calls.ask("mig_device_by_index", || gpu.mig(index))?;
        let slice = handle.device();
        let uuid = calls.ask("mig_uuid", || slice.uuid())?;
        let name = calls.ask("mig_name", || slice.name());
        let gpu_instance = calls.ask("gpu_instance_id", || handle.gpu_instance());
        let identity = MigInstance {
            uuid: uuid.into(),
            gpu_instance,
            placement: gpu_instance.and_then(|id| calls.ask("gpu_instance_info", || gpu.placement(id))),
            compute_instance: calls.ask("compute_instance_id", || handle.compute_instance()),
            profile: profile(name.as_deref(), || attributes(&slice, calls)),
            ..MigInstance::default()
        };
        Some(Slice { handle, identity })
    });
    Some(found.collect())
}

/// Reads the memory of every instance, and tells whether a handle is dead, so that the list must be made anew.
pub(super) fn read(slices: &[Slice], calls: &mut Calls<'_>) -> (Vec<MigInstance>, bool) {
    let mut instances = Vec::with_capacity(slices.len());
    let mut gone = false;
    for slice in slices {
        let mut instance = slice.identity.clone();
        let outcome = calls.make("mig_memory_info", || {
            memory(&slice.handle)
                .inspect_err(|error| gone |= matches!(error, NvmlError::InvalidArg | NvmlError::NotFound))
        });
        gone |= matches!(outcome, Outcome::Nothing);
        instance.memory = outcome.value();
        instances.push(instance);
    }
    (instances, gone)
}

/// The processes of each instance: the way that stays open when the list over the whole GPU is refused for want of privilege.
pub(super) fn processes(slices: &[Slice], calls: &mut Calls<'_>) -> Option<Vec<Process>> {
    let mut all = Vec::new();
    for slice in slices {
        let found = calls.ask("mig_compute_processes", || slice.handle.compute_processes())?;
        all.extend(found.into_iter().map(|process| Process {
            gpu_instance: slice.identity.gpu_instance,
            compute_instance: slice.identity.compute_instance,
            ..process
        }));
    }
    Some(all)
}

fn attributes(slice: &Device<'_>, calls: &mut Calls<'_>) -> Option<(u32, u64)> {
    let attributes = calls.ask("mig_attributes", || slice.attributes())?;
    Some((attributes.gpu_instance_slice_count, attributes.memory_size_mb))
}

/// `1g.10gb` out of `NVIDIA H100 80GB HBM3 MIG 1g.10gb`, or made from slices and memory where the name does not say.
fn profile(name: Option<&str>, attributes: impl FnOnce() -> Option<(u32, u64)>) -> Arc<str> {
    if let Some((_, profile)) = name.and_then(|name| name.rsplit_once("MIG ")) {
        return profile.trim().into();
    }
    match attributes() {
        Some((slices, megabytes)) => format!("{slices}g.{}gb", megabytes.div_ceil(1024)).into(),
        None => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_comes_from_the_name_or_from_the_attributes() {
        assert_eq!(&*profile(Some("NVIDIA H100 80GB HBM3 MIG 1g.10gb"), || None), "1g.10gb");
        assert_eq!(&*profile(Some("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb"), || None), "1c.3g.20gb");
        assert_eq!(&*profile(Some("NVIDIA A100"), || Some((2, 9856))), "2g.10gb");
        assert_eq!(&*profile(None, || None), "unknown");
    }
}
