"""Reading a snapshot beside ``pickle.load`` of the same bytes, and opening the ``.memscope`` file made from it.

    python benchmarks/load.py [SNAPSHOT ...] [--events 1000000]

Every figure is of a process of its own, as a ratio to its peer in the same run: the best time of three, and the growth
of the peak resident memory over what the imports took. ``pickle.load`` runs code
that a file asks for: give it trusted files only.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MIB = 1 << 20
N_RUNS = 3


def synthesize(path: Path, n_events: int) -> None:
    """Write a snapshot of about ``n_events`` events in torch 2.15's layout, with stacks as a training run has them.

    400 call sites, 40 frames deep, shared as torch shares them: one dict for each frame, a list for each captured
    context, which an alloc and its frees have in common in pairs.
    """
    rng = random.Random(20)
    frames = [
        {"name": f"forward_{i}", "filename": f"/opt/model/layers/module_{i % 90}.py", "line": 10 + i}
        for i in range(700)
    ]
    sites = [frames[i : i + 40] for i in range(0, 660, 2)]
    events: list[dict[str, Any]] = []
    live: list[tuple[int, int]] = []
    address, now = 0x7F0000000000, 1_760_000_000_000_000
    segments = 64
    base = {"compile_context": "N/A", "user_metadata": "", "pool_id": (0, 0)}

    def add(action: str, addr: int, size: int, stack: list[dict[str, Any]]) -> None:
        event = {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": now, **base, "frames": stack}
        event["pool_id"] = (0, 0)
        events.append(event)

    while len(events) < n_events - 3:
        now += rng.randrange(3, 40)
        if len(live) < 2000 or rng.random() < 0.4:
            size = 512 * rng.randrange(1, 4096)
            addr = address + 2 * MIB * (len(events) % (segments * 512))
            live.append((addr, size))
            add("alloc", addr, size - rng.randrange(0, 511), list(rng.choice(sites)))
        else:
            addr, size = live.pop(rng.randrange(len(live)))
            stack = list(rng.choice(sites))
            add("free_requested", addr, size, stack)
            add("free_completed", addr, size, stack)
    table = [
        {
            "device": 0,
            "address": address + i * 1024 * MIB,
            "total_size": 1024 * MIB,
            "allocated_size": 0,
            "active_size": 0,
            "requested_size": 0,
            "stream": 0,
            "segment_type": "large",
            "segment_pool_id": (0, 0),
            "is_expandable": False,
            "frames": [],
            "blocks": [
                {
                    "address": address + i * 1024 * MIB,
                    "size": 1024 * MIB,
                    "requested_size": 0,
                    "state": "inactive",
                    "frames": [],
                }
            ],
        }
        for i in range(segments)
    ]
    snapshot = {"segments": table, "device_traces": [events], "allocator_settings": {"max_cached_size": -1}}
    with path.open("wb") as file:
        pickle.dump(snapshot, file, protocol=4)


def measure(what: str, path: str) -> dict[str, float]:
    """Best time and peak memory over the imports', measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", what, path], capture_output=True, text=True, check=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _measured(what: str, path: str) -> dict[str, float]:
    if what == "pickle":
        run = _load_pickle
    elif what == "snapshot":
        from memscope.trace.snapshot.read import read_snapshot as run
    else:
        from memscope.trace.container import read_container as run
    if what != "pickle":
        _warm_up(run, what)
    before = _peak_bytes()
    seconds = []
    for _ in range(N_RUNS):
        gc.collect()
        start = time.perf_counter()
        result = run(path)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            peak = _peak_bytes()
        del result
    return {"seconds": min(seconds), "peak_bytes": peak - before}


def _peak_bytes() -> int:
    """Largest resident memory of this process so far; Linux's ``ru_maxrss`` would count the parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _warm_up(run: Any, what: str) -> None:
    """Load the libraries that are imported at first use."""
    from memscope.trace.builder import TraceBuilder
    from memscope.trace.container import write_container
    from memscope.trace.metadata import TraceMetadata
    from memscope.trace.snapshot.write import write_snapshot

    with tempfile.TemporaryDirectory() as folder:
        trace = TraceBuilder().build(TraceMetadata(source="synthetic"))
        write = write_snapshot if what == "snapshot" else write_container
        run(write(trace, Path(folder) / "empty"))


def _load_pickle(path: str) -> Any:
    with gzip.open(path) if path.endswith(".gz") else Path(path).open("rb") as file:
        return pickle.load(file)


def report(path: Path, folder: Path) -> None:
    """Measure one snapshot and print its line."""
    from memscope.trace.container import write_container
    from memscope.trace.snapshot.read import read_snapshot

    trace = read_snapshot(path)
    container = write_container(trace, folder / f"{path.name}.memscope", overwrite=True)
    ours, peer = measure("snapshot", str(path)), measure("pickle", str(path))
    opened = measure("container", str(container))
    time_ratio = ours["seconds"] / peer["seconds"]
    memory_ratio = ours["peak_bytes"] / max(peer["peak_bytes"], 1)
    n = max(trace.n_events, 1)
    print(f"{path.name}: {trace.n_events:,} events, {len(trace.stacks):,} stacks, {path.stat().st_size / MIB:.1f} MiB")
    print(f"  read in {ours['seconds']:.3f} s: {time_ratio:.2f} x pickle.load ({peer['seconds']:.3f} s)")
    print(
        f"  peak memory {ours['peak_bytes'] / MIB:.0f} MiB: {memory_ratio:.2f} x pickle.load "
        f"({peer['peak_bytes'] / MIB:.0f} MiB)"
    )
    print(
        f"  .memscope: opened in {opened['seconds']:.3f} s, {peer['seconds'] / opened['seconds']:.0f} x faster than "
        f"pickle.load; {container.stat().st_size / n:.1f} bytes an event on disk"
    )


def largest_at_hand(n: int = 3) -> list[Path]:
    """The largest reference snapshots beside the checkout, if there are any."""
    data = Path(__file__).resolve().parents[2] / "shared" / "data"
    found = [*data.glob("oracle/*/*.pickle.gz"), *data.glob("real/*.pickle.gz")]
    return sorted(found, key=lambda path: -path.stat().st_size)[:n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("snapshots", nargs="*", type=Path, help="trusted ones; without any, the largest at hand")
    parser.add_argument("--events", type=int, default=1_000_000, help="size of the snapshot that is made; 0 makes none")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(_measured(*args.measure)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in args.snapshots or largest_at_hand():
            report(path, folder)
        if args.events:
            path = folder / "synthetic.pickle"
            synthesize(path, args.events)
            report(path, folder)


if __name__ == "__main__":
    main()
