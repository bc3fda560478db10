"""Recordings that are valid and that nobody makes: what a verb takes of n and of four times as many.

    python benchmarks/absurd.py [--share 1.0] [--verb report --verb frag] [KIND ...]

The kinds are thousands of devices, tens of thousands of streams, of pools with a stream each, of segments, of steps and
of phases (one in another, and ended in the order in which they began), and a million distinct stacks. Each figure is
the CPU time of a process of its own, for `dash` of one that answers what the page asks for first: the overview, the
strip at the bottom, the timeline, and the canvas. The last column is how often as much it takes per doubling, less what
the same verb takes of a recording of one request: 2 is linear, 4 quadratic. What takes longer than LIMIT_S is not
waited for.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from memscope.trace.builder import TraceBuilder
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState, MarkKind

MIB = 1 << 20
BASE = 0x7F00_0000_0000
LIMIT_S = 120
VERBS = ("import", "report", "verify", "frag", "peak", "oom", "dash")
FIRST_ANSWERS = ("moment.data", "overview-title.children", "scrubber-graph.figure", "timeline-title.children")


def add_segment(builder: TraceBuilder, i: int, *, device: int = 0, stream: int = 0, n_pool: int = 0) -> None:
    """A segment with one small allocation that stays: its events, and what is there at the end."""
    address = BASE + 4 * MIB * i
    where = {"device": device, "address": address, "stream": stream, "pool": (0, n_pool)}
    builder.add_event(Action.SEGMENT_ALLOC, size_bytes=2 * MIB, time_ns=1000 * i, **where)
    builder.add_event(Action.ALLOC, size_bytes=1024, time_ns=1000 * i, **where)
    segment = builder.add_segment(size_bytes=2 * MIB, is_large=False, **where)
    used, rest = BlockState.ACTIVE_ALLOCATED, BlockState.INACTIVE
    builder.add_block(segment, address=address, size_bytes=1024, requested_bytes=1024, state=used)
    builder.add_block(segment, address=address + 1024, size_bytes=2 * MIB - 1024, requested_bytes=0, state=rest)


def devices(builder: TraceBuilder, n: int) -> None:
    for i in range(n):
        add_segment(builder, i, device=i)


def streams(builder: TraceBuilder, n: int) -> None:
    for i in range(n):
        add_segment(builder, i, stream=16 * i)


def pools(builder: TraceBuilder, n: int) -> None:
    for i in range(n):
        add_segment(builder, i, stream=16 * i, n_pool=i)


def segments(builder: TraceBuilder, n: int) -> None:
    for i in range(n):
        add_segment(builder, i)


def steps(builder: TraceBuilder, n: int) -> None:
    for i in range(n):
        if i < 100:
            add_segment(builder, i)
        builder.add_mark(MarkKind.STEP, str(i), 1000 * i)


def phases(builder: TraceBuilder, n: int) -> None:
    add_segment(builder, 0)
    for kind in (MarkKind.PHASE_BEGIN, MarkKind.PHASE_END):
        for i in range(n):
            builder.add_mark(kind, f"range {i}", 1000 + i)
        add_segment(builder, 1 + int(kind))


def stacks(builder: TraceBuilder, n: int) -> None:
    add_segment(builder, 0)
    above = builder.stacks.frame("main", "/home/me/run.py", 3)
    address = BASE + 1024
    for i in range(n):
        stack = builder.stacks.stack([builder.stacks.frame(f"call_{i}", "/home/me/train.py", i % 1000), above])
        for action in (Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED):
            builder.add_event(action, address=address, size_bytes=512, time_ns=1000 + i, stack_id=stack)


KINDS: dict[str, tuple[int, Callable[[TraceBuilder, int], None]]] = {
    "devices": (2_000, devices),
    "streams": (50_000, streams),
    "pools": (20_000, pools),
    "segments": (100_000, segments),
    "steps": (65_536, steps),
    "phases": (65_536, phases),
    "stacks": (1_000_000, stacks),
}
"""How many of each are absurd enough, and how they are made."""


def write(path: Path, make: Callable[[TraceBuilder, int], None], n: int) -> Path:
    """A recording with so many."""
    builder = TraceBuilder()
    make(builder, n)
    return write_container(
        builder.build(TraceMetadata(source="synthetic", alloc_conf="", has_pool_ids=True)), path, overwrite=True
    )


def cpu_seconds(verb: str, path: Path) -> float | None:
    """CPU time of a verb on a file; None where it runs past the limit."""
    out = ["-f", "-o", str(path.with_name("out.memscope"))] if verb == "import" else []
    command = [__file__, "--answer", str(path)] if verb == "dash" else ["-m", "memscope", verb, str(path), *out]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode not in (0, 3) and ended.returncode > 0:  # 3: no allocator would have made such a recording
        raise SystemExit(f"{' '.join(command)} ended with exit code {ended.returncode}")
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return None if ended.returncode < 0 else took


def answer(path: Path) -> None:
    """What the dashboard's page asks for when it is opened, answered."""
    from memscope_dashboard.app import create_app
    from memscope_dashboard.query import Query
    from memscope_dashboard.store import TraceStore

    from tests.dashboard.pages import page_values, post

    store = TraceStore([path])
    app = create_app(store)
    moment = Query(store.trace_ids[0]).resolved(store).data()
    values = page_values(moment, **{"url.search": "", "timeline-axis.value": "event"})
    statuses = [post(app, output, values)[0] for output in FIRST_ANSWERS]
    of = {name: moment[name] for name in ("trace", "device")}
    client = app.server.test_client()
    statuses += [client.get(f"/canvas/{what}", query_string=of).status_code for what in ("run", "segments")]
    store.close()
    if set(statuses) != {200}:
        raise SystemExit(f"the answers' statuses are {statuses}")


def row(verb: str, base: Path, few: Path, many: Path) -> str:
    """One line of the table."""
    start, first = cpu_seconds(verb, base), cpu_seconds(verb, few)
    last = None if first is None else cpu_seconds(verb, many)
    if start is None or first is None or last is None:
        return f"  {verb:8} {'past the limit' if first is None else f'{first:.1f} s, then past the limit'}"
    ratio = (max(last - start, 0.05) / max(first - start, 0.05)) ** 0.5
    return f"  {verb:8} {first:8.1f} s {last:8.1f} s   × {ratio:.1f} per doubling"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="Which to try.  [default: all]")
    parser.add_argument("--verb", action="append", choices=VERBS, help="Which verbs.  [default: all]")
    parser.add_argument("--share", type=float, default=1.0, help="Of what is absurd, for a quick look.")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.answer is not None:
        answer(given.answer)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = write(folder / "base.memscope", segments, 1)
        for kind in given.kinds or KINDS:
            n, make = KINDS[kind]
            n = max(int(n * given.share), 4)
            few, many = (write(folder / f"{kind}-{m}.memscope", make, m) for m in (n // 4, n))
            print(f"{kind}: {n // 4:,}, then {n:,}", flush=True)
            for verb in given.verb or VERBS:
                print(row(verb, base, few, many), flush=True)


if __name__ == "__main__":
    main()
