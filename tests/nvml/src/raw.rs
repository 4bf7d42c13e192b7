//! Bare calls to any NVML library, timed: what reading costs when nobody stands between. The names are those by which the agent counts its calls.
//! Everything that a call fills lies ready before it, and what it answered is looked at after its time was taken.

use std::ffi::{c_char, c_uint};
use std::path::Path;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{
    NVML_GPM_METRICS_GET_VERSION, NvmlLib, nvmlConfComputeSystemState_t, nvmlDevice_t, nvmlFieldValue_t,
    nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpuFabricInfo_t, nvmlGridLicensableFeatures_t, nvmlMemory_v2_t,
    nvmlProcessInfo_t, nvmlProcessUtilizationSample_t, nvmlReturn_t, nvmlSample_t, nvmlUtilization_t,
};

/// Room in each list.
const ITEMS: usize = 128;
/// The fields that the agent asks at each reading, and once in a while; in the numbering before driver 580.82.
const MOVING: [u32; 18] = [82, 185, 186, 197, 198, 138, 139, 74, 75, 76, 77, 78, 79, 80, 81, 251, 252, 253];
const LASTING: [u32; 13] = [3, 4, 5, 6, 29, 30, 31, 94, 142, 143, 144, 145, 230];
/// Fields about NVLink: sent and received, asked over all links or of each.
const NVLINK: [u32; 2] = [138, 139];
const LINKS: u32 = 18;
/// GPM's metrics, as the agent asks them.
const METRICS: [u32; 12] = [1, 2, 3, 5, 10, 11, 12, 13, 20, 21, 61, 60];
/// What a device does not answer, now or ever: `NVML_ERROR_INVALID_ARGUMENT`, `_NOT_SUPPORTED`, `_NO_PERMISSION`, `_FUNCTION_NOT_FOUND`.
const UNSUPPORTED: [nvmlReturn_t; 4] = [2, 3, 4, 13];
/// `NVML_ERROR_NOT_FOUND`: there is nothing new, which is an answer.
const NOTHING: nvmlReturn_t = 6;

/// A library, the first GPU of it, and room for what it answers.
pub struct Raw {
    lib: NvmlLib,
    device: nvmlDevice_t,
    memory: nvmlMemory_v2_t,
    rates: nvmlUtilization_t,
    numbers: [c_uint; 2],
    wide: u64,
    count: c_uint,
    samples: Vec<nvmlSample_t>,
    infos: Vec<nvmlProcessInfo_t>,
    processes: Vec<nvmlProcessUtilizationSample_t>,
    moving: Vec<nvmlFieldValue_t>,
    lasting: Vec<nvmlFieldValue_t>,
    links: Vec<nvmlFieldValue_t>,
    fabric: nvmlGpuFabricInfo_t,
    confidential: nvmlConfComputeSystemState_t,
    features: Box<nvmlGridLicensableFeatures_t>,
    gpm: [nvmlGpmSample_t; 2],
    request: Box<nvmlGpmMetricsGet_t>,
    /// The newest sample that was read: of processes, of the GPU, of its memory.
    seen: [u64; 3],
}

/// One kind of call: the agent's word for it, NVML's function, and how it is made.
struct Call {
    name: &'static str,
    function: &'static str,
    make: fn(&mut Raw) -> Option<nvmlReturn_t>,
}

/// `"the agent's word": function(raw; arguments…);`
macro_rules! calls {
    ($($name:literal: $function:ident($raw:ident; $($argument:expr),*);)*) => {
        const CALLS: &[Call] = &[$(Call {
            name: $name,
            function: stringify!($function),
            make: |$raw| {
                let function = call(&$raw.lib.$function)?;
                // SAFETY: called as nvml.h declares it; lists lend as many places as they say, and everything lives across the call.
                Some(unsafe { function($($argument),*) })
            },
        }),*];
    };
}

calls! {
    "memory_info": nvmlDeviceGetMemoryInfo_v2(it; it.device, &raw mut it.memory);
    "mig_mode": nvmlDeviceGetMigMode(it; it.device, it.number(0), it.number(1));
    "utilization_samples": nvmlDeviceGetSamples(it; it.device, 1, it.seen[1], it.number(0), it.lend(), it.samples.as_mut_ptr());
    "memory_samples": nvmlDeviceGetSamples(it; it.device, 2, it.seen[2], it.number(0), it.lend(), it.samples.as_mut_ptr());
    "utilization_rates": nvmlDeviceGetUtilizationRates(it; it.device, &raw mut it.rates);
    "encoder_utilization": nvmlDeviceGetEncoderUtilization(it; it.device, it.number(0), it.number(1));
    "decoder_utilization": nvmlDeviceGetDecoderUtilization(it; it.device, it.number(0), it.number(1));
    "field_values": nvmlDeviceGetFieldValues(it; it.device, it.moving.len() as i32, it.moving.as_mut_ptr());
    "clocks_event_reasons": nvmlDeviceGetCurrentClocksThrottleReasons(it; it.device, &raw mut it.wide);
    "power_usage": nvmlDeviceGetPowerUsage(it; it.device, it.number(0));
    "enforced_power_limit": nvmlDeviceGetEnforcedPowerLimit(it; it.device, it.number(0));
    "total_energy_consumption": nvmlDeviceGetTotalEnergyConsumption(it; it.device, &raw mut it.wide);
    "temperature": nvmlDeviceGetTemperature(it; it.device, 0, it.number(0));
    "sm_clock": nvmlDeviceGetClockInfo(it; it.device, 1, it.number(0));
    "memory_clock": nvmlDeviceGetClockInfo(it; it.device, 2, it.number(0));
    "video_clock": nvmlDeviceGetClockInfo(it; it.device, 3, it.number(0));
    "virtualization_mode": nvmlDeviceGetVirtualizationMode(it; it.device, it.number(0));
    "conf_compute_state": nvmlSystemGetConfComputeState(it; &raw mut it.confidential);
    "grid_licensable_features": nvmlDeviceGetGridLicensableFeatures_v4(it; it.device, &raw mut *it.features);
    "compute_processes": nvmlDeviceGetComputeRunningProcesses_v3(it; it.device, it.lend(), it.infos.as_mut_ptr());
    "mps_processes": nvmlDeviceGetMPSComputeRunningProcesses_v3(it; it.device, it.lend(), it.infos.as_mut_ptr());
    "graphics_processes": nvmlDeviceGetGraphicsRunningProcesses_v3(it; it.device, it.lend(), it.infos.as_mut_ptr());
    "process_utilization": nvmlDeviceGetProcessUtilization(it; it.device, it.processes.as_mut_ptr(), it.lend(), it.seen[0]);
    "gpm_sample": nvmlGpmSampleGet(it; it.device, it.gpm[1]);
    "gpm_metrics": nvmlGpmMetricsGet(it; &raw mut *it.request);
    "lasting_field_values": nvmlDeviceGetFieldValues(it; it.device, it.lasting.len() as i32, it.lasting.as_mut_ptr());
    "nvlink_field_values": nvmlDeviceGetFieldValues(it; it.device, it.links.len() as i32, it.links.as_mut_ptr());
    "gpu_fabric_info": nvmlDeviceGetGpuFabricInfo(it; it.device, &raw mut it.fabric);
}

/// NVML's function behind the agent's word for a call.
#[must_use]
pub fn function(name: &str) -> Option<&'static str> {
    CALLS.iter().find(|call| call.name == name).map(|call| call.function)
}

/// Where a call comes in the agent's order; what is not known comes last.
#[must_use]
pub fn place(name: &str) -> usize {
    CALLS.iter().position(|call| call.name == name).unwrap_or(CALLS.len())
}

/// A function that the library has.
fn call<T: Copy, E>(loaded: &Result<T, E>) -> Option<T> {
    loaded.as_ref().ok().copied()
}

/// NVML's structs are numbers and pointers.
fn blank<T>() -> T {
    // SAFETY: used here for such structs only, of which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn places<T: Copy>() -> Vec<T> {
    vec![blank(); ITEMS]
}

fn question((field, scope): (u32, u32)) -> nvmlFieldValue_t {
    nvmlFieldValue_t { fieldId: field, scopeId: scope, ..blank() }
}

impl Raw {
    /// Opens a library and makes each call once, since the first is dearer; nothing when it has no GPU, or refuses.
    #[must_use]
    pub fn open(library: &Path) -> Option<Self> {
        // SAFETY: an NVML library, by the caller's word.
        let lib = unsafe { NvmlLib::new(library) }.ok()?;
        let (mut device, mut version) = (std::ptr::null_mut(), [0; 80]);
        // SAFETY: every function is called as nvml.h declares it, with room for what it answers.
        unsafe {
            (call(&lib.nvmlInit_v2)?() == 0).then_some(())?;
            (call(&lib.nvmlDeviceGetHandleByIndex_v2)?(0, &raw mut device) == 0).then_some(())?;
            (call(&lib.nvmlSystemGetDriverVersion)?(version.as_mut_ptr(), version.len() as c_uint) == 0)
                .then_some(())?;
        }
        let moved = renumbers(&version);
        let number = |id: u32| if moved && (251..=255).contains(&id) { id + 18 } else { id };
        let scope = |id: u32| if NVLINK.contains(&id) { u32::MAX } else { 0 };
        let mut raw = Self {
            lib,
            device,
            memory: nvmlMemory_v2_t { version: size_of::<nvmlMemory_v2_t>() as u32 | 2 << 24, ..blank() },
            rates: blank(),
            numbers: [0; 2],
            wide: 0,
            count: 0,
            samples: places(),
            infos: places(),
            processes: places(),
            moving: MOVING.iter().map(|&id| question((number(id), scope(id)))).collect(),
            lasting: LASTING.iter().map(|&id| question((id, 0))).collect(),
            links: (0..LINKS).flat_map(|link| NVLINK.map(|id| question((id, link)))).collect(),
            fabric: blank(),
            confidential: blank(),
            features: Box::new(blank()),
            gpm: [std::ptr::null_mut(); 2],
            request: Box::new(blank()),
            seen: [0; 3],
        };
        raw.allocate();
        // Metrics are asked of two samples, and none of them may be empty.
        if raw.make("gpm_sample").is_none() {
            raw.gpm = [std::ptr::null_mut(); 2];
        }
        for call in CALLS {
            raw.make(call.name);
        }
        Some(raw)
    }

    /// GPM's samples; where there is no GPM they stay null, and its calls are refused.
    fn allocate(&mut self) {
        if let Some(allocate) = call(&self.lib.nvmlGpmSampleAlloc) {
            for sample in &mut self.gpm {
                // SAFETY: `sample` lives across the call.
                let _refused = unsafe { allocate(&raw mut *sample) };
            }
        }
        self.request.version = NVML_GPM_METRICS_GET_VERSION;
        self.request.numMetrics = METRICS.len() as u32;
        for (place, id) in self.request.metrics.iter_mut().zip(METRICS) {
            place.metricId = id;
        }
    }

    /// Makes a call by the agent's word for it, and says how long it took; nothing where the library refuses it, or the word is not known.
    pub fn make(&mut self, name: &str) -> Option<Duration> {
        let call = CALLS.iter().find(|call| call.name == name)?;
        if name.starts_with("gpm_") && self.gpm.contains(&std::ptr::null_mut()) {
            return None;
        }
        if name == "gpm_sample" {
            self.gpm.swap(0, 1);
        }
        (self.request.sample1, self.request.sample2) = (self.gpm[0], self.gpm[1]);
        let start = now();
        let code = (call.make)(self);
        let took = start.elapsed();
        let answered = matches!(code, Some(0 | NOTHING));
        if code == Some(0) {
            self.note(name);
        }
        answered.then_some(took)
    }

    /// What an answer means for the next question: the newest sample, and the fields that are refused.
    fn note(&mut self, name: &str) {
        let count = self.count as usize;
        let newest = |times: &mut dyn Iterator<Item = u64>| times.take(count).max().unwrap_or(0);
        let told = |field: &nvmlFieldValue_t| !UNSUPPORTED.contains(&field.nvmlReturn);
        match name {
            "utilization_samples" => {
                self.seen[1] = self.seen[1].max(newest(&mut self.samples.iter().map(|sample| sample.timeStamp)));
            }
            "memory_samples" => {
                self.seen[2] = self.seen[2].max(newest(&mut self.samples.iter().map(|sample| sample.timeStamp)));
            }
            "process_utilization" => {
                self.seen[0] = self.seen[0].max(newest(&mut self.processes.iter().map(|sample| sample.timeStamp)));
            }
            "field_values" => self.moving.retain(told),
            "lasting_field_values" => self.lasting.retain(told),
            _ => {}
        }
    }

    fn number(&mut self, at: usize) -> *mut c_uint {
        &raw mut self.numbers[at]
    }

    /// The room in a list, to be told and overwritten.
    fn lend(&mut self) -> *mut c_uint {
        self.count = ITEMS as c_uint;
        &raw mut self.count
    }
}

/// Whether a driver has moved the fields from 251 on, as 580.82 did.
fn renumbers(version: &[c_char]) -> bool {
    let text: String = version.iter().map(|&byte| byte.cast_unsigned() as char).take_while(|&c| c != '\0').collect();
    let mut parts = text.split('.').map_while(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(580), Some(82))
}

#[expect(clippy::disallowed_methods, reason = "what is measured here is time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_renumbered_from_driver_580_82_on() {
        for (version, moved) in
            [("550.163.01", false), ("580.65.06", false), ("580.82.07", true), ("610.57", true), ("", false)]
        {
            let text: Vec<c_char> = version.bytes().chain([0, 7]).map(u8::cast_signed).collect();
            assert_eq!(renumbers(&text), moved, "{version}");
        }
    }
}
