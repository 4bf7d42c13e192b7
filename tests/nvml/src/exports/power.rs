//! Power, energy, temperature, fans.

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlEnableState_t, nvmlTemperature_t, nvmlTemperatureSensors_t, nvmlTemperatureThresholds_t,
};

use crate::answer::{Code, INVALID_ARGUMENT, NOT_SUPPORTED, check_version, get, put};
use crate::handle::Target;

/// Watts to the milliwatts that NVML speaks.
fn milliwatts(watts: f64) -> c_uint {
    (watts * 1e3).round() as c_uint
}

/// Power of the last sample period, in mW.
pub(crate) fn usage_mw(target: &Target<'_>) -> Result<c_uint, Code> {
    target.whole()?;
    Ok(milliwatts(target.session.timeline.watts(target.handle.gpu, target.session.period())))
}

/// Power of the last second, in mW.
pub(crate) fn average_mw(target: &Target<'_>) -> Result<c_uint, Code> {
    target.whole()?;
    let (newest, periods) = (target.session.period(), 6);
    let watts = |back: u64| target.session.timeline.watts(target.handle.gpu, newest.saturating_sub(back));
    Ok(milliwatts((0..periods).map(watts).sum::<f64>() / periods as f64))
}

/// Energy since the driver was loaded, in mJ.
pub(crate) fn energy_mj(target: &mut Target<'_>) -> Result<c_ulonglong, Code> {
    let fixed = target.whole()?.gpu.energy_mj;
    Ok(fixed.unwrap_or_else(|| target.session.energy_mj(target.handle.gpu as usize)))
}

/// Whole degrees Celsius.
pub(crate) fn celsius(target: &Target<'_>) -> Result<c_uint, Code> {
    target.whole()?;
    Ok(target.session.timeline.celsius(target.handle.gpu, target.session.now_us).round() as c_uint)
}

device_calls! {
    fn nvmlDeviceGetPowerUsage(target, power: *mut c_uint) {
        put(power, usage_mw(&target)?)
    }

    fn nvmlDeviceGetTotalEnergyConsumption(target, energy: *mut c_ulonglong) {
        put(energy, energy_mj(&mut target)?)
    }

    fn nvmlDeviceGetEnforcedPowerLimit(target, limit: *mut c_uint) {
        put(limit, milliwatts(target.whole()?.model.power_watts.limit))
    }

    fn nvmlDeviceGetPowerManagementLimit(target, limit: *mut c_uint) {
        put(limit, milliwatts(target.whole()?.model.power_watts.limit))
    }

    fn nvmlDeviceGetPowerManagementDefaultLimit(target, limit: *mut c_uint) {
        put(limit, milliwatts(target.whole()?.model.power_watts.limit))
    }

    fn nvmlDeviceGetPowerManagementLimitConstraints(target, low: *mut c_uint, high: *mut c_uint) {
        let power = target.whole()?.model.power_watts;
        put(low, milliwatts(power.min))?;
        put(high, milliwatts(power.max))
    }

    fn nvmlDeviceGetPowerManagementMode(target, mode: *mut nvmlEnableState_t) {
        target.whole()?;
        put(mode, 1)
    }

    fn nvmlDeviceGetTemperature(target, sensor: nvmlTemperatureSensors_t, degrees: *mut c_uint) {
        if sensor != 0 {
            return Err(INVALID_ARGUMENT);
        }
        put(degrees, celsius(&target)?)
    }

    fn nvmlDeviceGetTemperatureV(target, reading: *mut nvmlTemperature_t) {
        let reading = get(reading)?;
        check_version::<nvmlTemperature_t>(reading.version, 1)?;
        reading.temperature = c_int::try_from(celsius(&target)?).map_err(|_| crate::answer::UNKNOWN)?;
        Ok(())
    }

    fn nvmlDeviceGetTemperatureThreshold(target, threshold: nvmlTemperatureThresholds_t, degrees: *mut c_uint) {
        let temperature = target.whole()?.model.temperature_celsius;
        match threshold {
            0 => put(degrees, temperature.shutdown),
            1 => put(degrees, temperature.slowdown),
            2 if temperature.memory_over_gpu.is_some() => put(degrees, temperature.slowdown + 8),
            3 => put(degrees, temperature.slowdown - 4),
            _ => Err(NOT_SUPPORTED),
        }
    }

    // Passively cooled boards, all of them.
    fn nvmlDeviceGetFanSpeed(target, _percent: *mut c_uint) {
        target.whole()?;
        Err(NOT_SUPPORTED)
    }

    fn nvmlDeviceGetFanSpeed_v2(target, _fan: c_uint, _percent: *mut c_uint) {
        target.whole()?;
        Err(NOT_SUPPORTED)
    }

    fn nvmlDeviceGetNumFans(target, fans: *mut c_uint) {
        target.whole()?;
        put(fans, 0)
    }
}
