"""For `hardware`: `load PERCENT` keeps a GPU busy with PyTorch, `facts` prints what a model of the fake NVML wants to know, `named` whom NVML names
and with how much, both as JSON."""

import json
import sys
import time

ROUND_SECONDS = 0.05
SAMPLED_SECONDS = 4


def load(percent):
    import torch

    one = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    torch.matmul(one, one)
    torch.cuda.synchronize()
    print("working", flush=True)
    while True:
        begin = time.monotonic()
        while time.monotonic() - begin < ROUND_SECONDS * percent / 100:
            torch.matmul(one, one)
            torch.cuda.synchronize()
        time.sleep(max(0, ROUND_SECONDS - (time.monotonic() - begin)))


def facts():
    import pynvml

    def attempt(function, *arguments, default=None):
        try:
            return function(*arguments)
        except pynvml.NVMLError:
            return default

    pynvml.nvmlInit()
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    mib = 1 << 20
    memory = pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2)
    plain = pynvml.nvmlDeviceGetMemoryInfo(gpu)
    cores = attempt(pynvml.nvmlDeviceGetNumGpuCores, gpu, default=0)
    limits = attempt(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, gpu, default=[0, 0])
    architecture = attempt(pynvml.nvmlDeviceGetArchitecture, gpu, default=0)
    links, hot = attempt(pynvml.nvmlDeviceGetFieldValues, gpu, [91, 82], default=[None, None])
    die = attempt(pynvml.nvmlDeviceGetTemperature, gpu, 0, default=0)
    support = attempt(pynvml.nvmlGpmQueryDeviceSupport, gpu)
    clock = lambda domain: {
        "now": attempt(pynvml.nvmlDeviceGetClockInfo, gpu, domain, default=0),
        "max": attempt(pynvml.nvmlDeviceGetMaxClockInfo, gpu, domain, default=0),
    }
    threshold = lambda kind: attempt(pynvml.nvmlDeviceGetTemperatureThreshold, gpu, kind, default=0)
    found = {
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "name": pynvml.nvmlDeviceGetName(gpu),
        "brand": "tesla" if attempt(pynvml.nvmlDeviceGetBrand, gpu) == pynvml.NVML_BRAND_TESLA else "nvidia",
        # Newer generations than the fake knows count as its newest.
        "architecture": "turing" if architecture <= 6 else "ampere" if architecture <= 8 else "hopper",
        "compute_capability": list(attempt(pynvml.nvmlDeviceGetCudaComputeCapability, gpu, default=(0, 0))),
        "pci_device_id": pynvml.nvmlDeviceGetPciInfo(gpu).pciDeviceId,
        "cores": cores,
        "multiprocessors": cores // 128,
        "memory_mib": memory.total // mib,
        "reserved_mib": memory.reserved // mib,
        "bar1_mib": getattr(attempt(pynvml.nvmlDeviceGetBAR1MemoryInfo, gpu), "bar1Total", 0) // mib,
        "memory_bus_bits": attempt(pynvml.nvmlDeviceGetMemoryBusWidth, gpu, default=0),
        "power": {
            "now": attempt(pynvml.nvmlDeviceGetPowerUsage, gpu, default=0) / 1e3,
            "limit": attempt(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu, default=0) / 1e3,
            "min": limits[0] / 1e3,
            "max": limits[1] / 1e3,
        },
        "clocks": {"graphics": clock(1), "memory": clock(2), "video": clock(3)},
        "temperature": {
            "now": die,
            "memory_over": hot.value.uiVal - die if hot is not None and hot.nvmlReturn == 0 else None,
            "shutdown": threshold(0),
            "slowdown": threshold(1),
        },
        "pcie": {
            "generation": attempt(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, gpu, default=0),
            "width": attempt(pynvml.nvmlDeviceGetMaxPcieLinkWidth, gpu, default=0),
        },
        "nvlinks": links.value.uiVal if links is not None and links.nvmlReturn == 0 else 0,
        "gpm": bool(support and support.isSupportedDevice),
        "mig_max": attempt(pynvml.nvmlDeviceGetMaxMigDeviceCount, gpu, default=0),
        "mig_on": bool(attempt(pynvml.nvmlDeviceGetMigMode, gpu, default=[0])[0]),
        "memory": {
            "total": memory.total,
            "free": memory.free,
            "reserved": memory.reserved,
            "used": memory.used,
            "used_v1": plain.used,
        },
    }
    pynvml.nvmlShutdown()
    print(json.dumps(found))


def named():
    import pynvml

    pynvml.nvmlInit()
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    sampled, seen = {}, 0
    for _ in range(SAMPLED_SECONDS):
        time.sleep(1)
        try:
            samples = pynvml.nvmlDeviceGetProcessUtilization(gpu, seen)
        except pynvml.NVMLError:
            continue
        fresh = [sample for sample in samples if seen and sample.pid]
        seen = max([sample.timeStamp for sample in samples] + [seen])
        for sample in fresh:
            sampled.setdefault(sample.pid, []).append(sample.smUtil)
    found = {"sampled": {pid: sum(values) / len(values) for pid, values in sampled.items()}}
    for name, function in (
        ("compute", pynvml.nvmlDeviceGetComputeRunningProcesses),
        ("mps", pynvml.nvmlDeviceGetMPSComputeRunningProcesses),
    ):
        try:
            found[name] = [process.pid for process in function(gpu)]
        except pynvml.NVMLError:
            found[name] = []
    print(json.dumps(found))


if sys.argv[1] == "load":
    load(float(sys.argv[2]))
elif sys.argv[1] == "named":
    named()
else:
    facts()
