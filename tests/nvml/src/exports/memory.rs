//! Frame buffer and BAR1.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlBAR1Memory_t, nvmlConfComputeMemSizeInfo_t, nvmlMemory_t, nvmlMemory_v2_t};

use crate::answer::{NOT_SUPPORTED, check_version, get, put};
use crate::handle::Target;

const MIB: u64 = 1 << 20;

/// Bytes: all of it, kept by driver and firmware, held by processes.
struct Memory {
    total: u64,
    reserved: u64,
    used: u64,
}

fn memory(target: &Target<'_>) -> Memory {
    let device = target.device();
    let mine = |process: &&crate::profile::Process| match target.handle.mig {
        Some((gi, ci)) => process.gpu_instance == Some(gi) && process.compute_instance.unwrap_or(0) == ci,
        None => true,
    };
    let held: u64 = device.gpu.processes.iter().filter(mine).map(|process| process.memory_mib).sum();
    let (total, reserved) =
        target.mig().map_or((device.model.memory_mib, device.model.reserved_mib), |mig| (mig.memory_mib, 12));
    Memory { total: total * MIB, reserved: reserved * MIB, used: held.min(total - reserved) * MIB }
}

device_calls! {
    fn nvmlDeviceGetMemoryInfo(target, to: *mut nvmlMemory_t) {
        let Memory { total, reserved, used } = memory(&target);
        // The first version has no field for the reserved part and counts it as used.
        put(to, nvmlMemory_t { total, free: total - reserved - used, used: used + reserved })
    }

    fn nvmlDeviceGetMemoryInfo_v2(target, to: *mut nvmlMemory_v2_t) {
        let to = get(to)?;
        check_version::<nvmlMemory_v2_t>(to.version, 2)?;
        let Memory { total, reserved, used } = memory(&target);
        *to = nvmlMemory_v2_t { version: to.version, total, reserved, free: total - reserved - used, used };
        Ok(())
    }

    fn nvmlDeviceGetBAR1MemoryInfo(target, to: *mut nvmlBAR1Memory_t) {
        let total = target.device().model.bar1_mib * MIB;
        put(to, nvmlBAR1Memory_t { bar1Total: total, bar1Free: total - MIB, bar1Used: MIB })
    }

    fn nvmlDeviceGetMemoryBusWidth(target, bits: *mut c_uint) {
        put(bits, target.whole()?.model.memory_bus_bits)
    }

    fn nvmlDeviceGetConfComputeMemSizeInfo(target, _to: *mut nvmlConfComputeMemSizeInfo_t) {
        target.whole()?;
        Err(NOT_SUPPORTED)
    }
}
