"""Run out of memory, catch it, go on with less; fill the device so that cached memory must be given back."""

import torch
from evidence import leave

MIB = 1 << 20
messages = []


def allocated(size_mib):
    try:
        return [torch.empty(size_mib * MIB, dtype=torch.uint8, device="cuda")]
    except torch.OutOfMemoryError as error:
        messages.append(str(error))
        return []


total = torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction(min(1.0, 1024 * MIB / total))
kept = [tensor for size_mib in (300, 200, 400, 300, 100) for tensor in allocated(size_mib)]
n_caught = len(messages)
kept.pop(0)
kept += allocated(250)
del kept[0]
kept += allocated(220)
leave(n_caught=n_caught, message=messages[0] if messages else "")
