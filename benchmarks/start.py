"""How long a command takes from its start to its answer: every verb on small snapshots, in a new process each.

    python benchmarks/start.py [--events 10000 33000] [--runs 5]

The snapshots are of a training run that ends out of memory, served by the simulated allocator and written in torch's
own layout. Beside the verbs stand ``python -c "import numpy, pandas, pyarrow"``, of which every figure is a ratio, and
``pickle.load`` of the same file. Times are medians of the runs, taken in turn, so that other work of the machine falls
on all alike; memory is the most that was resident. The exit code is 1 if a verb takes more than it may.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from memscope.device.limits import Limits
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind, TieRule
from memscope.trace.snapshot.write import write_snapshot
from memscope.trace.trace import Trace

MiB = 1 << 20
IMPORTS = "import numpy, pandas, pyarrow"
MAX_PEAK_BYTES = 200 * MiB
MAX_RATIO = {"report": 2.5, "verify": 2.5, "oom": 2.5, "frag": 2.5, "peak": 2.5, "tune": 6.0, "replay": 6.0}
"""What each verb may take, in times of the imports."""
FIRST_NS, EVENT_NS = 1_760_000_000_000_000_000, 20_000
DEVICE_BYTES = 8 << 30
N_LAYERS, WIDTH = 24, 1024
KEPT = ((2, "normalization"), (6, "attention"), (2, "attention"), (8, "activation"), (4, "linear"))
"""What a layer's forward pass keeps for the backward pass: in times of tokens and width, and the module."""
MEASURE = (
    "import resource, subprocess, sys, time\n"
    "start = time.perf_counter()\n"
    "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode\n"
    "seconds = time.perf_counter() - start\n"
    "print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, code)\n"
)


class TrainingRun:
    """Steps of training, served by the simulated allocator, and what a recording of it has."""

    def __init__(self) -> None:
        self.allocator = CachingAllocator(limits=Limits(DEVICE_BYTES), tie_rule=TieRule.SEGMENT_AGE)
        self.builder = TraceBuilder()

    def malloc(self, size_bytes: int, module: str, layer: int) -> int:
        """Allocate in a module of a layer; returns the address."""
        address = self.allocator.malloc(size_bytes)
        self._record(module, layer)
        return address

    def free(self, address: int, module: str, layer: int) -> None:
        """Free in a module of a layer."""
        self.allocator.free(address)
        self._record(module, layer)

    def step(self, number: int) -> None:
        """One step of training; the number of tokens differs from step to step."""
        n_tokens = 512 + 61 * (number % 7)
        self.builder.add_mark(MarkKind.STEP, f"ProfilerStep#{number}", self._now())
        kept = [
            (self.malloc(times * n_tokens * WIDTH, module, layer), module, layer)
            for layer in range(N_LAYERS)
            for times, module in KEPT
        ]
        for address, module, layer in reversed(kept):
            gradient = self.malloc(2 * n_tokens * WIDTH, "linear", layer)
            self.free(address, module, layer)
            self.free(gradient, "linear", layer)

    def run_out_of_memory(self) -> None:
        """Ask for more than the device has left."""
        with suppress(SimulatedOutOfMemoryError):
            self.allocator.malloc(DEVICE_BYTES)
        self._record("attention", 0)

    def trace(self) -> Trace:
        """The recording."""
        state = self.allocator.state()
        metadata = TraceMetadata(source="synthetic", tie_rule=TieRule.SEGMENT_AGE, alloc_conf="", has_pool_ids=True)
        return replace(self.builder.build(metadata), segments=state.segments, blocks=state.blocks)

    def _now(self) -> int:
        return FIRST_NS + EVENT_NS * self.builder.n_events

    def _record(self, module: str, layer: int) -> None:
        stack_id = self._stack(module, layer)
        for action, address, size_bytes, stream, _ in self.allocator.drain_events():
            if action == Action.OOM:
                self.builder.add_sample(device_free_bytes=DEVICE_BYTES - self.allocator.stats.reserved_bytes)
            self.builder.add_event(
                action, address=address, size_bytes=size_bytes, stream=stream, stack_id=stack_id, time_ns=self._now()
            )

    def _stack(self, module: str, layer: int) -> int:
        frame = self.builder.stacks.frame
        inner = (
            frame("forward", f"/opt/torch/nn/modules/{module}.py", 125),
            frame("_call_impl", "/opt/torch/nn/modules/module.py", 1786),
            frame("forward", f"/opt/transformers/models/llama/{module}.py", 100 + layer),
        )
        outer = (frame("train", "/work/train.py", 40), frame("main", "/work/train.py", 90))
        return self.builder.stacks.stack((*inner * 6, *outer))


def make_snapshot(path: Path, n_events: int) -> int:
    """Write a snapshot of at least that many events; returns how many it has."""
    run = TrainingRun()
    for layer in range(N_LAYERS):
        for _ in range(7):
            run.malloc(4 * WIDTH * WIDTH, "linear", layer)
    number = 0
    while run.builder.n_events < n_events:
        run.step(number)
        number += 1
    run.run_out_of_memory()
    write_snapshot(run.trace(), path)
    return run.builder.n_events


@dataclass
class Command:
    """What is started, what it may take, and its runs so far."""

    name: str
    arguments: list[str]
    max_ratio: float | None = None
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def run(self) -> None:
        """Run once more, in a new process."""
        # A process of its own between: the peak of this one's children is the highest of them all.
        measure = [sys.executable, "-c", MEASURE, sys.executable, *self.arguments]
        seconds, peak_kib, code = subprocess.run(measure, capture_output=True, text=True, check=True).stdout.split()
        if int(code) not in (0, 2):
            raise SystemExit(f"{self.name} failed with exit code {code}")
        self.seconds.append(float(seconds))
        self.peak_bytes = max(self.peak_bytes, int(peak_kib) * 1024)


def commands(snapshot: Path) -> list[Command]:
    """The imports, ``pickle.load``, and every verb."""
    load = f"import pickle; pickle.load(open({str(snapshot)!r}, 'rb'))"
    return [
        Command(IMPORTS, ["-c", IMPORTS]),
        Command("pickle.load", ["-c", load]),
        *(Command(f"memscope {verb}", ["-m", "memscope", verb, str(snapshot)], MAX_RATIO[verb]) for verb in MAX_RATIO),
    ]


def print_table(measured: list[Command]) -> bool:
    """Print a line for each command; whether none took more than it may."""
    imports_s = statistics.median(measured[0].seconds)
    print(f"{'':<34}{'seconds':>9}{'/ imports':>11}{'peak MiB':>10}")
    is_within = True
    for command in measured:
        seconds = statistics.median(command.seconds)
        excess = []
        if command.max_ratio is not None and seconds > command.max_ratio * imports_s:
            excess.append(f"more than {command.max_ratio} ×")
        if command.max_ratio is not None and command.peak_bytes > MAX_PEAK_BYTES:
            excess.append(f"more than {MAX_PEAK_BYTES // MiB} MiB")
        is_within &= not excess
        ratio = f"{seconds / imports_s:.2f} ×"
        print(f"{command.name:<34}{seconds:>9.2f}{ratio:>11}{command.peak_bytes / MiB:>10.0f}  {', '.join(excess)}")
    return is_within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[10_000, 33_000])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    is_within = True
    with tempfile.TemporaryDirectory() as folder:
        for n_events in options.events:
            snapshot = Path(folder) / f"{n_events}.pickle"
            n_made = make_snapshot(snapshot, n_events)
            measured = commands(snapshot)
            for _ in range(options.runs):
                for command in measured:
                    command.run()
            print(f"\n{n_made:,} events, {snapshot.stat().st_size / MiB:.1f} MiB")
            is_within &= print_table(measured)
    raise SystemExit(0 if is_within else 1)


if __name__ == "__main__":
    main()
