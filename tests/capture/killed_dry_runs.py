"""Dry runs that are killed at random moments, and what is found of each: a line of JSON for every one.

Each runs in a fork of this process, made before it records anything.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

import torch

import memscope
from memscope.errors import MemscopeError
from memscope.lifetimes.completeness import measure_completeness
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.open import open_trace
from memscope.trace.schema import Action

N_MOMENTS = 10_000


def record_for_ever(path: Path, progress: mmap.mmap) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(8)))
    n_steps = 0
    with memscope.record(path, backend="dry-run", gpu="L4-24GB", overwrite=True) as rec:
        model.to("cuda")
        optimizer = torch.optim.AdamW(model.parameters())
        while True:
            model(torch.empty(8, 64, device="cuda")).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            rec.step()
            n_allocs = torch.cuda.memory_stats()["allocation.all.allocated"]
            struct.pack_into("<dq", progress, 16 * (n_steps % N_MOMENTS), time.time(), n_allocs)
            n_steps += 1


def one_killed(path: Path, after_s: float) -> dict[str, object]:
    progress = mmap.mmap(-1, 16 * N_MOMENTS)
    pid = os.fork()
    if not pid:
        try:
            record_for_ever(path, progress)
        finally:
            os._exit(1)
    while not struct.unpack_from("<d", progress)[0]:
        time.sleep(0.01)
    time.sleep(after_s)
    killed_s = time.time()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    moments = [struct.unpack_from("<dq", progress, 16 * i) for i in range(N_MOMENTS)]
    found: dict[str, object] = {
        "older": max((n for moment, n in moments if 0 < moment < killed_s - 1.0), default=0),
        "made": max(n for _, n in moments),
    }
    with contextlib.suppress(MemscopeError):
        trace = open_trace(path)
        devices = [DeviceLifetimes(trace, device) for device in trace.devices]
        found["found"] = int((trace.action == Action.ALLOC).sum())
        found["lost"] = trace.metadata.n_events_lost
        found["notes"] = list(trace.metadata.notes)
        found["contradictions"] = list(measure_completeness(trace, devices).contradictions)
        found["owners"] = len(trace.owners)
    return found


random.seed(int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    print(json.dumps(one_killed(Path(sys.argv[1]) / "killed.memscope", random.uniform(0.0, 4.0))), flush=True)
