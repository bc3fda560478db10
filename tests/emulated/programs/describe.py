"""Say what the device is, without reading a value back."""

import json
import sys

import torch

properties = torch.cuda.get_device_properties(0)
free, total = torch.cuda.mem_get_info()
print(
    json.dumps(
        {
            "arguments": sys.argv[1:],
            "n_devices": torch.cuda.device_count(),
            "name": torch.cuda.get_device_name(),
            "capability": torch.cuda.get_device_capability(),
            "total": total,
            "total_of_properties": properties.total_memory,
            "free": free,
            "n_multiprocessors": properties.multi_processor_count,
        }
    )
)
