"""Record a short program with the options that a test gives as JSON, and say what the recording has."""

import json
import sys
import time

import torch

import memscope

_, path, options = sys.argv
options = json.loads(options)
n_devices = torch.cuda.device_count()
with memscope.record(path, overwrite=True, **options) as rec:
    assert torch.cuda.current_device() == 0
    kept = [torch.zeros(1 << 20, device=f"cuda:{number % n_devices}") for number in range(4)]
    model = torch.nn.Linear(256, 256, device="cuda")
    rec.step()
    rec.snapshot(path + ".now", overwrite=True)
    kept += [model(torch.zeros(64, 256, device="cuda"))]
    del kept[0]
    time.sleep(0.05)  # the last sample is used only where no segment came or went around it
