//! Events: a set is registered for Xid errors of some GPUs and told of those that the profile lists.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::time::Duration;

use nvml_wrapper_sys::bindings::{nvmlEventData_t, nvmlEventSet_t};

use crate::answer::{Code, INVALID_ARGUMENT, NOT_SUPPORTED, Outcome, TIMEOUT, put};
use crate::handle::Handle;
use crate::session::{self, Session};

const XID: c_ulonglong = 8;
const MARK: usize = 0x4576_0000_0000;

/// After so long a program that waits looks whether the profile was changed. Until then it sleeps, as with a real driver.
const POLL: Duration = Duration::from_millis(500);

/// The event sets by number.
#[derive(Default)]
pub(crate) struct Sets {
    next: usize,
    sets: BTreeMap<usize, Set>,
}

/// Registered GPUs and the moment up to which their Xids were told.
#[derive(Default)]
struct Set {
    gpus: Vec<(u32, u64)>,
}

/// When a second of the profile's is, in microseconds.
fn when(session: &Session, seconds: f64) -> u64 {
    ((session.machine.profile.epoch_s + seconds) * 1e6) as u64
}

/// How long until the next event of a set.
fn until_next(session: &Session, set: nvmlEventSet_t) -> Option<Duration> {
    let gpus = &session.events.sets.get(&set.addr())?.gpus;
    let devices = gpus.iter().filter_map(|(gpu, _)| session.machine.devices.get(*gpu as usize));
    let times = devices.flat_map(|device| &device.gpu.xids).map(|(seconds, _)| when(session, *seconds));
    times.filter_map(|at_us| at_us.checked_sub(session.now_us)).min().map(Duration::from_micros)
}

/// The next event of a set, if one is due.
fn due(session: &mut Session, set: nvmlEventSet_t) -> Result<nvmlEventData_t, Code> {
    let now_us = session.now_us;
    let machine = session.machine.clone();
    let set = session.events.sets.get_mut(&set.addr()).ok_or(INVALID_ARGUMENT)?;
    for (gpu, told_us) in &mut set.gpus {
        let Some(device) = machine.devices.get(*gpu as usize) else { continue };
        let when = |seconds: f64| ((machine.profile.epoch_s + seconds) * 1e6) as u64;
        let mut xids = device.gpu.xids.iter().map(|(seconds, code)| (when(*seconds), *code));
        if let Some((at_us, code)) = xids.find(|(at_us, _)| *at_us > *told_us && *at_us <= now_us) {
            *told_us = at_us;
            let device = Handle { gpu: *gpu, mig: None }.encode();
            return Ok(nvmlEventData_t {
                device,
                eventType: XID,
                eventData: code,
                gpuInstanceId: u32::MAX,
                computeInstanceId: u32::MAX,
            });
        }
    }
    Err(TIMEOUT)
}

fn wait(name: &'static str, set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeout_ms: c_uint) -> Code {
    let mut left = Duration::from_millis(u64::from(timeout_ms));
    loop {
        let mut next = None;
        let code = session::call(name, None, |session| -> Outcome {
            next = until_next(session, set);
            put(data, due(session, set)?)
        });
        if code != TIMEOUT || left.is_zero() {
            return code;
        }
        let pause = left.min(next.unwrap_or(POLL)).min(POLL);
        std::thread::sleep(pause);
        left -= pause;
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeout_ms: c_uint) -> Code {
    wait("nvmlEventSetWait_v2", set, data, timeout_ms)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeout_ms: c_uint) -> Code {
    wait("nvmlEventSetWait", set, data, timeout_ms)
}

system_calls! {
    fn nvmlEventSetCreate(session, to: *mut nvmlEventSet_t) {
        session.events.next += 1;
        let number = MARK + session.events.next * 16;
        session.events.sets.insert(number, Set::default());
        put(to, std::ptr::without_provenance_mut(number))
    }

    fn nvmlEventSetFree(session, set: nvmlEventSet_t) {
        session.events.sets.remove(&set.addr()).map(|_| ()).ok_or(INVALID_ARGUMENT)
    }
}

device_calls! {
    fn nvmlDeviceGetSupportedEventTypes(target, to: *mut c_ulonglong) {
        target.whole()?;
        put(to, XID)
    }

    fn nvmlDeviceRegisterEvents(target, kinds: c_ulonglong, set: nvmlEventSet_t) {
        target.whole()?;
        if kinds & !XID != 0 {
            return Err(NOT_SUPPORTED);
        }
        let (gpu, now_us) = (target.handle.gpu, target.session.now_us);
        let set = target.session.events.sets.get_mut(&set.addr()).ok_or(INVALID_ARGUMENT)?;
        set.gpus.push((gpu, now_us));
        Ok(())
    }
}
