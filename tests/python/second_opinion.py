"""What nvidia-ml-py says of the NVML on the library path: the facts of each GPU that do not move, as JSON."""

import json

import pynvml

REMAPPED_CORRECTABLE = 142
ECC_UNCORRECTED = 6


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def field(handle, number):
    values = attempt(pynvml.nvmlDeviceGetFieldValues, handle, [number])
    if not values or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    value = values[0]
    whole = value.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
    return value.value.uiVal if whole else value.value.ullVal


def device(index):
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "name": pynvml.nvmlDeviceGetName(handle),
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
        "memory_total": pynvml.nvmlDeviceGetMemoryInfo(handle).total,
        "power_limit_milliwatts": attempt(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        "remapped_correctable": field(handle, REMAPPED_CORRECTABLE),
        "ecc_uncorrected": field(handle, ECC_UNCORRECTED),
    }


def main():
    pynvml.nvmlInit()
    driver = pynvml.nvmlSystemGetDriverVersion()
    devices = [device(index) for index in range(pynvml.nvmlDeviceGetCount())]
    pynvml.nvmlShutdown()
    print(json.dumps({"driver": driver, "devices": devices}))


main()
