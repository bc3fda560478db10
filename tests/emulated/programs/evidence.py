"""What a program leaves behind for the test that ran it: PyTorch's own snapshot and statistics, and what it saw.

A program is run twice, and does the same both times: recorded by memscope, and with PyTorch's history switched on by
itself (a second argument says so). The garbage collector is off, because the two would collect at different moments.
"""

import gc
import pickle
import sys
from pathlib import Path

import torch

gc.disable()
if len(sys.argv) > 2:
    torch.cuda.init()
    torch.cuda.memory._record_memory_history("all", context=None, max_entries=1_000_000)


def leave(**seen):
    """Write them to the file that the program's first argument names; nothing is allocated or freed in between."""
    for device in range(torch.cuda.device_count()):
        torch.cuda.synchronize(device)
    stats = {device: dict(torch.cuda.memory_stats(device)) for device in range(torch.cuda.device_count())}
    snapshot = torch.cuda.memory._snapshot() if len(sys.argv) > 2 else None
    Path(sys.argv[1]).write_bytes(pickle.dumps({"stats": stats, "snapshot": snapshot, "seen": seen}))
