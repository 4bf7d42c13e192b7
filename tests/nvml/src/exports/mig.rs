//! MIG: mode, devices, their ids and attributes.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlDeviceAttributes_t};

use crate::answer::{INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, Outcome, put};
use crate::handle::{Handle, Target};

fn attributes(target: &Target<'_>, to: *mut nvmlDeviceAttributes_t) -> Outcome {
    let limits = target.device().model.mig.ok_or(NOT_SUPPORTED)?;
    let mig = target.mig().ok_or(INVALID_ARGUMENT)?;
    put(
        to,
        nvmlDeviceAttributes_t {
            multiprocessorCount: mig.slices * limits.multiprocessors_per_slice,
            sharedCopyEngineCount: mig.slices,
            sharedDecoderCount: mig.slices,
            sharedEncoderCount: 0,
            sharedJpegCount: u32::from(mig.slices >= 7),
            sharedOfaCount: u32::from(mig.slices >= 7),
            gpuInstanceSliceCount: mig.slices,
            computeInstanceSliceCount: mig.slices,
            memorySizeMB: mig.memory_mib,
        },
    )
}

device_calls! {
    fn nvmlDeviceGetMigMode(target, current: *mut c_uint, pending: *mut c_uint) {
        let device = target.whole()?;
        device.model.mig.ok_or(NOT_SUPPORTED)?;
        let on = c_uint::from(device.mig.is_some());
        put(current, on)?;
        put(pending, on)
    }

    fn nvmlDeviceGetMaxMigDeviceCount(target, count: *mut c_uint) {
        let limits = target.whole()?.model.mig;
        put(count, limits.map_or(0, |limits| limits.max_instances))
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(target, index: c_uint, to: *mut nvmlDevice_t) {
        let device = target.whole()?;
        let limits = device.model.mig.ok_or(NOT_SUPPORTED)?;
        if index >= limits.max_instances {
            return Err(INVALID_ARGUMENT);
        }
        let mig = device.mig.iter().flatten().find(|mig| mig.index == index).ok_or(NOT_FOUND)?;
        put(to, Handle { gpu: device.index, mig: Some((mig.gpu_instance, mig.compute_instance)) }.encode())
    }

    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(target, to: *mut nvmlDevice_t) {
        target.mig().ok_or(INVALID_ARGUMENT)?;
        put(to, Handle { gpu: target.handle.gpu, mig: None }.encode())
    }

    fn nvmlDeviceIsMigDeviceHandle(target, is: *mut c_uint) {
        put(is, c_uint::from(target.mig().is_some()))
    }

    fn nvmlDeviceGetGpuInstanceId(target, id: *mut c_uint) {
        put(id, target.mig().ok_or(NOT_SUPPORTED)?.gpu_instance)
    }

    fn nvmlDeviceGetComputeInstanceId(target, id: *mut c_uint) {
        put(id, target.mig().ok_or(NOT_SUPPORTED)?.compute_instance)
    }

    fn nvmlDeviceGetAttributes_v2(target, to: *mut nvmlDeviceAttributes_t) {
        attributes(&target, to)
    }

    fn nvmlDeviceGetAttributes(target, to: *mut nvmlDeviceAttributes_t) {
        attributes(&target, to)
    }
}
