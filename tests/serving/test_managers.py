"""The registry of managers; and caches that are tensors, in the caching allocator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.serving.managers import (
    MANAGERS,
    ManagerOptions,
    manager_named,
    tensor_token_bytes,
    tensors_unit_bytes,
)
from memscope.serving.result import KvResult
from memscope.serving.shapes import KvLayer, KvShape
from memscope.serving.simulate import simulate
from memscope.units import MiB, format_bytes
from tests.properties import examples
from tests.serving.naive_tensors import NaiveTensors
from tests.serving.small_tables import COST, Request, check_timeline, job, table

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


def test_one_request_does_to_the_allocator_what_its_calls_written_out_do() -> None:
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


def test_requests_that_do_not_fit_together_take_turns_and_one_that_cannot_fit_alone_is_given_up() -> None:
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


def test_tensors_of_a_static_batch_are_padded_and_made_anew_until_the_last_one_is_done() -> None:
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


def test_a_padded_batch_that_outgrows_memory_puts_its_last_request_into_another_batch() -> None:
    requests = table([(0, 400, 60), (0, 300, 260), (0, 400, 120), (0, 20, 300)])
    result = simulate(job(requests, "concat", shape=SHAPE, n_tokens=1600, max_length=2000, policy="static"))
    check_timeline(result)
    assert result.n_completed == 4
    assert result.n_preemptions > 0
    assert result.n_pad_tokens > 0


def test_tensors_of_more_than_one_mebibyte_need_a_whole_segment() -> None:
    # 20 MiB: there is less.
    with pytest.raises(UsageError, match="every request runs out of memory, even alone"):
        simulate(job(table([(0, 100, 3)]), "concat", shape=SHAPE, n_tokens=200, max_length=200))


SAMPLED = st.tuples(st.integers(0, 3000), st.integers(1, 120), st.integers(1, 40), st.sampled_from([1, 1, 1, 3]))
SHAPES = {
    "equal": KvShape((KvLayer(1, 3072, 3072),) * 3),
    "with windows": KvShape((KvLayer(1, 3072, 3072), KvLayer(1, 3072, 3072, window=20)) * 2),
    "of no whole block": KvShape((KvLayer(1, 1500, 900),) * 3),
}


@examples(60)
@given(
    requests=st.lists(SAMPLED, min_size=1, max_size=14).map(sorted),
    shape=st.sampled_from(list(SHAPES.values())),
    n_mebibytes=st.integers(4, 90),
    max_rows=st.integers(3, 12),
    step_tokens=st.integers(12, 300),
)
def test_every_step_of_tensors_is_the_slow_twins(
    requests: list[Request], shape: KvShape, n_mebibytes: int, max_rows: int, step_tokens: int
) -> None:
    rows = [(row[0] - requests[0][0], *row[1:]) for row in requests]
    one = job(
        table(rows),
        "concat",
        n_tokens=n_mebibytes * MiB // shape.bytes_per_token,
        max_length=200,
        shape=shape,
        max_requests=max_rows,
        max_step_tokens=step_tokens,
    )
    sizes = [(size, window or None) for size, window in tensor_token_bytes(shape)]
    fits = [row for row in rows if row[3] * shape.sequence_bytes(row[1] + row[2] - 1) <= one.kv_bytes]
    unit = tensors_unit_bytes(shape)
    twin = NaiveTensors(fits, sizes, one.kv_bytes, unit, max_rows, step_tokens, _duration).run()
    if not twin.n_done:
        with pytest.raises(UsageError, match=r"none of \d+ requests fits|runs out of memory, even alone"):
            simulate(one)
        return
    result = simulate(one)
    timeline = result.timeline
    columns = (timeline.end_us, timeline.token_bytes, timeline.alloc_bytes, timeline.external_bytes)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == twin.steps
    assert result.n_preemptions == twin.n_preempted
    assert result.n_refused == twin.n_refused + len(rows) - len(fits)
    stats = twin.allocator.stats
    assert _reserved(result) == format_bytes(stats.peak_reserved_bytes)
    assert f"gave its unused memory back {stats.n_retries:,} times" in result.notes[0]


def _duration(n_bytes: int) -> int:
    took = (COST.weight_bytes + n_bytes) / (COST.bytes_per_s / 1e6)
    return max(1, int(took + COST.overhead_s * 1e6 + 0.5))


def _reserved(result: KvResult) -> str:
    note = next(note for note in result.notes if note.startswith("the allocator reserved "))
    return note.removeprefix("the allocator reserved ").split(" at its peak")[0]


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
