//! Opening and closing the library, versions, error texts.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::answer::{NOT_FOUND, UNINITIALIZED, put, put_text};

system_calls! {
    fn nvmlInit_v2(session) {
        session.users += 1;
        Ok(())
    }

    fn nvmlInit(session) {
        session.users += 1;
        Ok(())
    }

    fn nvmlInitWithFlags(session, _flags: c_uint) {
        session.users += 1;
        Ok(())
    }

    fn nvmlShutdown(session) {
        session.users = session.users.checked_sub(1).ok_or(UNINITIALIZED)?;
        session.write_counts();
        Ok(())
    }

    fn nvmlSystemGetDriverVersion(session, version: *mut c_char, length: c_uint) {
        put_text(version, length, &session.machine.profile.driver)
    }

    fn nvmlSystemGetNVMLVersion(session, version: *mut c_char, length: c_uint) {
        let cuda = session.machine.profile.cuda;
        put_text(version, length, &format!("{}.{}", cuda / 1000, session.machine.profile.driver))
    }

    fn nvmlSystemGetCudaDriverVersion(session, version: *mut c_int) {
        put(version, session.machine.profile.cuda)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(session, version: *mut c_int) {
        put(version, session.machine.profile.cuda)
    }

    fn nvmlSystemGetProcessName(session, pid: c_uint, name: *mut c_char, length: c_uint) {
        let mut processes = session.machine.devices.iter().flat_map(|device| &device.gpu.processes);
        let process = processes.find(|process| process.pid == pid && process.name.is_some()).ok_or(NOT_FOUND)?;
        put_text(name, length, process.name.as_deref().unwrap_or_default())
    }
}

/// A text that lives for ever, for every code.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    let text = match result {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        12 => c"NVML Shared Library Not Found",
        13 => c"Function Not Found",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        17 => c"GPU access blocked by the operating system",
        18 => c"Driver/library version mismatch",
        25 => c"Argument version mismatch",
        27 => c"System is not ready",
        28 => c"GPU not found",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}
