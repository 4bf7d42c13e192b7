//! The calls that the wrapper does not wrap: MIG ids, and the memory call of drivers before R510.
//! The only unsafe code of the agent: each call passes a live handle and a local to write to, and checks the code.
#![allow(unsafe_code, reason = "three NVML functions that nvml-wrapper only offers as raw symbols")]

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlMemory_t, nvmlReturn_t};

use crate::gpu::Memory;

type IdCall = unsafe extern "C" fn(nvmlDevice_t, *mut u32) -> nvmlReturn_t;

/// The GPU instance id of a MIG device handle.
pub(super) fn gpu_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    id(device, device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref().ok())
}

/// The compute instance id of a MIG device handle.
pub(super) fn compute_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    id(device, device.nvml().lib().nvmlDeviceGetComputeInstanceId.as_ref().ok())
}

fn id(device: &Device<'_>, call: Option<&IdCall>) -> Result<u32, NvmlError> {
    let call = call.ok_or(NvmlError::FunctionNotFound)?;
    let mut id = 0;
    // SAFETY: the handle comes from this session's library, which outlives `device`; `id` lives across the call.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// Memory as drivers before R510 tell it: `used` includes what is reserved.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<Memory, NvmlError> {
    let call = device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref().map_err(|_| NvmlError::FunctionNotFound)?;
    let mut info = nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: as above; the struct is the one that this version of the function fills.
    nvml_try(unsafe { call(device.handle(), &raw mut info) })?;
    Ok(Memory { total: info.total, used: info.used, free: info.free, reserved: 0 })
}
