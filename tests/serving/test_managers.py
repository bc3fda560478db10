"""The registry of managers; and caches that are tensors, in the caching allocator.

The allocator compiled into the scheduler takes its time, so the fast tests run the kernels as plain Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.serving.managers import MANAGERS, ManagerOptions, manager_named
from memscope.serving.result import KvResult
from memscope.serving.shapes import KvLayer, KvShape
from memscope.serving.simulate import simulate
from memscope.units import MiB
from tests.serving.small_tables import check_timeline, job, table

SHAPE = KvShape((KvLayer(2, 3072, 3072), KvLayer(2, 3072, 3072, window=5)))
"""Tensors of 12 KiB a token: they leave the small pool after 85 tokens."""


def concatenated(n_prompt: int, n_output: int, capacity_bytes: int) -> CachingAllocator:
    """What one request does to the allocator, written out: a new tensor first, then the old one goes."""
    allocator = CachingAllocator(limits=Limits(capacity_bytes))
    tensors = [0] * 4
    held = 0
    for n_tokens in (n_prompt, *([1] * (n_output - 1))):
        for i, window in enumerate((None, None, 5, 5)):
            kept = held if window is None else min(held, window - 1)
            new = allocator.malloc((kept + n_tokens) * 12 * 1024)
            if tensors[i]:
                allocator.free(tensors[i])
            tensors[i] = new
        held += n_tokens
    return allocator


def check_one_request() -> None:
    """One request: the allocator does what the sequence of its calls, written out, makes it do."""
    result = simulate(job(table([(0, 90, 12)]), "concat", shape=SHAPE, n_tokens=4000, max_length=256))
    allocator = concatenated(90, 12, 4000 * SHAPE.bytes_per_token)
    stats = allocator.stats
    assert result.n_completed == 1
    assert _reserved(result) == f"{stats.peak_reserved_bytes / MiB:.1f} MiB"
    # Full layers end with 101 tokens each, windowed ones with 5, rounded to blocks.
    assert result.timeline.token_bytes[-1] == SHAPE.sequence_bytes(101)
    assert result.timeline.alloc_bytes[-1] == stats.active_bytes
    assert result.timeline.alloc_bytes[0] == 4 * 90 * 12 * 1024
    assert result.waste.internal > 0


def check_running_out() -> None:
    """Requests that do not fit together take turns; one that cannot fit alone is given up."""
    requests = table([(0, 400, 60), (0, 400, 60), (0, 400, 60), (0, 1500, 3)])
    result = simulate(job(requests, "concat", shape=SHAPE, n_tokens=1600, max_length=2000))
    assert result.n_completed == 3
    assert result.n_refused == 1
    assert result.n_preemptions > 0
    waste = result.waste
    whole = waste.tokens + waste.reservation + waste.internal + waste.external + waste.unclaimed
    assert whole == result.capacity_bytes * result.makespan_us
    with pytest.raises(SimulatedOutOfMemoryError):
        concatenated(1500, 3, 1600 * SHAPE.bytes_per_token)


def check_padded_batch() -> None:
    """A static batch: tensors as long as the longest prompt, made anew in every step until the last one is done."""
    capacity = 6000 * SHAPE.bytes_per_token
    requests = table([(0, 90, 12), (0, 120, 3, 2)])
    one = job(requests, "concat", shape=SHAPE, n_tokens=6000, max_length=256, policy="static")
    result = simulate(one)
    allocator, rows = CachingAllocator(limits=Limits(capacity)), (1, 2)
    tensors = [[0] * 4 for _ in rows]
    length, alloc = 0, []
    for n_tokens in (120, *([1] * 11)):
        for n_rows, mine in zip(rows, tensors, strict=True):
            for i, window in enumerate((None, None, 5, 5)):
                kept = length if window is None else min(length, window - 1)
                new = allocator.malloc(n_rows * (kept + n_tokens) * 12 * 1024)
                if mine[i]:
                    allocator.free(mine[i])
                mine[i] = new
        length += n_tokens
        alloc.append(allocator.stats.active_bytes)
    assert result.timeline.alloc_bytes.tolist() == alloc
    assert _reserved(result) == f"{allocator.stats.peak_reserved_bytes / MiB:.1f} MiB"
    assert result.n_pad_tokens == 30 + 2 * 9
    held = [SHAPE.sequence_bytes(90 + i) + (2 * SHAPE.sequence_bytes(120 + i) if i < 3 else 0) for i in range(12)]
    assert result.timeline.token_bytes.tolist() == held
    assert result.n_steps == 12


def check_padded_batch_without_room() -> None:
    """A padded batch that outgrows memory puts its last request back, which comes in another batch."""
    requests = table([(0, 400, 60), (0, 300, 260), (0, 400, 120), (0, 20, 300)])
    result = simulate(job(requests, "concat", shape=SHAPE, n_tokens=1600, max_length=2000, policy="static"))
    check_timeline(result)
    assert result.n_completed == 4
    assert result.n_preemptions > 0
    assert result.n_pad_tokens > 0


def check_none_fits() -> None:
    """A segment of the allocator is 20 MiB: with less, no tensor of more than 1 MiB can be."""
    with pytest.raises(UsageError, match="every request runs out of memory, even alone"):
        simulate(job(table([(0, 100, 3)]), "concat", shape=SHAPE, n_tokens=200, max_length=200))


def _reserved(result: KvResult) -> str:
    note = next(note for note in result.notes if note.startswith("the allocator reserved "))
    return note.removeprefix("the allocator reserved ").split(" at its peak")[0]


CHECKS = [
    "check_one_request",
    "check_running_out",
    "check_padded_batch",
    "check_padded_batch_without_room",
    "check_none_fits",
]


@pytest.mark.parametrize("check", CHECKS)
def test_tensors_are_the_allocators_as_plain_python(check: str) -> None:
    root = Path(__file__).resolve().parents[2]
    code = f"from tests.serving import test_managers; test_managers.{check}()"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_tensors_are_the_allocators_compiled() -> None:
    check_one_request()
    check_running_out()
    check_padded_batch()
    check_padded_batch_without_room()


def test_a_manager_is_found_by_its_name_or_the_names_are_listed() -> None:
    assert all(manager_named(name).name == name for name in MANAGERS)
    with pytest.raises(UsageError, match=f"there is no manager 'x': choose one of {', '.join(MANAGERS)}"):
        manager_named("x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "at least one token"),
        ({"max_length": 1 << 25}, "is more than 16,777,216"),
        ({"page_bytes": 4096}, "a page is 64KiB or 2MiB"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ManagerOptions(**options)


def test_memory_is_tables_of_what_tokens_take() -> None:
    shape = KvShape((KvLayer(1, 2, 2),) * 3)
    requests = table([(0, 5, 3), (0, 9, 4)])
    options = ManagerOptions(block_size=4, max_length=12)
    made = {name: manager.make(shape, requests, options, 12) for name, manager in MANAGERS.items()}
    for memory in made.values():
        assert (memory.tokens_of * memory.unit_bytes).tolist() == [24 * n for n in range(13)]
    assert (made["paged"].alloc_of * made["paged"].unit_bytes // 24).tolist() == [0, *[4] * 4, *[8] * 4, *[12] * 4]
    # The longest, the final length (5 + 3 − 1 and 9 + 4 − 1), and the output rounded up (5 + 4, 9 + 4 cut to 12).
    regions = {name: (made[name].region * made[name].unit_bytes // 24).tolist() for name in MANAGERS}
    assert regions["max-length"] == [12, 12]
    assert regions["oracle-length"] == [7, 12]
    assert regions["buddy"] == [9, 12]
    assert regions["paged"] == []
