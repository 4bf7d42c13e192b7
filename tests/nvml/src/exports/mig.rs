//! MIG: mode, devices, their ids and attributes.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlDeviceAttributes_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t,
};

use crate::answer::{INVALID_ARGUMENT, NO_PERMISSION, NOT_FOUND, NOT_SUPPORTED, Outcome, put};
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

/// GPU instances have handles of their own kind: this mark, the GPU and the instance.
const INSTANCE: usize = 0x4749_0000_0000;

system_calls! {
    fn nvmlGpuInstanceGetInfo(session, instance: nvmlGpuInstance_t, to: *mut nvmlGpuInstanceInfo_t) {
        let (gpu, id) = ((instance.addr() >> 16) & 0xffff, instance.addr() & 0xffff);
        let device = session.machine.devices.get(gpu).ok_or(INVALID_ARGUMENT)?;
        let mig = device.mig.iter().flatten().find(|mig| mig.gpu_instance as usize == id).ok_or(NOT_FOUND)?;
        let placement = nvmlGpuInstancePlacement_t { start: mig.placement.ok_or(NO_PERMISSION)?, size: mig.slices };
        let device = Handle { gpu: device.index, mig: None }.encode();
        put(to, nvmlGpuInstanceInfo_t { device, id: mig.gpu_instance, profileId: 0, placement })
    }
}

device_calls! {
    fn nvmlDeviceGetGpuInstanceById(target, id: c_uint, to: *mut nvmlGpuInstance_t) {
        let device = target.whole()?;
        let mig = device.mig.iter().flatten().find(|mig| mig.gpu_instance == id).ok_or(NOT_FOUND)?;
        mig.placement.ok_or(NO_PERMISSION)?;
        put(to, std::ptr::without_provenance_mut(INSTANCE | (device.index as usize) << 16 | id as usize))
    }

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
