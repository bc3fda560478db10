"""Prefetch on a side stream: each batch is freed while the main stream may still use it."""

import torch
from evidence import leave

side, main = torch.cuda.Stream(), torch.cuda.current_stream()
weight = torch.zeros(1024, 1024, device="cuda")
n_pending = 0
for step in range(40):
    host = torch.ones(64 + 32 * (step % 5), 1024).pin_memory()
    with torch.cuda.stream(side):
        batch = host.to("cuda", non_blocking=True)
    main.wait_stream(side)
    result = batch @ weight
    batch.record_stream(main)
    del batch
    stats = torch.cuda.memory_stats()
    n_pending += stats["active_bytes.all.current"] > stats["allocated_bytes.all.current"]
leave(n_pending=int(n_pending), is_pinned=host.is_pinned())
