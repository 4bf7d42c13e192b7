//! How busy a GPU is: the last sample period, and the driver's rings of samples.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlSample_t, nvmlSamplingType_t, nvmlUtilization_t, nvmlValue_t, nvmlValueType_t};

use crate::answer::{Code, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, Outcome, get, put};
use crate::handle::Target;
use crate::timeline::{Load, PERIOD_US};

/// The samplers' clock is not the wall clock: it starts here.
const SAMPLER_EPOCH_US: u64 = 1_600_000_000_000_000;

/// Places in a ring of utilization samples and of power samples.
const UTILIZATION_RING: u64 = 100;
const POWER_RING: u64 = 120;

const UNSIGNED_INT: nvmlValueType_t = 1;

/// Whole percent.
pub(crate) fn percent(value: f64) -> c_uint {
    value.round() as c_uint
}

fn last(target: &Target<'_>) -> Result<Load, Code> {
    let gpu = target.undivided()?;
    Ok(target.session.timeline.load(gpu, target.session.period()))
}

/// The value of one kind of sample in one period. Anything but power is zero while the GPU does nothing.
fn sample(target: &Target<'_>, kind: nvmlSamplingType_t, period: u64) -> Result<c_uint, Code> {
    let gpu = target.handle.gpu;
    let load = || target.session.timeline.load(gpu, period);
    let clocks = target.device().model.clocks_mhz;
    Ok(match kind {
        0 => (target.session.timeline.watts(gpu, period) * 1e3).round() as c_uint,
        1 => percent(load().gpu),
        2 => percent(load().memory),
        3 => percent(load().encoder),
        4 => percent(load().decoder),
        5 => {
            if load().gpu > 0.0 {
                clocks.graphics.busy
            } else {
                0
            }
        }
        6 => {
            if load().gpu > 0.0 {
                clocks.memory.busy
            } else {
                0
            }
        }
        8 | 9 => 0,
        7 => return Err(NOT_SUPPORTED),
        _ => return Err(INVALID_ARGUMENT),
    })
}

/// The samples newer than `last_seen` that the ring still holds, oldest first.
fn ring(target: &Target<'_>, kind: nvmlSamplingType_t, last_seen: u64) -> Result<Vec<nvmlSample_t>, Code> {
    if kind != 0 {
        target.undivided()?;
    }
    let newest = target.session.period();
    let places = if kind == 0 { POWER_RING } else { UTILIZATION_RING };
    let mut samples = Vec::new();
    let mut active = kind == 0;
    for period in newest.saturating_sub(places - 1)..=newest {
        let stamp = target.session.sampler_us((period + 1) * PERIOD_US).saturating_sub(SAMPLER_EPOCH_US);
        if stamp > last_seen {
            let value = sample(target, kind, period)?;
            active |= value > 0;
            samples.push(nvmlSample_t { timeStamp: stamp, sampleValue: nvmlValue_t { uiVal: value } });
        }
    }
    // A driver that saw no work has no samples to give.
    if samples.is_empty() || !active { Err(NOT_FOUND) } else { Ok(samples) }
}

fn put_samples(samples: &[nvmlSample_t], count: *mut c_uint, to: *mut nvmlSample_t) -> Outcome {
    let count = get(count)?;
    if to.is_null() {
        *count = c_uint::try_from(samples.len()).map_err(|_| INVALID_ARGUMENT)?;
        return Ok(());
    }
    // What has come since the caller asked for the size waits for the next call.
    let fitting = samples.get(..samples.len().min(*count as usize)).unwrap_or_default();
    crate::answer::put_list(to, count, fitting)
}

fn engine(target: &Target<'_>, value: fn(&Load) -> f64, to: *mut c_uint, period: *mut c_uint) -> Outcome {
    put(to, percent(value(&last(target)?)))?;
    put(period, PERIOD_US as c_uint)
}

device_calls! {
    fn nvmlDeviceGetUtilizationRates(target, to: *mut nvmlUtilization_t) {
        let load = last(&target)?;
        put(to, nvmlUtilization_t { gpu: percent(load.gpu), memory: percent(load.memory) })
    }

    fn nvmlDeviceGetSamples(
        target,
        kind: nvmlSamplingType_t,
        last_seen: c_ulonglong,
        value_type: *mut nvmlValueType_t,
        count: *mut c_uint,
        samples: *mut nvmlSample_t,
    ) {
        target.whole()?;
        let ring = ring(&target, kind, last_seen)?;
        put(value_type, UNSIGNED_INT)?;
        put_samples(&ring, count, samples)
    }

    fn nvmlDeviceGetEncoderUtilization(target, to: *mut c_uint, period: *mut c_uint) {
        engine(&target, |load| load.encoder, to, period)
    }

    fn nvmlDeviceGetDecoderUtilization(target, to: *mut c_uint, period: *mut c_uint) {
        engine(&target, |load| load.decoder, to, period)
    }

    fn nvmlDeviceGetJpgUtilization(target, to: *mut c_uint, period: *mut c_uint) {
        engine(&target, |_| 0.0, to, period)
    }

    fn nvmlDeviceGetOfaUtilization(target, to: *mut c_uint, period: *mut c_uint) {
        engine(&target, |_| 0.0, to, period)
    }

    fn nvmlDeviceGetEncoderStats(target, sessions: *mut c_uint, fps: *mut c_uint, latency: *mut c_uint) {
        target.whole()?;
        put(sessions, 0)?;
        put(fps, 0)?;
        put(latency, 0)
    }
}
