"""Recordings that are killed at random moments, and what is found of each: a line of JSON for every one.

Each runs in a fork of this process, made before it touches the device.
"""

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
from memscope.trace.open import open_trace
from memscope.trace.recording.folder import cut_off_message

N_STATS = ("allocation.all.allocated", "allocation.all.freed", "active.all.freed")
N_MOMENTS = 10_000
path = Path(sys.argv[1]) / "killed.memscope"
random.seed(int(sys.argv[2]))


def record_for_ever(progress):
    os.environ["MEMSCOPE_MAX_EVENTS"] = "8000"
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64, device="cuda") for _ in range(8)))
    optimizer = torch.optim.AdamW(model.parameters())
    with memscope.record(path, overwrite=True) as rec:
        begin = n_calls()
        n_steps = 0
        while True:
            model(torch.empty(8, 64, device="cuda")).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            rec.step()
            struct.pack_into("<q", progress, 0, n_calls() - begin)
            struct.pack_into("<dq", progress, 8 + 16 * (n_steps % N_MOMENTS), time.time(), n_calls() - begin)
            n_steps += 1


def pid_of_recording():
    try:
        return json.loads((path.with_name(path.name + ".part") / "recording.json").read_text())["pid"]
    except OSError:
        return None


def n_calls():
    stats = torch.cuda.memory_stats()
    return sum(stats[name] for name in N_STATS)


for _ in range(int(sys.argv[3])):
    progress = mmap.mmap(-1, 8 + 16 * N_MOMENTS)
    pid = os.fork()
    if not pid:
        try:
            record_for_ever(progress)
        finally:
            os._exit(1)
    while pid_of_recording() != pid:
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 2.5))
    killed_s = time.time()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    moments = [struct.unpack_from("<dq", progress, 8 + 16 * i) for i in range(N_MOMENTS)]
    found = {"made": struct.unpack_from("<q", progress)[0], "message": cut_off_message(path)}
    found["older"] = max((calls for moment, calls in moments if 0 < moment < killed_s - 1.0), default=0)
    with contextlib.suppress(MemscopeError):
        trace = open_trace(path)
        found["counted"] = int((trace.action <= 2).sum())
        found["steps"] = len(trace.marks)
        found["lost"] = trace.metadata.n_events_lost
        found["notes"] = list(trace.metadata.notes)
    print(json.dumps(found), flush=True)
