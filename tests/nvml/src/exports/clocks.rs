//! Clocks, performance state, clock event reasons.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlClockId_t, nvmlClockType_t, nvmlPstates_t};

use crate::answer::{Code, INVALID_ARGUMENT, NOT_SUPPORTED, Outcome, put, put_list};
use crate::handle::Target;
use crate::model::Clock;

fn domain(target: &Target<'_>, kind: nvmlClockType_t) -> Result<Clock, Code> {
    let clocks = target.whole()?.model.clocks_mhz;
    match kind {
        0 | 1 => Ok(clocks.graphics),
        2 => Ok(clocks.memory),
        3 => Ok(clocks.video),
        _ => Err(INVALID_ARGUMENT),
    }
}

/// A GPU that runs anything runs at its busy clocks.
pub(crate) fn busy(target: &Target<'_>) -> bool {
    target.session.timeline.load(target.handle.gpu, target.session.period()).gpu > 0.0
}

fn current(target: &Target<'_>, kind: nvmlClockType_t) -> Result<u32, Code> {
    let clock = domain(target, kind)?;
    Ok(if busy(target) { clock.busy } else { clock.idle })
}

/// `nvmlClocksEventReasonGpuIdle` when nothing runs, with what the profile adds.
fn reasons(target: &Target<'_>) -> u64 {
    u64::from(!busy(target)) | target.device().gpu.clocks_event_reasons
}

/// P0 under load, P8 without (data-centre parts with HBM stay in P0).
fn state(target: &Target<'_>) -> Result<u32, Code> {
    let memory = target.whole()?.model.clocks_mhz.memory;
    Ok(if busy(target) || memory.idle == memory.busy { 0 } else { 8 })
}

fn all_reasons(target: &Target<'_>, to: *mut c_ulonglong) -> Outcome {
    target.whole()?;
    put(to, 0x1ff)
}

device_calls! {
    fn nvmlDeviceGetClockInfo(target, kind: nvmlClockType_t, clock: *mut c_uint) {
        put(clock, current(&target, kind)?)
    }

    fn nvmlDeviceGetMaxClockInfo(target, kind: nvmlClockType_t, clock: *mut c_uint) {
        put(clock, domain(&target, kind)?.max)
    }

    fn nvmlDeviceGetClock(target, kind: nvmlClockType_t, id: nvmlClockId_t, clock: *mut c_uint) {
        match id {
            0 => put(clock, current(&target, kind)?),
            1 | 2 => put(clock, domain(&target, kind)?.busy),
            3 => put(clock, domain(&target, kind)?.max),
            _ => Err(INVALID_ARGUMENT),
        }
    }

    fn nvmlDeviceGetApplicationsClock(target, kind: nvmlClockType_t, clock: *mut c_uint) {
        put(clock, domain(&target, kind)?.busy)
    }

    fn nvmlDeviceGetDefaultApplicationsClock(target, kind: nvmlClockType_t, clock: *mut c_uint) {
        put(clock, domain(&target, kind)?.busy)
    }

    fn nvmlDeviceGetMaxCustomerBoostClock(target, kind: nvmlClockType_t, clock: *mut c_uint) {
        put(clock, domain(&target, kind)?.max)
    }

    fn nvmlDeviceGetSupportedMemoryClocks(target, count: *mut c_uint, clocks: *mut c_uint) {
        let memory = domain(&target, 2)?;
        let mut list = vec![memory.max, memory.idle];
        list.dedup();
        put_list(clocks, count, &list)
    }

    fn nvmlDeviceGetCurrentClocksThrottleReasons(target, to: *mut c_ulonglong) {
        target.whole()?;
        put(to, reasons(&target))
    }

    fn nvmlDeviceGetCurrentClocksEventReasons(target, to: *mut c_ulonglong) {
        target.whole()?;
        put(to, reasons(&target))
    }

    fn nvmlDeviceGetSupportedClocksThrottleReasons(target, to: *mut c_ulonglong) {
        all_reasons(&target, to)
    }

    fn nvmlDeviceGetSupportedClocksEventReasons(target, to: *mut c_ulonglong) {
        all_reasons(&target, to)
    }

    fn nvmlDeviceGetPerformanceState(target, to: *mut nvmlPstates_t) {
        put(to, state(&target)?)
    }

    fn nvmlDeviceGetPowerState(target, to: *mut nvmlPstates_t) {
        put(to, state(&target)?)
    }

    fn nvmlDeviceGetAutoBoostedClocksEnabled(target, _on: *mut c_uint, _default: *mut c_uint) {
        target.whole()?;
        Err(NOT_SUPPORTED)
    }
}
