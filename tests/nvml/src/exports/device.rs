//! Which devices there are and what they are called.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlBrandType_t, nvmlComputeMode_t, nvmlDevice_t, nvmlEnableState_t, nvmlPciInfo_t};

use crate::answer::{NOT_FOUND, NOT_SUPPORTED, Outcome, fixed_text, put, put_text, text};
use crate::handle::Handle;
use crate::machine::Device;
use crate::model::{Architecture, Brand};
use crate::session::Session;

/// Answers a handle, unless the GPU behind it is the one that is lost.
fn give(session: &mut Session, call: &str, handle: Handle, to: *mut nvmlDevice_t) -> Outcome {
    let (_, lost) = session.faults(call, Some(handle.gpu));
    lost.map_or_else(|| put(to, handle.encode()), Err)
}

fn by_index(session: &mut Session, index: c_uint, to: *mut nvmlDevice_t) -> Outcome {
    if index as usize >= session.machine.devices.len() {
        return Err(crate::answer::INVALID_ARGUMENT);
    }
    give(session, "nvmlDeviceGetHandleByIndex_v2", Handle { gpu: index, mig: None }, to)
}

fn by_bus_id(session: &mut Session, bus_id: *const c_char, to: *mut nvmlDevice_t) -> Outcome {
    let wanted = text(bus_id)?.to_ascii_uppercase();
    let wanted = wanted.trim_start_matches('0');
    let same = |device: &&Device| device.bus_id().trim_start_matches('0') == wanted;
    let gpu = session.machine.devices.iter().find(same).ok_or(NOT_FOUND)?.index;
    give(session, "nvmlDeviceGetHandleByPciBusId_v2", Handle { gpu, mig: None }, to)
}

fn by_uuid(session: &mut Session, uuid: *const c_char, to: *mut nvmlDevice_t) -> Outcome {
    let uuid = text(uuid)?;
    let handles = session.machine.devices.iter().find_map(|device| {
        if device.uuid == uuid {
            return Some(Handle { gpu: device.index, mig: None });
        }
        let mig = device.mig.iter().flatten().find(|mig| mig.uuid == uuid)?;
        Some(Handle { gpu: device.index, mig: Some((mig.gpu_instance, mig.compute_instance)) })
    });
    give(session, "nvmlDeviceGetHandleByUUID", handles.ok_or(NOT_FOUND)?, to)
}

system_calls! {
    fn nvmlDeviceGetCount_v2(session, count: *mut c_uint) {
        put(count, session.machine.profile.count)
    }

    fn nvmlDeviceGetCount(session, count: *mut c_uint) {
        put(count, session.machine.profile.count)
    }

    fn nvmlDeviceGetHandleByIndex_v2(session, index: c_uint, device: *mut nvmlDevice_t) {
        by_index(session, index, device)
    }

    fn nvmlDeviceGetHandleByIndex(session, index: c_uint, device: *mut nvmlDevice_t) {
        by_index(session, index, device)
    }

    fn nvmlDeviceGetHandleByPciBusId_v2(session, bus_id: *const c_char, device: *mut nvmlDevice_t) {
        by_bus_id(session, bus_id, device)
    }

    fn nvmlDeviceGetHandleByPciBusId(session, bus_id: *const c_char, device: *mut nvmlDevice_t) {
        by_bus_id(session, bus_id, device)
    }

    fn nvmlDeviceGetHandleByUUID(session, uuid: *const c_char, device: *mut nvmlDevice_t) {
        by_uuid(session, uuid, device)
    }

    fn nvmlDeviceGetHandleBySerial(session, serial: *const c_char, device: *mut nvmlDevice_t) {
        let serial = text(serial)?;
        let found = session.machine.devices.iter().find(|device| device.serial() == serial);
        let gpu = found.ok_or(NOT_FOUND)?.index;
        give(session, "nvmlDeviceGetHandleBySerial", Handle { gpu, mig: None }, device)
    }
}

fn pci_info(device: &Device) -> nvmlPciInfo_t {
    let bus_id = device.bus_id();
    nvmlPciInfo_t {
        busIdLegacy: fixed_text(bus_id.get(4..).unwrap_or_default()),
        domain: 0,
        bus: device.bus(),
        device: 0,
        pciDeviceId: device.model.pci_device_id,
        pciSubSystemId: 0x16C1_10DE,
        busId: fixed_text(&bus_id),
    }
}

device_calls! {
    fn nvmlDeviceGetName(target, name: *mut c_char, length: c_uint) {
        let model = &target.device().model.name;
        let text = target.mig().map_or_else(|| model.clone(), |mig| format!("{model} MIG {}", mig.profile));
        put_text(name, length, &text)
    }

    fn nvmlDeviceGetUUID(target, uuid: *mut c_char, length: c_uint) {
        let text = target.mig().map_or(&target.device().uuid, |mig| &mig.uuid);
        put_text(uuid, length, text)
    }

    fn nvmlDeviceGetIndex(target, index: *mut c_uint) {
        put(index, target.mig().map_or(target.handle.gpu, |mig| mig.index))
    }

    fn nvmlDeviceGetMinorNumber(target, minor: *mut c_uint) {
        let device = target.whole()?;
        put(minor, device.gpu.minor.unwrap_or(device.index))
    }

    fn nvmlDeviceGetSerial(target, serial: *mut c_char, length: c_uint) {
        put_text(serial, length, &target.whole()?.serial())
    }

    fn nvmlDeviceGetBoardId(target, id: *mut c_uint) {
        put(id, target.whole()?.bus() << 8)
    }

    fn nvmlDeviceGetMultiGpuBoard(target, multi: *mut c_uint) {
        target.whole()?;
        put(multi, 0)
    }

    fn nvmlDeviceGetBrand(target, brand: *mut nvmlBrandType_t) {
        let number = match target.device().model.brand {
            Brand::Tesla => 2,
            Brand::Nvidia => 14,
        };
        put(brand, number)
    }

    fn nvmlDeviceGetArchitecture(target, architecture: *mut c_uint) {
        let number = match target.device().model.architecture {
            Architecture::Turing => 6,
            Architecture::Ampere => 7,
            Architecture::Hopper => 9,
        };
        put(architecture, number)
    }

    fn nvmlDeviceGetCudaComputeCapability(target, major: *mut c_int, minor: *mut c_int) {
        let (high, low) = target.device().model.compute_capability;
        put(major, high)?;
        put(minor, low)
    }

    fn nvmlDeviceGetNumGpuCores(target, cores: *mut c_uint) {
        put(cores, target.whole()?.model.cores)
    }

    fn nvmlDeviceGetPciInfo_v3(target, pci: *mut nvmlPciInfo_t) {
        put(pci, pci_info(target.device()))
    }

    fn nvmlDeviceGetPciInfo_v2(target, pci: *mut nvmlPciInfo_t) {
        put(pci, pci_info(target.device()))
    }

    fn nvmlDeviceGetVbiosVersion(target, version: *mut c_char, length: c_uint) {
        target.whole()?;
        put_text(version, length, "96.00.99.00.01")
    }

    fn nvmlDeviceGetBoardPartNumber(target, number: *mut c_char, length: c_uint) {
        target.whole()?;
        put_text(number, length, "692-2G520-0280-501")
    }

    fn nvmlDeviceGetComputeMode(target, mode: *mut nvmlComputeMode_t) {
        target.device();
        put(mode, 0)
    }

    fn nvmlDeviceGetPersistenceMode(target, mode: *mut nvmlEnableState_t) {
        target.whole()?;
        put(mode, 1)
    }

    fn nvmlDeviceGetDisplayMode(target, mode: *mut nvmlEnableState_t) {
        target.whole()?;
        put(mode, 0)
    }

    fn nvmlDeviceGetDisplayActive(target, active: *mut nvmlEnableState_t) {
        target.whole()?;
        put(active, 0)
    }

    fn nvmlDeviceGetNumaNodeId(target, _node: *mut c_uint) {
        target.whole()?;
        Err(NOT_SUPPORTED)
    }
}
