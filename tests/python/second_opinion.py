"""What nvidia-ml-py says of the NVML on the library path, under the names and in the units of the agent's page, as JSON.

Reads again and again until its input is closed, so that what moves is known by its first, least, greatest and last value. Says "reading" after the first
round. A value that the driver refuses is null; a series that only the agent can have is left out."""

import ctypes
import json
import select
import sys
import time

import pynvml

ROUND_SECONDS = 0.15
MIB = 1048576.0
# GPM metric numbers by the series they make; ratios come in percent, rates in MiB/s.
GPM = {
    1: ("graphics_active_ratio", 0.01),
    2: ("sm_active_ratio", 0.01),
    3: ("sm_occupancy_ratio", 0.01),
    5: ("tensor_active_ratio", 0.01),
    10: ("dram_active_ratio", 0.01),
    11: ("fp64_active_ratio", 0.01),
    12: ("fp32_active_ratio", 0.01),
    13: ("fp16_active_ratio", 0.01),
    20: ("pcie_sent_bytes_per_second", MIB),
    21: ("pcie_received_bytes_per_second", MIB),
    61: ("nvlink_sent_bytes_per_second", MIB),
    60: ("nvlink_received_bytes_per_second", MIB),
}
# Field numbers by series, with the factor to the agent's unit. Those of clock events moved with driver 580.82.
FIELDS = {
    "ecc_corrected_errors_total": (3, 1),
    "ecc_uncorrected_errors_total": (4, 1),
    "ecc_lifetime_corrected_errors_total": (5, 1),
    "ecc_lifetime_uncorrected_errors_total": (6, 1),
    "retired_pages_single_bit_total": (29, 1),
    "retired_pages_double_bit_total": (30, 1),
    "retired_pages_pending": (31, 1),
    "memory_temperature_celsius": (82, 1),
    "pcie_replays_total": (94, 1),
    "remapped_rows_correctable_total": (142, 1),
    "remapped_rows_uncorrectable_total": (143, 1),
    "row_remap_pending": (144, 1),
    "row_remap_failed": (145, 1),
    "power_average_watts": (185, 1e-3),
    "power_instant_watts": (186, 1e-3),
    "pcie_sent_bytes_total": (197, 1),
    "pcie_received_bytes_total": (198, 1),
}
# The agent adds these up itself where the driver does not count them: then they are left out here.
THROTTLED = {
    "sw_power_cap": 74,
    "thermal": 75,
    "sync_boost": 76,
    "board_limit": 77,
    "low_utilization": 78,
    "reliability": 79,
    "application_clocks": 80,
    "base_clocks": 81,
}
VIRTUALIZATION = ["none", "passthrough", "vgpu", "host_vgpu", "host_vsga"]
RECOVERY = ["none", "gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset"]


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def scaled(value, factor):
    return None if value is None else value * factor


def number(answer):
    """A field value by its tag."""
    if answer.nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    names = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
    return float(getattr(answer.value, names[answer.valueType]))


def fields(handle, questions):
    answers = attempt(pynvml.nvmlDeviceGetFieldValues, handle, questions)
    return [None] * len(questions) if answers is None else [number(answer) for answer in answers]


def links(handle, whole, each):
    """Bytes over all NVLinks: all at once, or, where that stays at nothing, link by link; the newest generation counts bytes, not KiB."""
    [total] = fields(handle, [(whole, 0xFFFFFFFF)])
    ways = [scaled(total, 1024)]
    for identifier, unit in [(whole, 1024), (each, 1)]:
        found = [value for value in fields(handle, [(identifier, link) for link in range(18)]) if value is not None]
        ways.append(sum(found) * unit if found else None)
    known = [way for way in ways if way is not None]
    return next((way for way in known if way > 0), known[0] if known else None)


def running(handle, kind):
    """Asked with room at once: nvidia-ml-py asks for the length first, to which NVIDIA's mock says that all is well."""
    count = ctypes.c_uint(128)
    places = (pynvml.c_nvmlProcessInfo_v2_t * count.value)()
    try:
        call = pynvml._nvmlGetFunctionPointer(f"nvmlDeviceGet{kind}RunningProcesses_v3")
    except pynvml.NVMLError:
        return None
    return list(places[: count.value]) if call(handle, ctypes.byref(count), places) == 0 else None


class Gpm:
    """Counters of the chip between one round and the next."""

    def __init__(self, handle):
        support = attempt(pynvml.nvmlGpmQueryDeviceSupport, handle)
        mig = attempt(pynvml.nvmlDeviceGetMigMode, handle)
        self.on = bool(support and support.isSupportedDevice) and not (mig and mig[0])
        self.handle, self.before = handle, None
        self.spare = [attempt(pynvml.nvmlGpmSampleAlloc) for _ in range(2)] if self.on else []
        if None in self.spare:
            self.on = False

    def read(self):
        if not self.on:
            return {name: None for name, _ in GPM.values()}
        sample = self.spare.pop()
        pynvml.nvmlGpmSampleGet(self.handle, sample)
        found = {}
        if self.before is not None:
            request = pynvml.c_nvmlGpmMetricsGet_t()
            request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
            request.numMetrics = len(GPM)
            request.sample1, request.sample2 = self.before, sample
            for place, metric in enumerate(GPM):
                request.metrics[place].metricId = metric
            attempt(pynvml.nvmlGpmMetricsGet, request)
            for place, (name, unit) in enumerate(GPM.values()):
                answer = request.metrics[place]
                found[name] = answer.value * unit if answer.nvmlReturn == 0 else None
            self.spare.append(self.before)
        self.before = sample
        return found


class Device:
    def __init__(self, index):
        self.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self.index, self.gpm, self.seen = index, Gpm(self.handle), {}
        self.series = {}

    def note(self, name, value):
        """A value, or several of which any is right."""
        values = value if isinstance(value, list) else [value]
        known = self.series.setdefault(f"gpu_device_{name}", [])
        known.extend(value for value in values if value is not None)

    def samples(self, kind):
        """What the driver sampled since the round before, else what it says of the moment."""
        found = attempt(pynvml.nvmlDeviceGetSamples, self.handle, kind, self.seen.get(kind, 0))
        rates = attempt(pynvml.nvmlDeviceGetUtilizationRates, self.handle)
        moment = rates and (rates.gpu if kind == pynvml.NVML_GPU_UTILIZATION_SAMPLES else rates.memory)
        if found is None:
            return None if rates is None else [moment / 100]
        values = [sample.sampleValue.uiVal for sample in found[1]]
        first = kind not in self.seen
        self.seen[kind] = max((sample.timeStamp for sample in found[1]), default=self.seen.get(kind, 0))
        values = values[-8:] if first else values
        return [min(value, 100) / 100 for value in values + ([] if moment is None else [moment])]

    def processes(self):
        lists = [running(self.handle, kind) for kind in ("Compute", "Graphics", "MPSCompute")]
        if lists[0] is None:
            return None
        return {(p.pid, p.gpuInstanceId, p.computeInstanceId): p for found in lists for p in found or []}

    def read(self):
        handle = self.handle
        memory = attempt(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2))
        for name in ("total", "free", "reserved"):
            self.note(f"memory_{name}_bytes", memory and getattr(memory, name))
        # Drivers differ in whether what is reserved counts as used.
        self.note("memory_used_bytes", memory and [memory.used, max(memory.used - memory.reserved, 0)])
        self.note("utilization_ratio", self.samples(pynvml.NVML_GPU_UTILIZATION_SAMPLES))
        self.note("memory_copy_utilization_ratio", self.samples(pynvml.NVML_MEMORY_UTILIZATION_SAMPLES))
        for name, function in (
            ("encoder", pynvml.nvmlDeviceGetEncoderUtilization),
            ("decoder", pynvml.nvmlDeviceGetDecoderUtilization),
        ):
            answer = attempt(function, handle)
            self.note(f"{name}_utilization_ratio", answer and answer[0] / 100)
        self.note("power_watts", scaled(attempt(pynvml.nvmlDeviceGetPowerUsage, handle), 1e-3))
        self.note("power_limit_watts", scaled(attempt(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle), 1e-3))
        self.note("energy_joules_total", scaled(attempt(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle), 1e-3))
        self.note("temperature_celsius", attempt(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU))
        for name, domain in (("sm", 1), ("memory", 2), ("video", 3)):
            self.note(f"{name}_clock_hertz", scaled(attempt(pynvml.nvmlDeviceGetClockInfo, handle, domain), 1e6))
        questions = [field for field, _ in FIELDS.values()]
        for (name, (_, unit)), value in zip(FIELDS.items(), fields(handle, questions)):
            self.note(name, scaled(value, unit))
        for reason, value in zip(THROTTLED, fields(handle, list(THROTTLED.values()))):
            if value is not None:
                self.note(f'throttle_seconds_total{{reason="{reason}"}}', value * 1e-9)
        [action] = fields(handle, [230])
        if action is not None and action < len(RECOVERY):
            self.note(f'recovery_action_info{{state="{RECOVERY[int(action)]}"}}', 1)
        virtual = attempt(pynvml.nvmlDeviceGetVirtualizationMode, handle)
        if virtual is not None and virtual < len(VIRTUALIZATION):
            self.note(f'virtualization_info{{state="{VIRTUALIZATION[virtual]}"}}', 1)
        state = attempt(pynvml.nvmlSystemGetConfComputeState)
        if state is not None:
            word = ("devtools" if state.devToolsMode else "on") if state.ccFeature else "off"
            self.note(f'confidential_compute_info{{state="{word}"}}', 1)
        features = attempt(pynvml.nvmlDeviceGetGridLicensableFeatures, handle)
        if features is not None and not features.isGridLicenseSupported:
            self.note("vgpu_licensed", None)
        self.note("nvlink_sent_bytes_total", links(handle, 138, 202))
        self.note("nvlink_received_bytes_total", links(handle, 139, 204))
        processes = self.processes()
        self.note("processes", None if processes is None else len([key for key in processes if key[0]]))
        for name, value in self.gpm.read().items():
            self.note(name, value)

    def told(self):
        band = lambda values: {"first": values[0], "least": min(values), "most": max(values), "last": values[-1]}
        return {
            "name": pynvml.nvmlDeviceGetName(self.handle),
            "uuid": pynvml.nvmlDeviceGetUUID(self.handle),
            "pids": sorted({pid for pid, _, _ in self.processes() or {} if pid}),
            "series": {name: band(values) if values else None for name, values in self.series.items()},
        }


def closed():
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main():
    pynvml.nvmlInit()
    driver = pynvml.nvmlSystemGetDriverVersion()
    devices = [Device(index) for index in range(pynvml.nvmlDeviceGetCount())]
    for device in devices:
        device.read()
    print("reading", flush=True)
    ending = False
    while not ending:
        ending = closed()
        time.sleep(ROUND_SECONDS)  # GPM wants its samples more than 0.1 s apart
        for device in devices:
            device.read()
    told = [device.told() for device in devices]
    pynvml.nvmlShutdown()
    print(json.dumps({"driver": driver, "devices": told}))


main()
