//! Who runs on a GPU, and how much of it each process used.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlProcessDetail_v1_t, nvmlProcessDetailList_t, nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t,
    nvmlProcessUtilizationInfo_v1_t, nvmlProcessUtilizationSample_t, nvmlProcessesUtilizationInfo_t,
};

use crate::answer::{Code, INSUFFICIENT_SIZE, NOT_FOUND, Outcome, check_version, get, put_list};
use crate::exports::utilization::percent;
use crate::handle::Target;
use crate::profile::{Kind, Process};
use crate::timeline::{PERIOD_US, ProcessLoad};

/// Places in the driver's buffer of per-process samples, and its answer to a question about the size.
const BUFFER: usize = 100;
const NO_INSTANCE: c_uint = c_uint::MAX;
const MIB: u64 = 1 << 20;

/// Ids of the instances a process runs in, as the lists show them.
fn instances(target: &Target<'_>, process: &Process) -> (c_uint, c_uint) {
    match process.gpu_instance {
        Some(gi) if target.device().mig.is_some() => (gi, process.compute_instance.unwrap_or(0)),
        _ => (NO_INSTANCE, NO_INSTANCE),
    }
}

/// The processes of one list; on a MIG device only its own.
fn list(target: &Target<'_>, kinds: &[Kind]) -> Vec<nvmlProcessInfo_v2_t> {
    let processes = target.device().gpu.processes.iter().filter(|process| kinds.contains(&process.kind));
    let infos = processes.map(|process| {
        let (gi, ci) = instances(target, process);
        nvmlProcessInfo_v2_t {
            pid: process.pid,
            usedGpuMemory: process.memory_mib * MIB,
            gpuInstanceId: gi,
            computeInstanceId: ci,
        }
    });
    infos
        .filter(|info| target.handle.mig.is_none_or(|mig| mig == (info.gpuInstanceId, info.computeInstanceId)))
        .collect()
}

fn put_v2(target: &Target<'_>, kinds: &[Kind], count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) -> Outcome {
    put_list(infos, count, &list(target, kinds))
}

fn put_v1(target: &Target<'_>, kinds: &[Kind], count: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t) -> Outcome {
    let old = |info: &nvmlProcessInfo_v2_t| nvmlProcessInfo_v1_t { pid: info.pid, usedGpuMemory: info.usedGpuMemory };
    put_list(infos, count, &list(target, kinds).iter().map(old).collect::<Vec<_>>())
}

const COMPUTE: &[Kind] = &[Kind::Compute, Kind::Mps, Kind::MpsServer];
const GRAPHICS: &[Kind] = &[Kind::Graphics];
const MPS: &[Kind] = &[Kind::Mps];

/// One sample per process and period in which it did something, oldest first; the buffer keeps the newest.
fn samples(target: &Target<'_>, last_seen: u64) -> Result<Vec<(u64, ProcessLoad)>, Code> {
    let gpu = target.undivided()?;
    let newest = target.session.period();
    let stamp = |period: u64| target.session.sampler_us((period + 1) * PERIOD_US);
    let every = target.device().gpu.process_samples_every.max(1);
    let mut samples = Vec::new();
    for period in (0..=newest).rev().take(BUFFER).take_while(|period| stamp(*period) > last_seen) {
        if period % every != 0 {
            continue;
        }
        let load = target.session.timeline.load(gpu, period);
        let active = |process: &ProcessLoad| {
            let most = process.sm.max(process.memory).max(process.encoder).max(process.decoder);
            process.sampled && percent(most) > 0
        };
        samples.extend(load.processes.into_iter().filter(active).map(|process| (stamp(period), process)));
        if samples.len() >= BUFFER {
            break;
        }
    }
    samples.truncate(BUFFER);
    samples.reverse();
    if samples.is_empty() { Err(NOT_FOUND) } else { Ok(samples) }
}

fn utilization_sample((stamp, process): &(u64, ProcessLoad)) -> nvmlProcessUtilizationSample_t {
    nvmlProcessUtilizationSample_t {
        pid: process.pid,
        timeStamp: *stamp,
        smUtil: percent(process.sm),
        memUtil: percent(process.memory),
        encUtil: percent(process.encoder),
        decUtil: percent(process.decoder),
    }
}

fn utilization_info((stamp, process): &(u64, ProcessLoad)) -> nvmlProcessUtilizationInfo_v1_t {
    nvmlProcessUtilizationInfo_v1_t {
        timeStamp: *stamp,
        pid: process.pid,
        smUtil: percent(process.sm),
        memUtil: percent(process.memory),
        encUtil: percent(process.encoder),
        decUtil: percent(process.decoder),
        jpgUtil: 0,
        ofaUtil: 0,
    }
}

device_calls! {
    fn nvmlDeviceGetComputeRunningProcesses_v3(target, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) {
        put_v2(&target, COMPUTE, count, infos)
    }

    fn nvmlDeviceGetComputeRunningProcesses_v2(target, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) {
        put_v2(&target, COMPUTE, count, infos)
    }

    fn nvmlDeviceGetComputeRunningProcesses(target, count: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t) {
        put_v1(&target, COMPUTE, count, infos)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v3(target, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) {
        put_v2(&target, GRAPHICS, count, infos)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v2(target, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) {
        put_v2(&target, GRAPHICS, count, infos)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses(target, count: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t) {
        put_v1(&target, GRAPHICS, count, infos)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(target, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) {
        put_v2(&target, MPS, count, infos)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses_v2(target, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) {
        put_v2(&target, MPS, count, infos)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses(target, count: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t) {
        put_v1(&target, MPS, count, infos)
    }

    fn nvmlDeviceGetRunningProcessDetailList(target, to: *mut nvmlProcessDetailList_t) {
        let to = get(to)?;
        check_version::<nvmlProcessDetailList_t>(to.version, 1)?;
        let kinds = [COMPUTE, GRAPHICS, MPS].get(to.mode as usize).ok_or(crate::answer::INVALID_ARGUMENT)?;
        let details = list(&target, kinds).into_iter().map(|info| nvmlProcessDetail_v1_t {
            pid: info.pid,
            usedGpuMemory: info.usedGpuMemory,
            gpuInstanceId: info.gpuInstanceId,
            computeInstanceId: info.computeInstanceId,
            usedGpuCcProtectedMemory: 0,
        });
        put_list(to.procArray, &raw mut to.numProcArrayEntries, &details.collect::<Vec<_>>())
    }

    fn nvmlDeviceGetProcessUtilization(
        target,
        utilization: *mut nvmlProcessUtilizationSample_t,
        count: *mut c_uint,
        last_seen: c_ulonglong,
    ) {
        target.undivided()?;
        if utilization.is_null() {
            *get(count)? = BUFFER as c_uint;
            return Err(INSUFFICIENT_SIZE);
        }
        let samples = samples(&target, last_seen)?;
        put_list(utilization, count, &samples.iter().map(utilization_sample).collect::<Vec<_>>())
    }

    fn nvmlDeviceGetProcessesUtilizationInfo(target, to: *mut nvmlProcessesUtilizationInfo_t) {
        let to = get(to)?;
        check_version::<nvmlProcessesUtilizationInfo_t>(to.version, 1)?;
        target.undivided()?;
        if to.procUtilArray.is_null() {
            to.processSamplesCount = BUFFER as c_uint;
            return Err(INSUFFICIENT_SIZE);
        }
        let samples = samples(&target, to.lastSeenTimeStamp)?;
        put_list(to.procUtilArray, &raw mut to.processSamplesCount, &samples.iter().map(utilization_info).collect::<Vec<_>>())
    }
}
