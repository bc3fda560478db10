"""Say what NVML knows of this process and its device, beside what CUDA knows, for each set of variables given."""

import ctypes
import json
import os
import sys

import pynvml
import torch

kept = torch.empty(100 << 20, dtype=torch.uint8, device="cuda")


def asked(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except pynvml.NVMLError as error:
        return type(error).__name__


def identity():
    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    uuid, bus = pynvml.nvmlDeviceGetUUID(device), pynvml.nvmlDeviceGetPciInfo(device).busId
    return {
        "n_devices": pynvml.nvmlDeviceGetCount(),
        "name": pynvml.nvmlDeviceGetName(device),
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "index_by_uuid": pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(uuid)),
        "index_by_bus": pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(bus)),
        "uuid": uuid,
        "uuid_of_cuda": f"GPU-{torch.cuda.get_device_properties(0).uuid}",
    }


def counts(variables):
    os.environ |= variables
    ctypes.CDLL(None).fakecuda_set_other(ctypes.c_uint64(int(variables.get("FAKE_CUDA_OTHER_BYTES", "0"))))
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    memory = asked(pynvml.nvmlDeviceGetMemoryInfo, device)
    memory_v2 = asked(pynvml.nvmlDeviceGetMemoryInfo, device, version=pynvml.nvmlMemory_v2)
    processes = asked(pynvml.nvmlDeviceGetComputeRunningProcesses, device)
    if not isinstance(processes, str):
        processes = [("self" if p.pid == os.getpid() else p.pid - os.getpid(), p.usedGpuMemory) for p in processes]
    seen = {
        "memory": memory if isinstance(memory, str) else (memory.total, memory.free, memory.used),
        "memory_v2": memory_v2 if isinstance(memory_v2, str) else (memory_v2.total, memory_v2.free, memory_v2.used),
        "processes": processes,
        "mig": asked(pynvml.nvmlDeviceGetMigMode, device),
        "init": asked(pynvml.nvmlInit),
        "cuda": torch.cuda.mem_get_info(),
        "reserved": torch.cuda.memory_reserved(),
    }
    for name in variables:
        del os.environ[name]
    return seen


seen = identity()
print(json.dumps({"identity": seen, "counts": [counts(variables) for variables in json.loads(sys.argv[1])]}))
