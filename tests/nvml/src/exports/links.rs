//! PCIe and NVLink. Traffic follows the load: what a busy GPU moves is in proportion to its use.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlEnableState_t, nvmlPcieUtilCounter_t};

use crate::answer::{Code, INVALID_ARGUMENT, NOT_SUPPORTED, put};
use crate::handle::Target;

/// KB/s of PCIe traffic per percent of load, sent and received.
const PCIE_KB_PER_PERCENT: [f64; 2] = [1_200.0, 3_500.0];

/// A link that the GPU has.
fn link(target: &Target<'_>, link: c_uint) -> Result<(), Code> {
    let links = target.whole()?.model.nvlinks;
    if links == 0 {
        return Err(NOT_SUPPORTED);
    }
    if link < links { Ok(()) } else { Err(INVALID_ARGUMENT) }
}

device_calls! {
    fn nvmlDeviceGetPcieThroughput(target, counter: nvmlPcieUtilCounter_t, to: *mut c_uint) {
        target.whole()?;
        let load = target.session.timeline.load(target.handle.gpu, target.session.period()).gpu;
        let rate = PCIE_KB_PER_PERCENT.get(counter as usize).ok_or(INVALID_ARGUMENT)?;
        put(to, (load * rate) as c_uint)
    }

    fn nvmlDeviceGetPcieReplayCounter(target, to: *mut c_uint) {
        put(to, target.whole()?.gpu.health.pcie_replays)
    }

    fn nvmlDeviceGetCurrPcieLinkGeneration(target, to: *mut c_uint) {
        put(to, target.whole()?.model.pcie.generation)
    }

    fn nvmlDeviceGetMaxPcieLinkGeneration(target, to: *mut c_uint) {
        put(to, target.whole()?.model.pcie.generation)
    }

    fn nvmlDeviceGetGpuMaxPcieLinkGeneration(target, to: *mut c_uint) {
        put(to, target.whole()?.model.pcie.generation)
    }

    fn nvmlDeviceGetCurrPcieLinkWidth(target, to: *mut c_uint) {
        put(to, target.whole()?.model.pcie.width)
    }

    fn nvmlDeviceGetMaxPcieLinkWidth(target, to: *mut c_uint) {
        put(to, target.whole()?.model.pcie.width)
    }

    fn nvmlDeviceGetPcieSpeed(target, to: *mut c_uint) {
        put(to, 2_500 << (target.whole()?.model.pcie.generation.saturating_sub(1)))
    }

    fn nvmlDeviceGetNvLinkState(target, number: c_uint, active: *mut nvmlEnableState_t) {
        link(&target, number)?;
        put(active, 1)
    }

    fn nvmlDeviceGetNvLinkVersion(target, number: c_uint, version: *mut c_uint) {
        link(&target, number)?;
        put(version, 4)
    }

    fn nvmlDeviceGetNvLinkErrorCounter(target, number: c_uint, _counter: c_uint, value: *mut c_ulonglong) {
        link(&target, number)?;
        put(value, 0)
    }
}
