"""Write the seeds of the fuzz target into a folder: small snapshots of every layout, protocol, odd pickles, JSON.

    python core/fuzz/seeds.py FOLDER

The first byte of a seed says in what pieces the target hands the others on, 0 for all at once.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.trace.snapshot.snapshots import BASE, FRAMES, MIB, block, event, segment, small


def snapshots() -> dict[str, Any]:
    """Values of every kind that a snapshot holds, and of some that it does not."""
    full = small()
    for entry in full["device_traces"][0]:
        entry |= {"pool_id": (0, 1), "user_metadata": "mine", "compile_context": "N/A"}
    full["device_traces"].append([{"action": "oom", "device_free": 5 * MIB, "size": 30 * MIB, "stream": 2**63}])
    full["external_annotations"] = [{"stage": "START", "name": "step 3", "device": 0, "time_us": 101}]
    history = [{"addr": BASE, "real_size": 123, "frames": FRAMES}]
    old = [{"size": 512, "state": "active_allocated", "history": history}, {"size": 512, "state": "inactive"}]
    nested: list[Any] = []
    nested += [nested, [nested, ()], {"self": nested}]
    return {
        "small": small(),
        "full": full,
        "old": [segment(BASE, []) | {"blocks": old}, segment(BASE, [block(BASE, MIB)] * 3)],
        "many": {"segments": [], "device_traces": [[event("alloc", BASE + i, 512, i) for i in range(40)]]},
        "nested": nested,
        "numbers": [1, -1, 255, 65536, 2**31, -(2**60) - 1, 2**63, 2**64, -(2**200), 0.5, True, False, None],
        "texts": ["", "a", "é" * 100, "x" * 300, b"bytes", bytearray(b"more"), "two\nlines"],
        "wide": {f"key {i}": i for i in range(70)},
    }


def main() -> None:
    """Write them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in snapshots().items():
        for protocol in range(6):
            data = pickle.dumps(value, protocol)
            for piece in (0, 7):
                (folder / f"{name}-{protocol}-{piece}").write_bytes(bytes([piece]) + data)
        if name not in ("nested", "texts"):  # which JSON has not
            (folder / f"{name}-json").write_bytes(bytes([7]) + json.dumps(value).encode())


if __name__ == "__main__":
    main()
