"""Replay speed: events per second of every strategy, beside a bare C++ loop over ``std::set`` on the same requests.

    python benchmarks/replay.py [--events 1000000] [--largest 10000000]

One core, best of some runs; seconds are this process's own on its core, so that other work of the machine does not
count. The loop (``bare_set.cpp``, compiled here) does the least that a best-fit allocator can do. *again* is a replay
under any further settings; *first* also finds the requests in the recording, which is done once; *verify* follows what
the simulated allocator did for the same program, every event of it. The slow twin of the tests serves the beginning of
a program, to see that both agree. The programs are made here; real recordings are replayed as well where the reference
data lies beside the repository. Bytes an event are the growth of the peak resident memory over the loaded trace,
lifetimes included.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from memscope.advise.confs import grid  # noqa: E402
from memscope.lifetimes.device import DeviceLifetimes  # noqa: E402
from memscope.replay.caching.allocator import CachingAllocator  # noqa: E402
from memscope.replay.caching.engine import replay_caching  # noqa: E402
from memscope.replay.config import CachingAllocatorConfig  # noqa: E402
from memscope.replay.strategies import STRATEGIES, ReplayOptions, replay  # noqa: E402
from memscope.replay.sweep import ReplayJob, run_sweep  # noqa: E402
from memscope.replay.verify.verify import verify_device  # noqa: E402
from memscope.trace.builder import TraceBuilder  # noqa: E402
from memscope.trace.metadata import TraceMetadata  # noqa: E402
from memscope.trace.schema import Action, TieRule  # noqa: E402
from memscope.trace.snapshot.read import read_snapshot  # noqa: E402
from memscope.trace.trace import Trace  # noqa: E402
from tests.replay.caching.naive_caching import NaiveCachingAllocator  # noqa: E402

MiB = 1 << 20
N_RUNS = 5
LEAST_EVENTS = 500_000
"""Below that, memory that the process already has hides what a replay takes."""
FREE = -1
RECORDINGS = ("llm_llama1b_serve_exp", "llm_llama7b_generate")
T = TypeVar("T")


class Program:
    """Allocations and frees in order: the id of each, and its bytes or ``FREE``. A free makes two events."""

    def __init__(self) -> None:
        self.ids = array("q")
        self.sizes = array("q")
        self.n_made = self.n_events = 0

    def malloc(self, size_bytes: int) -> int:
        """Allocate; returns the id."""
        self.ids.append(self.n_made)
        self.sizes.append(size_bytes)
        self.n_made += 1
        self.n_events += 1
        return self.n_made - 1

    def free(self, *ids: int) -> None:
        """Free, in that order."""
        for i in ids:
            self.ids.append(i)
            self.sizes.append(FREE)
            self.n_events += 2


def random_program(n_events: int, n_live: int) -> Program:
    """Allocations of all sizes, frees of random live ones."""
    rng, program = random.Random(1), Program()
    live: list[int] = []
    while program.n_events < n_events:
        if len(live) < n_live and (len(live) < n_live // 2 or rng.random() < 0.5):
            live.append(program.malloc(int(rng.choice((rng.uniform(1, 5000), rng.uniform(1, 3 * MiB), 12 * MiB)))))
        else:
            k = rng.randrange(len(live))
            live[k], live[-1] = live[-1], live[k]
            program.free(live.pop())
    return program


def serving_program(n_events: int, n_layers: int = 16, width: int = 2048, n_steps: int = 64) -> Program:
    """Batches of prompts, each prefilled and decoded, with a cache of keys and values that grows by concatenation."""
    rng, program = random.Random(2), Program()
    for _ in range(n_layers * 7):
        program.malloc(2 * width * width)
    while program.n_events < n_events:
        n_sequences, n_prompt = rng.randint(1, 16), rng.randint(16, 512)
        cache: list[tuple[int, int]] = []
        for step in range(n_steps):
            n_tokens = n_sequences * (n_prompt if step == 0 else 1)
            n_cached = n_sequences * (n_prompt + step)
            hidden = program.malloc(2 * n_tokens * width)
            for layer in range(n_layers):
                normed = program.malloc(2 * n_tokens * width)
                query, key, value = (program.malloc(2 * n_tokens * w) for w in (width, width // 4, width // 4))
                grown = program.malloc(2 * n_cached * width // 4), program.malloc(2 * n_cached * width // 4)
                if step:
                    program.free(*cache[layer])
                    cache[layer] = grown
                else:
                    cache.append(grown)
                program.free(key, value)
                attended = program.malloc(2 * n_tokens * width)
                program.free(query, normed)
                gate, up = program.malloc(8 * n_tokens * width), program.malloc(8 * n_tokens * width)
                program.free(gate, up, attended)
            logits = program.malloc(4 * n_sequences * 32_000)
            program.free(hidden, logits)
        for pair in cache:
            program.free(*pair)
    return program


def run_twin(program: Program, n_events: int) -> NaiveCachingAllocator:
    """The slow twin of the tests after that many events of a program."""
    twin, addresses, n_done = NaiveCachingAllocator(), {}, 0
    for i, size in zip(program.ids, program.sizes, strict=True):
        if n_done >= n_events:
            break
        if size == FREE:
            twin.free(addresses.pop(i))
            n_done += 2
        else:
            addresses[i] = twin.malloc(size)
            n_done += 1
    return twin


def compile_bare_loop() -> ctypes.CDLL:
    """The bare loop, compiled as the core is: optimized, for any machine of this kind."""
    compiler = next((path for path in map(shutil.which, ("c++", "g++", "clang++")) if path), None)
    if compiler is None:
        raise SystemExit("a C++ compiler is needed to make the loop that replays are measured against")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "bare_set.so"
        source = Path(__file__).parent / "bare_set.cpp"
        subprocess.run([compiler, "-std=c++20", "-O3", "-shared", "-fPIC", "-o", library, source], check=True)
        loop = ctypes.CDLL(str(library))
    loop.serve.restype = ctypes.c_int64
    loop.serve.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    return loop


def bare_rate(loop: ctypes.CDLL, program: Program) -> float:
    """Events that the bare loop serves in a second of processor time; best of some runs."""
    ids, sizes = np.array(program.ids, np.int64), np.array(program.sizes, np.int64)
    seconds, _ = best_of(N_RUNS, lambda: loop.serve(ids.ctypes.data, sizes.ctypes.data, len(ids), program.n_made))
    return program.n_events / seconds


def trace_of(program: Program) -> Trace:
    """A program as a trace without addresses of its own: each allocation at a place that is used once."""
    ids, sizes = np.array(program.ids, np.int64), np.array(program.sizes, np.int64)
    size_of_id = sizes[sizes != FREE]
    n_slots = np.where(sizes == FREE, 2, 1)
    action = np.repeat(np.where(sizes == FREE, Action.FREE_REQUESTED, Action.ALLOC), n_slots).astype(np.int8)
    action[np.cumsum(n_slots)[sizes == FREE] - 1] = Action.FREE_COMPLETED
    event_id = np.repeat(ids, n_slots)
    n = len(action)
    metadata = TraceMetadata(source="synthetic", block_layout_recorded=False, has_segment_events=False)
    empty = TraceBuilder()
    empty.add_event(Action.SNAPSHOT, address=0, size_bytes=0)
    return dataclasses.replace(
        empty.build(metadata),
        time_ns=np.full(n, -1),
        action=action,
        device=np.zeros(n, np.int16),
        address=(event_id + 1) << 32,
        size_bytes=size_of_id[event_id],
        stream_id=np.zeros(n, np.int32),
        pool_id=np.zeros(n, np.int32),
        stack_id=np.full(n, -1, np.int32),
        label_id=np.full(n, -1, np.int32),
    )


def recorded_trace(program: Program, n_events: int) -> Trace:
    """What the simulated allocator did for the first events of a program, as a recording of all that it did."""
    allocator, addresses, n_done = CachingAllocator(tie_rule=TieRule.SEGMENT_AGE), {}, 0
    builder = TraceBuilder()
    for i, size in zip(program.ids, program.sizes, strict=True):
        if n_done >= n_events:
            break
        if size == FREE:
            allocator.free(addresses.pop(i))
            n_done += 2
        else:
            addresses[i] = allocator.malloc(size)
            n_done += 1
        if n_done % 1_000 < 2:
            add_events(builder, allocator)
    add_events(builder, allocator)
    metadata = TraceMetadata(source="synthetic", tie_rule=TieRule.SEGMENT_AGE, alloc_conf="", has_pool_ids=True)
    state = allocator.state()
    return dataclasses.replace(builder.build(metadata), segments=state.segments, blocks=state.blocks)


def add_events(builder: TraceBuilder, allocator: CachingAllocator) -> None:
    for action, address, size_bytes, stream, _ in allocator.drain_events():
        builder.add_event(action, address=address, size_bytes=size_bytes, stream=stream)


def best_of(n: int, work: Callable[[], T]) -> tuple[float, T]:
    """Least seconds of processor time of n calls, and the last result."""
    seconds = []
    for _ in range(n):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def status_bytes(name: str) -> int:
    """A field of this process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def peak_growth_bytes(work: Callable[[], object]) -> int | None:
    """Growth of the peak resident memory during a call, None where the system does not tell."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
        before = status_bytes("VmRSS")
        work()
        return status_bytes("VmHWM") - before
    except OSError:
        return None


def measure(name: str, trace: Trace, loop_rate: float | None = None, conf: str | None = None) -> None:
    """Replay a trace, and print a line."""
    config = None if conf is None else CachingAllocatorConfig.parse(conf)
    growth = None
    if len(trace) >= LEAST_EVENTS:
        growth = peak_growth_bytes(lambda: replay_caching(DeviceLifetimes(trace, 0), config))
    lifetimes = DeviceLifetimes(trace, 0)
    n_events = lifetimes.n_events
    start = time.process_time()
    replay_caching(lifetimes, config)
    first_s = time.process_time() - start
    again_s, _ = best_of(N_RUNS, lambda: replay_caching(lifetimes, config))
    times = trace.time_ns[trace.time_ns >= 0]
    span_s = (int(times.max()) - int(times.min())) / 1e9 if len(times) else 0.0
    each = "not measured" if growth is None else f"{growth / n_events:,.0f} B"
    of_loop = "" if loop_rate is None else f"{n_events / again_s / loop_rate:.2f} ×"
    faster = f"{span_s / again_s:,.0f} ×" if span_s else "no times"
    print(
        f"{name:<34}{n_events:>11,}{n_events / first_s / 1e6:>9.2f}{n_events / again_s / 1e6:>9.2f}"
        f"{of_loop:>10}{faster:>12}{each:>13}",
        flush=True,
    )


def measure_verify(name: str, trace: Trace, loop_rate: float) -> None:
    """Verify what the simulated allocator did, and print a line."""
    lifetimes = DeviceLifetimes(trace, 0)
    seconds, result = best_of(N_RUNS, lambda: verify_device(lifetimes))
    assert result.exact
    rate = len(trace) / seconds
    print(f"{name + ', verify':<34}{len(trace):>11,}{'':>9}{rate / 1e6:>9.2f}{rate / loop_rate:>8.2f} ×", flush=True)


def check_twin(program: Program, n_events: int) -> None:
    """The twin and the simulator must agree on the beginning of a program."""
    twin = run_twin(program, n_events)
    usage = replay_caching(DeviceLifetimes(recorded_trace(program, n_events), 0)).usage
    assert usage.reserved_bytes is not None
    assert int(usage.reserved_bytes[-1]) == twin.reserved, "the twin and the simulator disagree"


def measure_growth(largest: int) -> None:
    """Time an event as programs get longer, with as many live allocations, or with them in proportion."""
    print("\nlonger random programs: time over n log n, as a ratio to the shortest")
    shortest: dict[str, float] = {}
    n_events = 100_000
    while n_events <= largest:
        for name, n_live in (("1,000 live", 1_000), ("n / 100 live", n_events // 100)):
            lifetimes = DeviceLifetimes(trace_of(random_program(n_events, n_live)), 0)
            n_runs = N_RUNS if n_events > 1_000_000 else 4 * N_RUNS
            seconds, _ = best_of(n_runs, lambda lifetimes=lifetimes: replay_caching(lifetimes))
            scaled = seconds / (n_events * math.log2(n_events))
            ratio = scaled / shortest.setdefault(name, scaled)
            print(f"{n_events:>12,} events, {name:<14}{seconds:9.3f} s {ratio:8.2f}", flush=True)
        n_events *= 10


def measure_strategies(loop: ctypes.CDLL, programs: dict[str, Program]) -> None:
    """Every strategy on each program, and a sweep of 24 settings."""
    lifetimes = {name: DeviceLifetimes(trace_of(program), 0) for name, program in programs.items()}
    loop_rates = [bare_rate(loop, program) for program in programs.values()]
    print(f"\n{'million events/s and of the bare loop:':<45}" + "".join(f"{name:>22}" for name in lifetimes))
    for strategy in STRATEGIES:
        rates = []
        for device in lifetimes.values():
            seconds, _ = best_of(2, lambda device=device, strategy=strategy: replay(device, strategy))
            rates.append(device.n_events / seconds / 1e6)
        columns = (
            f"{rate:.2f} ({rate / of_loop * 1e6:.2f} ×)" for rate, of_loop in zip(rates, loop_rates, strict=True)
        )
        print(f"{strategy:<45}" + "".join(f"{column:>22}" for column in columns), flush=True)
    confs = grid((2, 12), can_collect_garbage=False)[:24]
    for name, device in lifetimes.items():
        jobs = [ReplayJob(device, "caching", ReplayOptions(conf=conf)) for conf in confs]
        seconds, _ = best_of(1, lambda jobs=jobs: run_sweep(jobs))
        print(f"sweep of {len(jobs)} settings, {name}: {seconds:.2f} s for {device.n_events:,} events each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--twin-events", type=int, default=20_000)
    parser.add_argument("--largest", type=int, default=10_000_000, help="events of the longest program")
    options = parser.parse_args()

    programs = {
        "serving": serving_program(options.events),
        "random, 1,000 live": random_program(options.events, 1_000),
        "random, 10,000 live": random_program(options.events, 10_000),
    }
    check_twin(programs["random, 1,000 live"], options.twin_events)
    loop = compile_bare_loop()
    rates = {name: bare_rate(loop, program) for name, program in programs.items()}

    print(f"{'million events/s:':<45}{'first':>9}{'again':>9}{'/ loop':>10}{'/ recorded':>12}{'an event':>13}")
    for name, program in programs.items():
        print(f"{name + ', bare loop':<34}{program.n_events:>11,}{'':>9}{rates[name] / 1e6:>9.2f}{'1.00 ×':>10}")
        trace = trace_of(program)
        measure(name, trace, rates[name])
        if name == "serving":
            measure("serving, expandable segments", trace, rates[name], conf="expandable_segments:True")
        measure_verify(name, recorded_trace(program, options.events), rates[name])
    for recording in RECORDINGS:
        for path in sorted((ROOT.parent / "shared" / "data" / "oracle").glob(f"*/{recording}.pickle.gz"))[:1]:
            measure(recording, read_snapshot(path))
    fewer = min(options.events, 250_000)
    measure_strategies(loop, {"serving": serving_program(fewer), "random, 1,000 live": random_program(fewer, 1_000)})
    measure_growth(options.largest)


if __name__ == "__main__":
    main()
