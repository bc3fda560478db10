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
from typing import Any, BinaryIO

from memscope.replay.caching.allocator import CachingAllocator
from memscope.trace.schema import Action, BlockState, TieRule

MIB = 1 << 20
N_RUNS = 3


N_SITES, N_DEEP = 330, 40
_LIVE = 2_000
_BATCH = 1_000
"""Items that Python's pickler writes at once."""


def synthesize(path: Path, n_events: int) -> None:
    """Write a snapshot of about ``n_events`` events in torch 2.15's layout, with stacks as a training run has them.

    The simulated allocator serves random requests, so that its events and its final segments and blocks agree. 330 call
    sites, 40 frames deep, are shared as torch shares them: one dict for each frame, a list for each captured context,
    which the two events of a free have in common. The file is what Python's pickler would write, in pieces: its objects
    would need far more memory than it.
    """
    rng = random.Random(20)
    allocator, live = CachingAllocator(tie_rule=TieRule.SEGMENT_AGE), dict[int, list[dict[str, Any]]]()
    order: list[int] = []
    with path.open("wb") as file:
        stream = _EventStream(file)
        while stream.n_events < n_events:
            is_alloc = len(live) < _LIVE or (len(live) < 2 * _LIVE and rng.random() < 0.5)
            stack = rng.choice(stream.sites)
            if is_alloc:
                address = allocator.malloc(int(rng.choice((rng.uniform(1, 5_000), rng.uniform(1, 3 * MIB), 12 * MIB))))
                live[address] = stack
                order.append(address)
            else:
                k = rng.randrange(len(order))
                order[k], order[-1] = order[-1], order[k]
                address = order.pop()
                del live[address]
                allocator.free(address)
            stream.add(allocator.drain_events(), stack)
        stream.end(_segments(allocator, live), {"max_cached_size": -1})


def _segments(allocator: CachingAllocator, stacks: dict[int, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The allocator's segments and blocks as torch lists them."""
    state = allocator.state()
    segments, blocks = state.segments, state.blocks
    of_segment: list[list[dict[str, Any]]] = [[] for _ in range(len(segments))]
    for i in range(len(blocks)):
        is_active = blocks.state[i] != BlockState.INACTIVE
        address = int(blocks.address[i])
        of_segment[blocks.segment_id[i]].append(
            {
                "address": address,
                "size": int(blocks.size_bytes[i]),
                "requested_size": int(blocks.requested_bytes[i]),
                "state": BlockState(int(blocks.state[i])).name.lower(),
                "frames": stacks[address] if is_active else [],
            }
        )
    found = []
    for i, mine in enumerate(of_segment):
        active = [block for block in mine if block["state"] != "inactive"]
        n_active_bytes = sum(block["size"] for block in active)
        found.append(
            {
                "device": 0,
                "address": int(segments.address[i]),
                "total_size": int(segments.size_bytes[i]),
                "allocated_size": n_active_bytes,
                "active_size": n_active_bytes,
                "requested_size": sum(block["requested_size"] for block in active),
                "stream": 0,
                "segment_type": "large" if segments.is_large[i] else "small",
                "segment_pool_id": (0, 0),
                "is_expandable": False,
                "frames": [],
                "blocks": mine,
            }
        )
    return found


class _EventStream:
    """A pickle of a snapshot with one device, whose events are written as they come.

    Objects are numbered as Python's pickler does it: every list, tuple and dict, and every text once.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.n_events = 0
        self._file = file
        self._n_stored = 0
        self._texts: dict[str, bytes] = {}
        self._batch: list[bytes] = []
        self._now = 1_760_000_000_000_000
        self._rng = random.Random(21)
        frames = [
            {"name": f"forward_{i}", "filename": f"/opt/model/layers/module_{i % 90}.py", "line": 10 + i}
            for i in range(2 * N_SITES + N_DEEP)
        ]
        self.sites = [frames[i : i + N_DEEP] for i in range(0, 2 * N_SITES, 2)]
        self._frames: dict[int, bytes] = {}
        self._stacks: dict[int, bytes] = {}
        file.write(b"\x80\x04}" + self._store() + b"(" + self._text("device_traces") + b"]" + self._store())
        file.write(b"]" + self._store())

    def add(self, events: list[tuple[int, int, int, int, int]], stack: list[dict[str, Any]]) -> None:
        """Write events of the allocator, all of one call."""
        self._now += self._rng.randrange(3, 40)
        now, shared = self._integer(self._now), b""
        for number, address, size, stream, _ in events:
            # In the order in which they stand in the file: texts and objects are numbered as they are written.
            parts = [b"}", self._store(), b"("]
            parts += [self._text("action"), self._text(Action(number).name.lower())]
            parts += [self._text("addr"), self._integer(address), self._text("size"), self._integer(size)]
            parts += [self._text("stream"), self._integer(stream), self._text("time_us"), now]
            parts += [self._text("compile_context"), self._text("N/A"), self._text("user_metadata"), self._text("")]
            parts += [self._text("pool_id"), b"K\x00K\x00\x86", self._store(), self._text("frames")]
            if not shared:
                shared = self._get(self._n_stored)
                parts += [b"]", self._store(), b"(", self._frames_of(stack), b"e"]
            else:
                parts.append(shared)
            self._batch.append(b"".join((*parts, b"u")))
            self.n_events += 1
            if len(self._batch) == _BATCH:
                self._write_batch()

    def end(self, segments: list[dict[str, Any]], settings: dict[str, Any]) -> None:
        """Write what comes after the events."""
        self._write_batch()
        self._file.write(b"a")
        for key, value in (("segments", segments), ("allocator_settings", settings)):
            self._file.write(self._text(key) + self._plain(value))
        self._file.write(b"u.")

    def _write_batch(self) -> None:
        if self._batch:
            self._file.write(b"(" + b"".join(self._batch) + b"e")
            self._batch.clear()

    def _store(self) -> bytes:
        self._n_stored += 1
        return b"\x94"

    @staticmethod
    def _get(place: int) -> bytes:
        return b"h" + bytes([place]) if place < 256 else b"j" + place.to_bytes(4, "little")

    def _text(self, text: str) -> bytes:
        if text in self._texts:
            return self._texts[text]
        self._texts[text] = self._get(self._n_stored)
        data = text.encode()
        return b"\x8c" + bytes([len(data)]) + data + self._store()

    @staticmethod
    def _integer(value: int) -> bytes:
        if value < 1 << 31:
            return b"J" + value.to_bytes(4, "little", signed=True)
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data

    def _frames_of(self, stack: list[dict[str, Any]]) -> bytes:
        """The frames of a stack, each written at its first use."""
        known = self._stacks.get(id(stack))
        if known is None:
            known = b"".join(map(self._frame, stack))
            self._stacks[id(stack)] = b"".join(map(self._frame, stack))
        return known

    def _frame(self, frame: dict[str, Any]) -> bytes:
        if id(frame) not in self._frames:
            at = self._n_stored
            written = b"}" + self._store() + b"("
            written += b"".join(self._text(key) + self._plain(value) for key, value in frame.items()) + b"u"
            self._frames[id(frame)] = self._get(at)
            return written
        return self._frames[id(frame)]

    def _plain(self, value: Any) -> bytes:
        """A value of any kind, in the batches of Python's pickler."""
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        if isinstance(value, int):
            return self._integer(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, tuple):
            return b"".join(map(self._plain, value)) + b"\x86" + self._store()
        if isinstance(value, dict):
            is_frame = "filename" in value
            if is_frame:
                return self._frame(value)
            head = b"}" + self._store() + b"("
            return head + b"".join(self._text(key) + self._plain(item) for key, item in value.items()) + b"u"
        written = b"]" + self._store()
        for first in range(0, len(value), _BATCH):
            written += b"(" + b"".join(map(self._plain, value[first : first + _BATCH])) + b"e"
        return written


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
    before = peak_bytes()
    seconds = []
    for _ in range(N_RUNS):
        gc.collect()
        start = time.perf_counter()
        result = run(path)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            peak = peak_bytes()
        del result
    return {"seconds": min(seconds), "peak_bytes": peak - before}


def peak_bytes() -> int:
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
