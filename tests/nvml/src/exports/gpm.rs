//! GPM: counters of a GPU or of one MIG instance between two samples. A sample here is only a moment; the
//! metrics are the timeline's means between the two moments.

use std::collections::BTreeMap;
use std::ffi::c_uint;
use std::sync::{Mutex, PoisonError};

use nvml_wrapper_sys::bindings::{nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t};

use crate::answer::{ARGUMENT_VERSION_MISMATCH, Code, INVALID_ARGUMENT, NOT_SUPPORTED, Outcome, get, put};
use crate::handle::Target;
use crate::session::Session;

/// Most samples alive at once: far above what a program needs, and a bound on a leak.
const MAX_SAMPLES: usize = 100_000;

/// Two samples must be at least this far apart.
const CLOSEST_US: u64 = 100_000;

static SAMPLES: Mutex<BTreeMap<usize, Option<Sample>>> = Mutex::new(BTreeMap::new());

/// What was sampled, and when.
#[derive(Clone, Copy)]
struct Sample {
    gpu: u32,
    gpu_instance: Option<u32>,
    at_us: u64,
}

fn supported(target: &Target<'_>) -> bool {
    let device = target.device();
    device.gpu.gpm.unwrap_or(device.model.gpm)
}

fn keep(sample: nvmlGpmSample_t, taken: Sample) -> Outcome {
    let mut samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
    *samples.get_mut(&sample.addr()).ok_or(INVALID_ARGUMENT)? = Some(taken);
    Ok(())
}

fn taken(sample: nvmlGpmSample_t) -> Result<Sample, Code> {
    let samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
    samples.get(&sample.addr()).copied().flatten().ok_or(INVALID_ARGUMENT)
}

/// One metric, by its number, between two samples.
fn metric(session: &Session, id: c_uint, from: Sample, to: Sample) -> Result<f64, Code> {
    let sm = match to.gpu_instance {
        Some(instance) => session.timeline.mean_instance(to.gpu, instance, from.at_us, to.at_us),
        None => session.timeline.mean_gpu(to.gpu, from.at_us, to.at_us),
    };
    let value = match id {
        1 | 2 => Ok(sm),
        // Occupancy, tensor pipe, memory bandwidth, FP32, FP16: fixed parts of the SM time.
        3 => Ok(sm * 0.5),
        5 | 7 => Ok(sm * 0.6),
        10 => Ok(sm * 0.4),
        12 | 13 => Ok(sm * 0.3),
        4 | 6 | 9 | 11 => Ok(0.0),
        // MiB/s over PCIe and NVLink.
        20 | 21 => Ok(sm * 2.0),
        60 | 61 => Ok(sm * 20.0),
        _ => Err(NOT_SUPPORTED),
    };
    // Means of a constant load are that load, whatever the moments of the samples.
    value.map(|value| (value * 1e6).round() / 1e6)
}

system_calls! {
    fn nvmlGpmSampleAlloc(_session, to: *mut nvmlGpmSample_t) {
        let mut samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= MAX_SAMPLES {
            return Err(20);
        }
        let next = samples.last_key_value().map_or(0x6770_6d00, |(last, _)| last + 16);
        samples.insert(next, None);
        put(to, std::ptr::without_provenance_mut(next))
    }

    fn nvmlGpmSampleFree(_session, sample: nvmlGpmSample_t) {
        let mut samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
        samples.remove(&sample.addr()).map(|_| ()).ok_or(INVALID_ARGUMENT)
    }

    fn nvmlGpmMetricsGet(session, request: *mut nvmlGpmMetricsGet_t) {
        let request = get(request)?;
        if request.version != 1 {
            return Err(ARGUMENT_VERSION_MISMATCH);
        }
        let (from, to) = (taken(request.sample1)?, taken(request.sample2)?);
        let same = from.gpu == to.gpu && from.gpu_instance == to.gpu_instance;
        if !same || to.at_us < from.at_us + CLOSEST_US {
            return Err(INVALID_ARGUMENT);
        }
        for wanted in request.metrics.iter_mut().take(request.numMetrics as usize) {
            match metric(session, wanted.metricId, from, to) {
                Ok(value) => {
                    wanted.nvmlReturn = 0;
                    wanted.value = value;
                }
                Err(code) => wanted.nvmlReturn = code,
            }
        }
        Ok(())
    }
}

device_calls! {
    fn nvmlGpmQueryDeviceSupport(target, to: *mut nvmlGpmSupport_t) {
        get(to)?.isSupportedDevice = u32::from(supported(&target));
        Ok(())
    }

    fn nvmlGpmSampleGet(target, sample: nvmlGpmSample_t) {
        if !supported(&target) {
            return Err(NOT_SUPPORTED);
        }
        let gpu_instance = target.handle.mig.map(|(gi, _)| gi);
        keep(sample, Sample { gpu: target.handle.gpu, gpu_instance, at_us: target.session.now_us })
    }

    fn nvmlGpmMigSampleGet(target, gpu_instance: c_uint, sample: nvmlGpmSample_t) {
        if !supported(&target) {
            return Err(NOT_SUPPORTED);
        }
        let instances = target.whole()?.mig.as_ref().ok_or(NOT_SUPPORTED)?;
        if !instances.iter().any(|mig| mig.gpu_instance == gpu_instance) {
            return Err(crate::answer::NOT_FOUND);
        }
        keep(sample, Sample { gpu: target.handle.gpu, gpu_instance: Some(gpu_instance), at_us: target.session.now_us })
    }
}
