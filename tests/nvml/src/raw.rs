//! Bare calls to any NVML library, timed: what reading costs when nobody stands between. The names are those by which the agent counts its calls.

use std::collections::BTreeMap;
use std::ffi::c_uint;
use std::path::Path;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{
    NVML_GPM_METRICS_GET_VERSION, NvmlLib, nvmlDevice_t, nvmlFieldValue_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t,
    nvmlMemory_v2_t, nvmlProcessInfo_t, nvmlProcessUtilizationSample_t, nvmlReturn_t, nvmlSample_t, nvmlUtilization_t,
};

/// Room in each list.
const ITEMS: usize = 128;
/// The fields that the agent asks at each reading, in the numbering before driver 580.82.
const FIELDS: [u32; 18] = [82, 185, 186, 197, 198, 138, 139, 74, 75, 76, 77, 78, 79, 80, 81, 251, 252, 253];
/// GPM's metrics, as the agent asks them.
const METRICS: [u32; 12] = [1, 2, 3, 5, 10, 11, 12, 13, 20, 21, 61, 60];

/// A library, and the first GPU of it.
pub struct Raw {
    lib: NvmlLib,
    device: nvmlDevice_t,
    gpm: Option<[nvmlGpmSample_t; 2]>,
    /// The newest sample that was read, by kind.
    seen: [u64; 3],
}

/// How long each call took, by the agent's name of it.
pub type Times = BTreeMap<&'static str, Vec<Duration>>;

/// A function that the library has.
fn call<T: Copy, E>(loaded: &Result<T, E>) -> Option<T> {
    loaded.as_ref().ok().copied()
}

impl Raw {
    /// Opens a library; nothing when it has no GPU, or refuses.
    #[must_use]
    pub fn open(library: &Path) -> Option<Self> {
        // SAFETY: an NVML library, by the caller's word; every function is called as nvml.h declares it.
        unsafe {
            let lib = NvmlLib::new(library).ok()?;
            (call(&lib.nvmlInit_v2)?() == 0).then_some(())?;
            let mut device = std::ptr::null_mut();
            (call(&lib.nvmlDeviceGetHandleByIndex_v2)?(0, &raw mut device) == 0).then_some(())?;
            let sample = || {
                let mut sample = std::ptr::null_mut();
                (call(&lib.nvmlGpmSampleAlloc)?(&raw mut sample) == 0).then_some(sample)
            };
            let gpm = sample().zip(sample()).map(|(one, other)| [one, other]);
            Some(Self { lib, device, gpm, seen: [0; 3] })
        }
    }

    /// Makes each call of one reading once, in the agent's order. What the library refuses takes no time in later readings of the agent, and is left out.
    #[expect(clippy::too_many_lines, reason = "one line for each call")]
    pub fn read(&mut self, times: &mut Times) {
        let (device, lib) = (self.device, &self.lib);
        let mut timed = |name: &'static str, make: &mut dyn FnMut() -> Option<nvmlReturn_t>| {
            let start = now();
            let code = make();
            let took = start.elapsed();
            // 6: nothing new, which is an answer.
            if matches!(code, Some(0 | 6)) {
                times.entry(name).or_default().push(took);
            }
        };
        // SAFETY: as in `open`; lists lend as many places as they say, and everything lives across its call.
        unsafe {
            let mut memory: nvmlMemory_v2_t = std::mem::zeroed();
            memory.version = size_of::<nvmlMemory_v2_t>() as u32 | 2 << 24;
            timed("memory_info", &mut || Some(call(&lib.nvmlDeviceGetMemoryInfo_v2)?(device, &raw mut memory)));
            for (name, kind) in [("utilization_samples", 1), ("memory_samples", 2)] {
                let mut samples: Vec<nvmlSample_t> = vec![std::mem::zeroed(); ITEMS];
                let (mut count, mut tag) = (ITEMS as c_uint, 0);
                let seen = self.seen[kind as usize];
                timed(name, &mut || {
                    let ask = call(&lib.nvmlDeviceGetSamples)?;
                    Some(ask(device, kind, seen, &raw mut tag, &raw mut count, samples.as_mut_ptr()))
                });
                let newest = samples.iter().map(|sample| sample.timeStamp).max().unwrap_or(0);
                self.seen[kind as usize] = seen.max(newest);
            }
            let mut rates: nvmlUtilization_t = std::mem::zeroed();
            timed("utilization_rates", &mut || Some(call(&lib.nvmlDeviceGetUtilizationRates)?(device, &raw mut rates)));
            let (mut one, mut two, mut long) = (0_u32, 0_u32, 0_u64);
            let (first, second, wide) = (&raw mut one, &raw mut two, &raw mut long);
            timed("encoder_utilization", &mut || {
                Some(call(&lib.nvmlDeviceGetEncoderUtilization)?(device, first, second))
            });
            timed("decoder_utilization", &mut || {
                Some(call(&lib.nvmlDeviceGetDecoderUtilization)?(device, first, second))
            });
            let mut fields: Vec<nvmlFieldValue_t> = vec![std::mem::zeroed(); FIELDS.len()];
            for (field, id) in fields.iter_mut().zip(FIELDS) {
                field.fieldId = id;
                field.scopeId = if matches!(id, 138 | 139) { u32::MAX } else { 0 };
            }
            timed("field_values", &mut || {
                Some(call(&lib.nvmlDeviceGetFieldValues)?(device, FIELDS.len() as i32, fields.as_mut_ptr()))
            });
            timed("clocks_event_reasons", &mut || {
                Some(call(&lib.nvmlDeviceGetCurrentClocksThrottleReasons)?(device, wide))
            });
            timed("power_usage", &mut || Some(call(&lib.nvmlDeviceGetPowerUsage)?(device, first)));
            timed("enforced_power_limit", &mut || Some(call(&lib.nvmlDeviceGetEnforcedPowerLimit)?(device, first)));
            timed("total_energy_consumption", &mut || {
                Some(call(&lib.nvmlDeviceGetTotalEnergyConsumption)?(device, wide))
            });
            timed("temperature", &mut || Some(call(&lib.nvmlDeviceGetTemperature)?(device, 0, first)));
            for (name, clock) in [("sm_clock", 1), ("memory_clock", 2), ("video_clock", 3)] {
                timed(name, &mut || Some(call(&lib.nvmlDeviceGetClockInfo)?(device, clock, first)));
            }
            for (name, list) in [
                ("compute_processes", &lib.nvmlDeviceGetComputeRunningProcesses_v3),
                ("mps_processes", &lib.nvmlDeviceGetMPSComputeRunningProcesses_v3),
                ("graphics_processes", &lib.nvmlDeviceGetGraphicsRunningProcesses_v3),
            ] {
                let mut infos: Vec<nvmlProcessInfo_t> = vec![std::mem::zeroed(); ITEMS];
                let mut count = ITEMS as c_uint;
                timed(name, &mut || Some(call(list)?(device, &raw mut count, infos.as_mut_ptr())));
            }
            let mut samples: Vec<nvmlProcessUtilizationSample_t> = vec![std::mem::zeroed(); ITEMS];
            let mut count = ITEMS as c_uint;
            let seen = self.seen[0];
            timed("process_utilization", &mut || {
                let ask = call(&lib.nvmlDeviceGetProcessUtilization)?;
                Some(ask(device, samples.as_mut_ptr(), &raw mut count, seen))
            });
            self.seen[0] = samples.iter().map(|sample| sample.timeStamp).max().unwrap_or(0).max(seen);
            if let Some(gpm) = &mut self.gpm {
                gpm.swap(0, 1);
                timed("gpm_sample", &mut || Some(call(&lib.nvmlGpmSampleGet)?(device, gpm[1])));
                let mut request: nvmlGpmMetricsGet_t = std::mem::zeroed();
                request.version = NVML_GPM_METRICS_GET_VERSION;
                (request.sample1, request.sample2) = (gpm[0], gpm[1]);
                request.numMetrics = METRICS.len() as u32;
                for (place, id) in request.metrics.iter_mut().zip(METRICS) {
                    place.metricId = id;
                }
                timed("gpm_metrics", &mut || Some(call(&lib.nvmlGpmMetricsGet)?(&raw mut request)));
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured here is time")]
fn now() -> Instant {
    Instant::now()
}
