"""Freeing a pin's blocks and emptying the cache gives back exactly what the pin promised, in the simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.analysis import Analysis, load
from memscope.fragmentation.pins import Pin, find_pins
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.rules import large_segment_bytes
from memscope.lifetimes.state import AllocatorState
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState, MarkKind
from memscope.trace.trace import Trace
from tests.fragmentation.following import Follower
from tests.oracles import ORACLE, REAL, needs_shared
from tests.properties import examples
from tests.replay.recordings import Recorder

MiB = 1 << 20
TRACES = Path(__file__).resolve().parents[2] / "traces"
SHIPPED = sorted(TRACES.glob("*.memscope"))
ORACLES = ("mixed_default", "mixed_exp", "mixed_split128", "phases_exp", "streams_default", "llm_gpt2_tiny_train_exp")
HARD_TO_FOLLOW = ("midrun_default", "midrun_exp", "pools_exp", "graphs_exp", "ring_truncated", "oom_exp")
REAL_FROM_THE_START = ("lm-fwd-bwd-seq100", "lm-forward-seq200-bf16")


def shape(state: AllocatorState) -> list[tuple[object, ...]]:
    """Segments with the blocks in them, wherever they lie."""
    blocks, segments = state.blocks, state.segments
    offset = blocks.address - segments.address[blocks.segment_id]
    tiles = np.stack([blocks.segment_id, offset, blocks.size_bytes, blocks.state], axis=1)
    parts = np.split(tiles[:, 1:], np.flatnonzero(np.diff(blocks.segment_id)) + 1) if len(tiles) else []
    kinds = zip(segments.is_large.tolist(), segments.is_expandable.tolist(), strict=True)
    return sorted((*kind, *map(tuple, part.tolist())) for kind, part in zip(kinds, parts, strict=True))


def check_promises(lifetimes: DeviceLifetimes, n_moments: int, n_pins: int) -> int:
    """Check the first pins of some moments, and the whole of them; returns how many there were."""
    follower, n_checked = Follower(lifetimes), 0
    handle = large_segment_bytes(lifetimes.trace.metadata.alloc_conf)
    events = np.linspace(lifetimes.first_event, lifetimes.last_event, n_moments).astype(int)
    for event in events.tolist():
        follower.go_to(event)
        if shape(lifetimes.state_at(event)) != shape(follower.allocator.state()):
            # In the middle of a request, or the recording does not tell all: some calls of empty_cache leave no trace.
            continue
        pins = find_pins(lifetimes.state_at(event), 10**6, large_handle_bytes=handle)
        emptied = follower.reserved_after_emptying()
        held = [pin.held_bytes for pin in pins]
        assert held == sorted(held, reverse=True)
        for pin in (*pins[:n_pins], *pins[-1:]):
            check_pin(lifetimes, pin)
            assert emptied - follower.reserved_after_emptying(pin.allocation_ids) == pin.returned_bytes
            n_checked += 1
    return n_checked


def naive_reserved_after_emptying(state: AllocatorState, handle: int, freed: set[int]) -> int:
    """What stays reserved if some rows are freed and the cache emptied, byte range by byte range."""
    left = 0
    for i in range(len(state.segments)):
        start, size = int(state.segments.address[i]), int(state.segments.size_bytes[i])
        unit = size
        if state.segments.is_expandable[i]:
            unit = handle if state.segments.is_large[i] else 2 * MiB
        used = set()
        for b in np.flatnonzero(state.blocks.segment_id == i).tolist():
            if state.blocks.state[b] == BlockState.ACTIVE_ALLOCATED and int(state.allocation_ids[b]) not in freed:
                first = int(state.blocks.address[b]) - start
                used |= set(range(first // unit, (first + int(state.blocks.size_bytes[b]) - 1) // unit + 1))
        left += size if state.segments.pool_id[i] > 0 else len(used) * unit
    return left


@needs_shared
@pytest.mark.parametrize("name", HARD_TO_FOLLOW)
def test_a_pin_keeps_its_promise_where_the_recording_starts_late_or_has_pools(name: str) -> None:
    lifetimes = load(ORACLE / "torch-2.11.0" / f"{name}.pickle.gz").device().lifetimes
    handle, n_checked = large_segment_bytes(lifetimes.trace.metadata.alloc_conf), 0
    for event in np.linspace(lifetimes.first_event, lifetimes.last_event, 5).astype(int).tolist():
        state = lifetimes.state_at(event)
        emptied = naive_reserved_after_emptying(state, handle, set())
        for pin in find_pins(state, 4, large_handle_bytes=handle):
            check_pin(lifetimes, pin)
            after = naive_reserved_after_emptying(state, handle, set(pin.allocation_ids))
            assert emptied - after == pin.returned_bytes
            n_checked += 1
    assert n_checked > 5


def check_pin(lifetimes: DeviceLifetimes, pin: Pin) -> None:
    sizes = lifetimes.allocations.block_bytes[list(pin.allocation_ids)]
    assert pin.pinning_bytes == sizes.sum()
    assert 0 < pin.held_bytes < pin.returned_bytes
    assert pin.returned_bytes - pin.held_bytes <= pin.pinning_bytes
    assert list(sizes) == sorted(sizes, reverse=True)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_pin_of_a_shipped_trace_gives_back_what_it_promised(path: Path) -> None:
    analysis = load(path)
    assert check_promises(analysis.device(0).lifetimes, 12, 4) > 10


@needs_shared
@pytest.mark.parametrize("name", ORACLES)
def test_a_pin_of_a_recording_of_pytorch_gives_back_what_it_promised(name: str) -> None:
    analysis = load(ORACLE / "torch-2.11.0" / f"{name}.pickle.gz")
    assert check_promises(analysis.device().lifetimes, 10, 3) > 5


@needs_shared
@pytest.mark.parametrize("name", REAL_FROM_THE_START)
def test_a_pin_of_a_recording_of_a_real_gpu_gives_back_what_it_promised(name: str) -> None:
    analysis = load(REAL / f"{name}.pickle.gz")
    assert check_promises(analysis.device().lifetimes, 8, 3) > 5


@examples(25)
@given(
    seed=st.integers(0, 2**32 - 1),
    conf=st.sampled_from(["", "expandable_segments:True", "max_split_size_mb:40", "roundup_power2_divisions:4"]),
    p_wait=st.sampled_from([0.0, 0.2]),
)
def test_a_pin_of_a_random_run_gives_back_what_it_promised(seed: int, conf: str, p_wait: float) -> None:
    recorder = Recorder(conf)
    recorder.workload(seed, 150, streams=(0, 7), pools=((0, 0), (0, 0), (0, 1)), p_wait=p_wait, p_empty=0.02)
    check_promises(DeviceLifetimes(recorder.trace(), 0), 4, 3)


def test_no_pin_is_promised_in_a_private_pool() -> None:
    builder = TraceBuilder()
    segment = builder.add_segment(address=1 << 40, size_bytes=20 * MiB, is_large=True, pool=(0, 1))
    builder.add_block(segment, address=1 << 40, size_bytes=4 * MiB, requested_bytes=4 * MiB, state=0)
    builder.add_block(segment, address=(1 << 40) + 4 * MiB, size_bytes=16 * MiB, requested_bytes=0, state=2)
    lifetimes = DeviceLifetimes(builder.build(TraceMetadata(source="synthetic")), 0)
    assert find_pins(lifetimes.state_at(-1)) == ()


def test_a_pin_says_where_its_pool_is_not_known() -> None:
    lifetimes = load(TRACES / "tiny-llama-train.memscope").device().lifetimes
    state = lifetimes.state_at(lifetimes.last_event)
    assert all(pin.is_pool_known for pin in find_pins(state))
    unknown = replace(state.segments, pool_id=np.full(len(state.segments), -1, np.int32))
    assert not any(pin.is_pool_known for pin in find_pins(replace(state, segments=unknown)))


def test_handles_of_an_expandable_segment_are_pinned_one_by_one() -> None:
    # Handles of 20 MiB. A: 0 to 3, B: 19 to 45, C: 50 to 51, the rest of 80 MiB free.
    # Handle 0: A and B, 16 MiB free. Handle 1: B alone and full. Handle 2 (40 to 60): B and C, 14 free. Handle 3: free.
    builder = TraceBuilder()
    base = 1 << 40
    segment = builder.add_segment(address=base, size_bytes=80 * MiB, is_large=True, is_expandable=True)
    live = BlockState.ACTIVE_ALLOCATED
    for start, end, state in ((0, 3, live), (3, 19, 2), (19, 45, live), (45, 50, 2), (50, 51, live), (51, 80, 2)):
        size = (end - start) * MiB
        requested = size if state == live else 0
        builder.add_block(segment, address=base + start * MiB, size_bytes=size, requested_bytes=requested, state=state)
    lifetimes = DeviceLifetimes(builder.build(TraceMetadata(source="synthetic")), 0)
    first, second = find_pins(lifetimes.state_at(-1))
    assert (first.held_bytes, first.returned_bytes, first.pinning_bytes) == (16 * MiB, 40 * MiB, 29 * MiB)
    assert (second.held_bytes, second.returned_bytes, second.pinning_bytes) == (14 * MiB, 40 * MiB, 27 * MiB)


def test_a_block_that_waits_for_another_stream_pins_nothing() -> None:
    recorder = Recorder()
    kept, waiting = recorder.allocator.malloc(3 * MiB), recorder.allocator.malloc(4 * MiB)
    recorder.allocator.free(waiting, waits=True)
    lifetimes = DeviceLifetimes(recorder.trace(), 0)
    (pin,) = find_pins(lifetimes.state_at(lifetimes.last_event))
    assert [int(lifetimes.allocations.address[row]) for row in pin.allocation_ids] == [kept]
    assert (pin.held_bytes, pin.returned_bytes) == (17 * MiB, 20 * MiB)


BASE = 1 << 40


def trace(source: str = "synthetic") -> Trace:
    """Of 20 MiB, 2 are used since before the events, and 3 since the first step."""
    builder = TraceBuilder()
    builder.add_mark(MarkKind.PHASE_BEGIN, "forward")
    for i in range(4):
        event = builder.add_event(Action.ALLOC, address=BASE + 2 * MiB, size_bytes=3 * MiB, time_ns=1000 * i)
        if i < 3:
            for action in (Action.FREE_REQUESTED, Action.FREE_COMPLETED):
                builder.add_event(action, address=BASE + 2 * MiB, size_bytes=3 * MiB, time_ns=1000 * i)
            builder.add_mark(MarkKind.STEP, f"s{i}")
    builder.set_owner(event, Category.INPUTS, "batch")
    builder.add_event(Action.SNAPSHOT, address=0, size_bytes=0, time_ns=9000)
    builder.add_mark(MarkKind.STEP, "s3")
    segment = builder.add_segment(address=BASE, size_bytes=20 * MiB, is_large=True)
    for start, end, state in ((0, 2, 0), (2, 5, 0), (5, 20, 2)):
        size = (end - start) * MiB
        requested = 0 if state else size
        builder.add_block(segment, address=BASE + start * MiB, size_bytes=size, requested_bytes=requested, state=state)
    return builder.build(TraceMetadata(source=source, alloc_conf=""))


def test_holders_have_owner_age_and_step() -> None:
    moment = Analysis(trace()).end(0)
    (pin,) = moment.pins()
    batch, old = moment.holders(pin)
    assert (batch.category, batch.owner, batch.step) == (Category.INPUTS, "batch", "s3")
    assert (batch.alloc_event, batch.age_events, batch.age_ns) == (9, 1, 6000)
    assert (old.alloc_event, old.step) == (None, None)
    assert (old.age_events, old.age_ns) == (10, 9000)


def test_the_times_of_a_dry_run_are_no_ages() -> None:
    moment = Analysis(trace("dry-run")).end(0)
    (pin,) = moment.pins()
    assert [holder.age_ns for holder in moment.holders(pin)] == [None, None]
