//! Field values: the numbered questions that a program can ask in one call.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::{nvmlFieldValue_t, nvmlValue_t, nvmlValueType_t};

use crate::answer::{Code, INVALID_ARGUMENT, NOT_SUPPORTED};
use crate::exports::power;
use crate::handle::Target;
use crate::model::Architecture;

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
    match scope {
        ALL_LINKS => Ok(long(total * u64::from(links))),
        link if link < links => Ok(long(total)),
        _ => Err(INVALID_ARGUMENT),
    }
}

/// The answer to one question.
fn answer(target: &mut Target<'_>, field: u32, scope: u32) -> Result<Value, Code> {
    let device = target.whole()?;
    let (model, errors, mig) = (&device.model, device.gpu.ecc_errors, device.mig.is_some());
    let (limit, rows) = (model.power_watts.limit, !matches!(model.architecture, Architecture::Turing));
    let milli = |watts: f64| int((watts * 1e3) as u64);
    match field {
        1 | 2 => Ok(int(1_u32)),
        3 | 5 => Ok(long(errors.corrected)),
        4 | 6 => Ok(long(errors.uncorrected)),
        29..=31 | 92 | 93 if !rows => Ok(long(0)),
        74..=81 => Ok(long(0)),
        82 => {
            let warmer = model.temperature_celsius.memory_over_gpu.ok_or(NOT_SUPPORTED)?;
            Ok(int(power::celsius(target)? + warmer as u32))
        }
        83 | 191 => Ok(long(power::energy_mj(target)?)),
        91 => Ok(int(model.nvlinks)),
        94 | 95 => Ok(int(0_u32)),
        138..=141 => nvlink_kib(target, scope),
        142..=145 if rows => Ok(int(0_u32)),
        185 | 186 => Ok(int(power::usage_mw(target)?)),
        187 => Ok(milli(model.power_watts.min)),
        188 => Ok(milli(model.power_watts.max)),
        189 | 190 | 192 => Ok(milli(limit)),
        197 | 198 => Ok(long(power::energy_mj(target)? * 1024)),
        199 => Ok(int(u32::from(mig))),
        226 | 227 | 230 => Ok(int(0_u32)),
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
