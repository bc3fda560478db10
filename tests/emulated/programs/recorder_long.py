"""Train while the ring is drained again and again; say what PyTorch counted and what the recording has."""

import json
import sys
import time

import torch

import memscope
from memscope.lifetimes.device import DeviceLifetimes

KINDS = ("allocation.all.allocated", "allocation.all.freed", "active.all.freed")
model = torch.nn.Sequential(*(torch.nn.Linear(64, 64, device="cuda") for _ in range(8)))
optimizer = torch.optim.AdamW(model.parameters())
torch.cuda.reset_peak_memory_stats()
begin = torch.cuda.memory_stats()
steps_made = 0
with memscope.record(sys.argv[1]) as rec:
    while True:
        model(torch.empty(8, 64, device="cuda")).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        rec.step()
        steps_made += 1
        now = torch.cuda.memory_stats()
        counted = [now[kind] - begin[kind] for kind in KINDS]
        time.sleep(0.004)
        if sum(counted) > 60_000:
            break
trace = rec.trace
lifetimes = DeviceLifetimes(trace, 0)
print(
    json.dumps(
        {
            "counted": counted,
            "found": [int((trace.action == kind).sum()) for kind in range(3)],
            "lost": trace.metadata.n_events_lost,
            "n_drains": len(rec.backend.history.pauses_s),
            "problems": [str(problem) for problem in lifetimes.problems],
            "n_steps": int((trace.marks.kind == 0).sum()),
            "steps_made": steps_made,
            "peak": int(lifetimes.usage.requested_bytes.max()),
            "peak_of_torch": now["requested_bytes.all.peak"],
        }
    )
)
