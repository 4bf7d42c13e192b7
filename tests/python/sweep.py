"""Reads whatever NVML is on the library path with nvidia-ml-py and nvitop and prints what they saw as JSON.

Every function of nvidia-ml-py that takes a device alone is called on every device: an answer or an NVML error is
fine, anything else ends the program."""

import inspect
import json

import nvitop
import pynvml


def one_argument_functions():
    for name, function in inspect.getmembers(pynvml, inspect.isfunction):
        if not name.startswith(("nvmlDeviceGet", "nvmlDeviceIs")):
            continue
        parameters = list(inspect.signature(function).parameters.values())
        required = [p for p in parameters if p.default is inspect.Parameter.empty]
        if len(required) == 1 and required[0].name in ("handle", "device"):
            yield name, function


def sweep(handle):
    answers = {"ok": [], "errors": {}}
    for name, function in one_argument_functions():
        try:
            function(handle)
            answers["ok"].append(name)
        except pynvml.NVMLError as error:
            answers["errors"][name] = error.value
    return answers


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        return {"error": error.value}


def device(index):
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    utilization = attempt(pynvml.nvmlDeviceGetUtilizationRates, handle)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    samples = attempt(pynvml.nvmlDeviceGetSamples, handle, pynvml.NVML_GPU_UTILIZATION_SAMPLES, 0)
    processes = attempt(pynvml.nvmlDeviceGetProcessUtilization, handle, 0)
    migs = []
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        mig = attempt(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
        if isinstance(mig, dict):
            continue
        sweep(mig)
        migs.append(
            {
                "index": place,
                "uuid": pynvml.nvmlDeviceGetUUID(mig),
                "gpu_instance": pynvml.nvmlDeviceGetGpuInstanceId(mig),
                "pids": [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(mig)],
            }
        )
    return {
        "name": pynvml.nvmlDeviceGetName(handle),
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
        "utilization": utilization if isinstance(utilization, dict) else utilization.gpu,
        "memory": {"total": memory.total, "used": memory.used, "free": memory.free, "reserved": memory.reserved},
        "pids": [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)],
        "mps_pids": [p.pid for p in pynvml.nvmlDeviceGetMPSComputeRunningProcesses(handle)],
        "samples": samples if isinstance(samples, dict) else [s.sampleValue.uiVal for s in samples[1]],
        "sm": processes if isinstance(processes, dict) else {str(p.pid): p.smUtil for p in processes},
        "migs": migs,
        "sweep": sweep(handle),
    }


def seen_by_nvitop(device):
    return {
        "name": device.name(),
        "uuid": device.uuid(),
        "memory_total": device.memory_total(),
        "gpu_utilization": device.gpu_utilization() if not device.is_mig_mode_enabled() else None,
        "power_limit": device.power_limit(),
        "processes": {str(pid): process.gpu_sm_utilization() for pid, process in device.processes().items()},
    }


def main():
    pynvml.nvmlInit()
    devices = [device(index) for index in range(pynvml.nvmlDeviceGetCount())]
    driver = pynvml.nvmlSystemGetDriverVersion()
    pynvml.nvmlShutdown()
    print(
        json.dumps(
            {"driver": driver, "pynvml": devices, "nvitop": [seen_by_nvitop(d) for d in nvitop.Device.all()]}
        )
    )


main()
