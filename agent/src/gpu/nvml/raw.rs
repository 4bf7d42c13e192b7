//! The calls that the wrapper does not wrap, wraps in two calls where one will do, or ties to a borrow that cannot change threads.
//! The only unsafe code of the agent: each call passes live handles and locals to write to, and checks the code before it reads them.
#![allow(unsafe_code, reason = "NVML functions that nvml-wrapper offers as raw symbols only")]

use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    NVML_GPM_METRICS_GET_VERSION, nvmlConfComputeSystemState_t, nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t,
    nvmlFieldValue_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpuFabricInfo_t, nvmlGpuInstanceInfo_t,
    nvmlGpuInstancePlacement_t, nvmlGridLicensableFeatures_t, nvmlMemory_t, nvmlProcessInfo_t,
    nvmlProcessUtilizationSample_t, nvmlReturn_t, nvmlSample_t, nvmlValue_t,
};

use crate::gpu::{Memory, Process};

/// First guess at the length of a list, and the longest list taken.
const ITEMS: usize = 128;
const ITEMS_MAX: usize = 65_536;
/// NVML's "no MIG instance".
const NO_INSTANCE: u32 = u32::MAX;
/// More bytes than any GPU has, 64 TiB: NVML's "memory not known" (`u64::MAX`) and what cannot be true. Sums over three lists of what is less do not
/// overflow.
pub(super) const NO_MEMORY: u64 = 1 << 46;
/// `nvmlEventTypeXidCriticalError`.
const XID: u64 = 8;
/// `NVML_GRID_LICENSE_FEATURE_CODE_VGPU`.
const VGPU_FEATURE: u32 = 1;
/// `NVML_ERROR_INSUFFICIENT_SIZE` and `NVML_ERROR_TIMEOUT`.
const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
const TIMEOUT: nvmlReturn_t = 10;

type IdCall = unsafe extern "C" fn(nvmlDevice_t, *mut u32) -> nvmlReturn_t;
type ProcessCall = unsafe extern "C" fn(nvmlDevice_t, *mut u32, *mut nvmlProcessInfo_t) -> nvmlReturn_t;

/// A function that the library may lack.
fn symbol<T: Copy, E>(loaded: &Result<T, E>) -> Result<T, NvmlError> {
    loaded.as_ref().copied().map_err(|_| NvmlError::FunctionNotFound)
}

/// A device handle that keeps its library open and can go to another thread.
#[derive(Clone)]
pub(super) struct Handle {
    device: nvmlDevice_t,
    nvml: Arc<Nvml>,
}

// SAFETY: a handle is an opaque value that NVML does not tie to a thread, and NVML's functions may be called from any.
unsafe impl Send for Handle {}

impl Handle {
    /// The GPU at an index.
    pub(super) fn by_index(nvml: &Arc<Nvml>, index: u32) -> Result<Self, NvmlError> {
        let device = nvml.device_by_index(index)?;
        // SAFETY: the handle is kept together with the library that gave it.
        Ok(Self { device: unsafe { device.handle() }, nvml: Arc::clone(nvml) })
    }

    /// Its MIG device at an index.
    pub(super) fn mig(&self, index: u32) -> Result<Self, NvmlError> {
        let device = self.device().mig_device_by_index(index)?;
        // SAFETY: as above.
        Ok(Self { device: unsafe { device.handle() }, nvml: Arc::clone(&self.nvml) })
    }

    /// The handle as the wrapper knows it.
    pub(super) fn device(&self) -> Device<'_> {
        // SAFETY: the library outlives the borrow, and the handle came from it.
        unsafe { Device::new(self.device, &self.nvml) }
    }

    /// A number that tells handles of one library apart.
    pub(super) fn key(&self) -> usize {
        self.device.addr()
    }

    /// The library that it belongs to.
    pub(super) fn nvml(&self) -> &Arc<Nvml> {
        &self.nvml
    }

    /// The GPU instance id of a MIG device handle.
    pub(super) fn gpu_instance(&self) -> Result<u32, NvmlError> {
        self.id(symbol(&self.nvml.lib().nvmlDeviceGetGpuInstanceId)?)
    }

    /// The compute instance id of a MIG device handle.
    pub(super) fn compute_instance(&self) -> Result<u32, NvmlError> {
        self.id(symbol(&self.nvml.lib().nvmlDeviceGetComputeInstanceId)?)
    }

    fn id(&self, call: IdCall) -> Result<u32, NvmlError> {
        let mut id = 0;
        // SAFETY: a live handle; `id` lives across the call.
        nvml_try(unsafe { call(self.device, &raw mut id) })?;
        Ok(id)
    }

    /// First memory slice of one of its GPU instances. Only the privileged are told.
    pub(super) fn placement(&self, gpu_instance: u32) -> Result<u32, NvmlError> {
        let find = symbol(&self.nvml.lib().nvmlDeviceGetGpuInstanceById)?;
        let tell = symbol(&self.nvml.lib().nvmlGpuInstanceGetInfo)?;
        let mut instance = std::ptr::null_mut();
        // SAFETY: a live handle; `instance` lives across the call.
        nvml_try(unsafe { find(self.device, gpu_instance, &raw mut instance) })?;
        let mut info = nvmlGpuInstanceInfo_t {
            device: std::ptr::null_mut(),
            id: 0,
            profileId: 0,
            placement: nvmlGpuInstancePlacement_t { start: 0, size: 0 },
        };
        // SAFETY: the instance that was just given; `info` lives across the call.
        nvml_try(unsafe { tell(instance, &raw mut info) })?;
        Ok(info.placement.start)
    }

    /// Memory as drivers before R510 tell it: `used` includes what is reserved.
    pub(super) fn memory_v1(&self) -> Result<Memory, NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlDeviceGetMemoryInfo)?;
        let mut info = nvmlMemory_t { total: 0, free: 0, used: 0 };
        // SAFETY: a live handle; the struct is the one that this version of the function fills.
        nvml_try(unsafe { call(self.device, &raw mut info) })?;
        Ok(Memory { total: info.total, used: info.used, free: info.free, reserved: 0 })
    }

    /// Processes with a compute context.
    pub(super) fn compute_processes(&self) -> Result<Vec<Process>, NvmlError> {
        self.processes(symbol(&self.nvml.lib().nvmlDeviceGetComputeRunningProcesses_v3)?)
    }

    /// Processes with a graphics context.
    pub(super) fn graphics_processes(&self) -> Result<Vec<Process>, NvmlError> {
        self.processes(symbol(&self.nvml.lib().nvmlDeviceGetGraphicsRunningProcesses_v3)?)
    }

    /// Clients of the MPS server.
    pub(super) fn mps_processes(&self) -> Result<Vec<Process>, NvmlError> {
        self.processes(symbol(&self.nvml.lib().nvmlDeviceGetMPSComputeRunningProcesses_v3)?)
    }

    fn processes(&self, call: ProcessCall) -> Result<Vec<Process>, NvmlError> {
        let blank = nvmlProcessInfo_t { pid: 0, usedGpuMemory: 0, gpuInstanceId: 0, computeInstanceId: 0 };
        // SAFETY: a live handle, and `list` lends as many places as it says.
        let infos = list(blank, |places, count| unsafe { call(self.device, count, places) })?;
        let instance = |id: u32| (id != NO_INSTANCE).then_some(id);
        let process = |info: nvmlProcessInfo_t| Process {
            pid: info.pid,
            memory: (info.usedGpuMemory < NO_MEMORY).then_some(info.usedGpuMemory),
            gpu_instance: instance(info.gpuInstanceId),
            compute_instance: instance(info.computeInstanceId),
            mps: false,
        };
        Ok(infos.into_iter().map(process).collect())
    }

    /// The driver's samples of one kind that are newer than `last_seen`: (time on the driver's clock, value).
    pub(super) fn samples(&self, kind: u32, last_seen: u64) -> Result<Vec<(u64, f64)>, NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlDeviceGetSamples)?;
        let blank = nvmlSample_t { timeStamp: 0, sampleValue: nvmlValue_t { ullVal: 0 } };
        let mut value_type = 0;
        // SAFETY: a live handle, and `list` lends as many places as it says.
        let samples = list(blank, |places, count| unsafe {
            call(self.device, kind, last_seen, &raw mut value_type, count, places)
        })?;
        Ok(samples.iter().map(|sample| (sample.timeStamp, number(value_type, sample.sampleValue))).collect())
    }

    /// Samples of each process that are newer than `last_seen`: (pid, time on the driver's clock, percent of SM time).
    pub(super) fn process_samples(&self, last_seen: u64) -> Result<Vec<(u32, u64, f64)>, NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlDeviceGetProcessUtilization)?;
        let blank =
            nvmlProcessUtilizationSample_t { pid: 0, timeStamp: 0, smUtil: 0, memUtil: 0, encUtil: 0, decUtil: 0 };
        // SAFETY: as above.
        let samples = list(blank, |places, count| unsafe { call(self.device, places, count, last_seen) })?;
        Ok(samples.iter().map(|sample| (sample.pid, sample.timeStamp, f64::from(sample.smUtil))).collect())
    }

    /// Several field values in one call: (id in the driver's own numbering, scope) each. An answer per field.
    pub(super) fn fields(&self, questions: &[(u32, u32)]) -> Result<Vec<Result<f64, NvmlError>>, NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlDeviceGetFieldValues)?;
        let blank = |&(id, scope): &(u32, u32)| nvmlFieldValue_t {
            fieldId: id,
            scopeId: scope,
            timestamp: 0,
            latencyUsec: 0,
            valueType: 0,
            nvmlReturn: 0,
            value: nvmlValue_t { ullVal: 0 },
        };
        let mut values: Vec<nvmlFieldValue_t> = questions.iter().map(blank).collect();
        let count = i32::try_from(values.len()).map_err(|_| NvmlError::InvalidArg)?;
        // SAFETY: a live handle and `count` structs that nobody else touches.
        nvml_try(unsafe { call(self.device, count, values.as_mut_ptr()) })?;
        let answer =
            |value: &nvmlFieldValue_t| nvml_try(value.nvmlReturn).map(|()| number(value.valueType, value.value));
        Ok(values.iter().map(answer).collect())
    }

    /// `NVML_GPU_VIRTUALIZATION_MODE_*`.
    pub(super) fn virtualization(&self) -> Result<u32, NvmlError> {
        self.id(symbol(&self.nvml.lib().nvmlDeviceGetVirtualizationMode)?)
    }

    /// Whether the machine computes confidentially: 0 no, 1 yes, 2 with developer tools let in.
    pub(super) fn confidential(&self) -> Result<u32, NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlSystemGetConfComputeState)?;
        let mut state = nvmlConfComputeSystemState_t { environment: 0, ccFeature: 0, devToolsMode: 0 };
        // SAFETY: `state` lives across the call.
        nvml_try(unsafe { call(&raw mut state) })?;
        Ok(if state.ccFeature == 0 { 0 } else { 1 + u32::from(state.devToolsMode != 0) })
    }

    /// Whether vGPU software is licensed; nothing where nothing wants a license.
    pub(super) fn license(&self) -> Result<Option<bool>, NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlDeviceGetGridLicensableFeatures_v4)?;
        // SAFETY: numbers and characters only, for which zero is a value.
        let mut features: nvmlGridLicensableFeatures_t = unsafe { std::mem::zeroed() };
        // SAFETY: a live handle; `features` lives across the call.
        nvml_try(unsafe { call(self.device, &raw mut features) })?;
        if features.isGridLicenseSupported == 0 {
            return Ok(None);
        }
        let listed = features.gridLicensableFeatures.iter().take(features.licensableFeaturesCount as usize);
        let mut vgpu = listed.filter(|feature| feature.featureCode == VGPU_FEATURE);
        Ok(vgpu.next().map(|feature| feature.featureState != 0))
    }

    /// State on the NVLink fabric, and how the registration ended where it is complete.
    pub(super) fn fabric(&self) -> Result<(u8, nvmlReturn_t), NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlDeviceGetGpuFabricInfo)?;
        let mut info = nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status: 0, cliqueId: 0, state: 0 };
        // SAFETY: a live handle; `info` lives across the call.
        nvml_try(unsafe { call(self.device, &raw mut info) })?;
        Ok((info.state, info.status))
    }
}

/// Asks for a list with a guess at its length, and again with more room while the driver says that it is too small.
fn list<T: Copy>(blank: T, mut call: impl FnMut(*mut T, *mut u32) -> nvmlReturn_t) -> Result<Vec<T>, NvmlError> {
    let mut room = ITEMS;
    loop {
        let mut items = vec![blank; room];
        let mut count = u32::try_from(room).map_err(|_| NvmlError::InvalidArg)?;
        let code = call(items.as_mut_ptr(), &raw mut count);
        if code == INSUFFICIENT_SIZE && room < ITEMS_MAX {
            room = (room * 2).max(count as usize).min(ITEMS_MAX);
            continue;
        }
        nvml_try(code)?;
        items.truncate(count as usize);
        return Ok(items);
    }
}

/// A tagged value as a number; NaN where the tag is not known.
fn number(tag: u32, value: nvmlValue_t) -> f64 {
    // SAFETY: every bit pattern is a value of each of these types; the tag says which was written.
    unsafe {
        match tag {
            0 => value.dVal,
            1 => f64::from(value.uiVal),
            2 | 3 => value.ullVal as f64,
            4 => value.sllVal as f64,
            5 => f64::from(value.siVal),
            6 => f64::from(value.usVal),
            _ => f64::NAN,
        }
    }
}

/// A GPM sample that is filled again and again.
pub(super) struct GpmSample {
    sample: nvmlGpmSample_t,
    nvml: Arc<Nvml>,
}

// SAFETY: a sample is memory of the library's that is only touched through this owner.
unsafe impl Send for GpmSample {}

impl GpmSample {
    /// An empty one.
    pub(super) fn new(nvml: &Arc<Nvml>) -> Result<Self, NvmlError> {
        let call = symbol(&nvml.lib().nvmlGpmSampleAlloc)?;
        let mut sample = std::ptr::null_mut();
        // SAFETY: `sample` lives across the call.
        nvml_try(unsafe { call(&raw mut sample) })?;
        Ok(Self { sample, nvml: Arc::clone(nvml) })
    }

    /// Fills it with the counters of a GPU, or of one GPU instance of it.
    pub(super) fn fill(&mut self, gpu: &Handle, gpu_instance: Option<u32>) -> Result<(), NvmlError> {
        let lib = self.nvml.lib();
        let code = match gpu_instance {
            // SAFETY: a live handle and a sample of the same library.
            Some(id) => unsafe { symbol(&lib.nvmlGpmMigSampleGet)?(gpu.device, id, self.sample) },
            // SAFETY: as above.
            None => unsafe { symbol(&lib.nvmlGpmSampleGet)?(gpu.device, self.sample) },
        };
        nvml_try(code)
    }

    /// What happened since an earlier sample, by NVML's metric numbers; a metric that the GPU does not have is absent.
    pub(super) fn since(&self, earlier: &Self, metrics: &[u32]) -> Result<Vec<Option<f64>>, NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlGpmMetricsGet)?;
        // SAFETY: numbers and pointers only, for which zero is a value.
        let mut request: nvmlGpmMetricsGet_t = unsafe { std::mem::zeroed() };
        request.version = NVML_GPM_METRICS_GET_VERSION;
        (request.sample1, request.sample2) = (earlier.sample, self.sample);
        for (place, id) in request.metrics.iter_mut().zip(metrics) {
            place.metricId = *id;
            request.numMetrics += 1;
        }
        // SAFETY: two live samples of this library; `request` lives across the call.
        nvml_try(unsafe { call(&raw mut request) })?;
        let answers = request.metrics.iter().zip(metrics);
        Ok(answers.map(|(metric, _)| (metric.nvmlReturn == 0).then_some(metric.value)).collect())
    }
}

impl Drop for GpmSample {
    fn drop(&mut self) {
        if let Ok(call) = symbol(&self.nvml.lib().nvmlGpmSampleFree) {
            // SAFETY: allocated by this library and freed once. The code tells nothing that could be acted on.
            let _code = unsafe { call(self.sample) };
        }
    }
}

/// A set of events that can be waited for.
pub(super) struct Events {
    set: nvmlEventSet_t,
    nvml: Arc<Nvml>,
}

// SAFETY: a set is an opaque value that NVML does not tie to a thread.
unsafe impl Send for Events {}

impl Events {
    /// An empty set.
    pub(super) fn new(nvml: &Arc<Nvml>) -> Result<Self, NvmlError> {
        let call = symbol(&nvml.lib().nvmlEventSetCreate)?;
        let mut set = std::ptr::null_mut();
        // SAFETY: `set` lives across the call.
        nvml_try(unsafe { call(&raw mut set) })?;
        Ok(Self { set, nvml: Arc::clone(nvml) })
    }

    /// Xid errors of this GPU from now on.
    pub(super) fn register(&self, gpu: &Handle) -> Result<(), NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlDeviceRegisterEvents)?;
        // SAFETY: a live handle and a set of the same library.
        nvml_try(unsafe { call(gpu.device, XID, self.set) })
    }

    /// The next Xid: key of the GPU's handle, and code. `None` when the time is up.
    pub(super) fn wait(&self, time: Duration) -> Result<Option<(usize, u64)>, NvmlError> {
        let call = symbol(&self.nvml.lib().nvmlEventSetWait_v2)?;
        let mut data = nvmlEventData_t {
            device: std::ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: NO_INSTANCE,
            computeInstanceId: NO_INSTANCE,
        };
        let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        // SAFETY: a live set; `data` lives across the call.
        let code = unsafe { call(self.set, &raw mut data, milliseconds) };
        if code == TIMEOUT {
            return Ok(None);
        }
        nvml_try(code)?;
        Ok((data.eventType == XID).then(|| (data.device.addr(), data.eventData)))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Ok(call) = symbol(&self.nvml.lib().nvmlEventSetFree) {
            // SAFETY: created by this library and freed once.
            let _code = unsafe { call(self.set) };
        }
    }
}
