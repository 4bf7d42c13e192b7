//! ECC, retired pages, remapped rows, violations.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlEccCounterType_t, nvmlEnableState_t, nvmlGpuFabricInfo_t, nvmlMemoryErrorType_t, nvmlMemoryLocation_t,
    nvmlPageRetirementCause_t, nvmlPerfPolicyType_t, nvmlRowRemapperHistogramValues_t, nvmlViolationTime_t,
};

use crate::answer::{Code, INVALID_ARGUMENT, NOT_SUPPORTED, put, put_list};
use crate::handle::Target;
use crate::model::Architecture;

fn errors(target: &Target<'_>, kind: nvmlMemoryErrorType_t) -> Result<u64, Code> {
    let errors = target.whole()?.gpu.ecc_errors;
    match kind {
        0 => Ok(errors.corrected),
        1 => Ok(errors.uncorrected),
        _ => Err(INVALID_ARGUMENT),
    }
}

/// Turing and older retire pages; Ampere and newer remap rows.
fn remaps(target: &Target<'_>) -> Result<bool, Code> {
    Ok(!matches!(target.whole()?.model.architecture, Architecture::Turing))
}

device_calls! {
    fn nvmlDeviceGetEccMode(target, current: *mut nvmlEnableState_t, pending: *mut nvmlEnableState_t) {
        target.whole()?;
        put(current, 1)?;
        put(pending, 1)
    }

    fn nvmlDeviceGetTotalEccErrors(target, kind: nvmlMemoryErrorType_t, _counter: nvmlEccCounterType_t, to: *mut c_ulonglong) {
        put(to, errors(&target, kind)?)
    }

    fn nvmlDeviceGetMemoryErrorCounter(
        target,
        kind: nvmlMemoryErrorType_t,
        _counter: nvmlEccCounterType_t,
        location: nvmlMemoryLocation_t,
        to: *mut c_ulonglong,
    ) {
        let errors = errors(&target, kind)?;
        match location {
            2 => put(to, errors),
            0 | 1 | 3 | 7 => put(to, 0),
            _ => Err(NOT_SUPPORTED),
        }
    }

    fn nvmlDeviceGetRetiredPages(target, _cause: nvmlPageRetirementCause_t, count: *mut c_uint, addresses: *mut c_ulonglong) {
        if remaps(&target)? {
            return Err(NOT_SUPPORTED);
        }
        put_list(addresses, count, &[])
    }

    fn nvmlDeviceGetRetiredPages_v2(
        target,
        _cause: nvmlPageRetirementCause_t,
        count: *mut c_uint,
        addresses: *mut c_ulonglong,
        _timestamps: *mut c_ulonglong,
    ) {
        if remaps(&target)? {
            return Err(NOT_SUPPORTED);
        }
        put_list(addresses, count, &[])
    }

    fn nvmlDeviceGetRetiredPagesPendingStatus(target, pending: *mut nvmlEnableState_t) {
        if remaps(&target)? {
            return Err(NOT_SUPPORTED);
        }
        put(pending, target.device().gpu.health.retired_pending.into())
    }

    fn nvmlDeviceGetGpuFabricInfo(target, to: *mut nvmlGpuFabricInfo_t) {
        let health = target.whole()?.gpu.health;
        let state = health.fabric_state.ok_or(NOT_SUPPORTED)?;
        put(to, nvmlGpuFabricInfo_t { clusterUuid: [7; 16], status: health.fabric_status, cliqueId: 1, state })
    }

    fn nvmlDeviceGetRemappedRows(
        target,
        correctable: *mut c_uint,
        uncorrectable: *mut c_uint,
        pending: *mut c_uint,
        failed: *mut c_uint,
    ) {
        if !remaps(&target)? {
            return Err(NOT_SUPPORTED);
        }
        let health = target.device().gpu.health;
        put(correctable, health.remapped_rows.0)?;
        put(uncorrectable, health.remapped_rows.1)?;
        put(pending, health.remap_pending.into())?;
        put(failed, health.remap_failed.into())
    }

    fn nvmlDeviceGetRowRemapperHistogram(target, to: *mut nvmlRowRemapperHistogramValues_t) {
        if !remaps(&target)? {
            return Err(NOT_SUPPORTED);
        }
        put(to, nvmlRowRemapperHistogramValues_t { max: 640, high: 0, partial: 0, low: 0, none: 0 })
    }

    fn nvmlDeviceGetViolationStatus(target, policy: nvmlPerfPolicyType_t, to: *mut nvmlViolationTime_t) {
        target.whole()?;
        // Of these policies the fake knows power and sync boost.
        let bit = match policy {
            0 => Some(2),
            2 => Some(4),
            _ => None,
        };
        let gpu = target.handle.gpu as usize;
        let held = bit.map_or(0, |bit| target.session.held_ns(gpu, bit));
        put(to, nvmlViolationTime_t { referenceTime: target.session.now_us, violationTime: held })
    }
}
