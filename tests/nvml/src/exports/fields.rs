//! Field values: the numbered questions that a program can ask in one call. Drivers from 580.82 on number some of them anew.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::{nvmlFieldValue_t, nvmlValue_t, nvmlValueType_t};

use crate::answer::{Code, INVALID_ARGUMENT, NOT_SUPPORTED};
use crate::exports::power;
use crate::handle::Target;
use crate::model::Architecture;
use crate::profile::NvlinkCounters;

const UNSIGNED_INT: nvmlValueType_t = 1;
const UNSIGNED_LONG_LONG: nvmlValueType_t = 3;
const ALL_LINKS: u32 = u32::MAX;

/// Most values in one call.
const MAX_VALUES: usize = 512;

type Value = (nvmlValueType_t, u64);

fn int(value: impl Into<u64>) -> Value {
    (UNSIGNED_INT, value.into())
}

fn long(value: u64) -> Value {
    (UNSIGNED_LONG_LONG, value)
}

/// NVLink traffic in KiB since the driver was loaded, on one link or on all.
fn nvlink_kib(target: &mut Target<'_>, scope: u32) -> Result<Value, Code> {
    let links = target.whole()?.model.nvlinks;
    if links == 0 {
        return Err(NOT_SUPPORTED);
    }
    let total = power::energy_mj(target)? / 64;
    match (scope, target.device().gpu.nvlink) {
        (_, NvlinkCounters::LinkBytes) => return Err(NOT_SUPPORTED),
        (ALL_LINKS, NvlinkCounters::Links) => return Ok(long(0)),
        _ => {}
    }
    match scope {
        ALL_LINKS => Ok(long(total * u64::from(links))),
        link if link < links => Ok(long(total)),
        _ => Err(INVALID_ARGUMENT),
    }
}

/// The same in bytes, of one link.
fn nvlink_bytes(target: &mut Target<'_>, scope: u32) -> Result<Value, Code> {
    let counts = target.whole()?.gpu.nvlink == NvlinkCounters::LinkBytes;
    if !counts || scope >= target.device().model.nvlinks {
        return Err(NOT_SUPPORTED);
    }
    Ok(long(power::energy_mj(target)? * 16))
}

/// Whether the driver numbers fields as 580.82 and newer do.
fn renumbered(driver: &str) -> bool {
    let mut parts = driver.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (580, 82)
}

/// The bit of `nvmlClocksEventReason*` whose time a field counts.
fn reason(field: u32, renumbered: bool) -> Option<u32> {
    match (field, renumbered) {
        (74, _) => Some(2),
        (76, _) => Some(4),
        (251, false) | (269, true) => Some(5),
        (252, false) | (270, true) => Some(6),
        (253, false) | (271, true) => Some(7),
        _ => None,
    }
}

/// The answer to one question.
fn answer(target: &mut Target<'_>, field: u32, scope: u32) -> Result<Value, Code> {
    let modern = !matches!(target.whole()?.model.architecture, Architecture::Turing);
    if let Some(bit) = reason(field, renumbered(&target.machine.profile.driver)) {
        return Ok(long(target.session.held_ns(target.handle.gpu as usize, bit)));
    }
    match field {
        82 => {
            let warmer = target.device().model.temperature_celsius.memory_over_gpu.ok_or(NOT_SUPPORTED)?;
            Ok(int(power::celsius(target)? + warmer as u32))
        }
        83 | 191 => Ok(long(power::energy_mj(target)?)),
        138..=141 => nvlink_kib(target, scope),
        202 | 204 => nvlink_bytes(target, scope),
        185 if modern => Ok(int(power::average_mw(target)?)),
        186 if modern => Ok(int(power::usage_mw(target)?)),
        197 | 198 => Ok(long(power::energy_mj(target)? * 1024)),
        75 | 77..=81 => Ok(long(0)),
        _ => wear(target, field, modern),
    }
}

/// Wear, damage and limits.
fn wear(target: &Target<'_>, field: u32, modern: bool) -> Result<Value, Code> {
    let device = target.device();
    let (errors, health, power) = (device.gpu.ecc_errors, device.gpu.health, device.model.power_watts);
    let milli = |watts: f64| int((watts * 1e3) as u64);
    match field {
        1 | 2 => Ok(int(1_u32)),
        3 | 5 => Ok(long(errors.corrected)),
        4 | 6 => Ok(long(errors.uncorrected)),
        29 if !modern => Ok(long(health.retired_pages.0.into())),
        30 if !modern => Ok(long(health.retired_pages.1.into())),
        31 | 92 | 93 if !modern => Ok(long(health.retired_pending.into())),
        91 => Ok(int(device.model.nvlinks)),
        94 => Ok(int(health.pcie_replays)),
        95 => Ok(int(0_u32)),
        142 if modern => Ok(int(health.remapped_rows.0)),
        143 if modern => Ok(int(health.remapped_rows.1)),
        144 if modern => Ok(int(health.remap_pending)),
        145 if modern => Ok(int(health.remap_failed)),
        187 => Ok(milli(power.min)),
        188 => Ok(milli(power.max)),
        189 | 190 | 192 => Ok(milli(power.limit)),
        199 => Ok(int(device.mig.is_some())),
        226 | 227 => Ok(int(0_u32)),
        230 => Ok(int(health.recovery_action)),
        _ => Err(NOT_SUPPORTED),
    }
}

device_calls! {
    fn nvmlDeviceGetFieldValues(target, count: c_int, values: *mut nvmlFieldValue_t) {
        let count = usize::try_from(count).ok().filter(|count| (1..=MAX_VALUES).contains(count)).ok_or(INVALID_ARGUMENT)?;
        if values.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller promises `count` structs that nobody else touches during the call.
        let values = unsafe { std::slice::from_raw_parts_mut(values, count) };
        for value in values {
            value.timestamp = target.session.now_us.cast_signed();
            value.latencyUsec = 1;
            match answer(&mut target, value.fieldId, value.scopeId) {
                Ok((kind, number)) => {
                    value.nvmlReturn = 0;
                    value.valueType = kind;
                    value.value = nvmlValue_t { ullVal: number };
                }
                Err(code) => value.nvmlReturn = code,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_from_580_82_on_number_some_fields_anew() {
        for (driver, expect) in
            [("575.57.08", false), ("580.65.06", false), ("580.82.07", true), ("610.1", true), ("", false)]
        {
            assert_eq!(renumbered(driver), expect, "{driver}");
        }
        assert_eq!(
            (reason(252, false), reason(252, true), reason(270, true), reason(74, true)),
            (Some(6), None, Some(6), Some(2))
        );
    }
}
