"""The cost of growing by copying: a replay without the copies is that of a program that never made them."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.kv_cache.alternatives import AS_RECORDED, ONCE, POOL, replay_without_copies
from memscope.replay.caching.engine import replay_caching
from memscope.trace.categories import Category
from memscope.trace.schema import Action
from tests.kv_cache.serving_program import MiB, Program, generate


def test_the_recorded_requests_are_replayed_as_they_were() -> None:
    program = Program()
    generate(program, prompt=100, n_new=30, rate_bytes=100_000)
    lens = program.analysis().opinions().kv_lens
    replay = replay_without_copies(lens)
    assert replay is not None
    recorded = replay.alternatives[0]
    assert recorded.name == AS_RECORDED
    assert recorded.result.exactness == "exact"
    at_allocs = np.flatnonzero(lens.device.lifetimes.trace.action == Action.ALLOC) + 1
    for name in ("reserved_bytes", "allocated_bytes"):
        replayed, seen = getattr(recorded.result.usage, name), getattr(lens.device.lifetimes.usage, name)
        np.testing.assert_array_equal(replayed[at_allocs], seen[at_allocs])


@pytest.mark.parametrize("conf", ["", "expandable_segments:True", "roundup_power2_divisions:4"])
def test_allocated_once_is_what_a_static_cache_of_the_right_length_gets(conf: str) -> None:
    grown, static = Program(conf), Program(conf)
    for program, capacity in ((grown, None), (static, 130)):
        generate(program, prompt=100, n_new=30, rate_bytes=100_000, capacity=capacity)
    replay = replay_without_copies(grown.analysis().opinions().kv_lens)
    assert replay is not None
    once = next(one for one in replay.alternatives if one.name == ONCE)
    truth = replay_caching(static.analysis().device().lifetimes)
    assert once.result.peak_reserved_bytes == truth.peak_reserved_bytes
    assert once.peak_allocated_bytes == int(truth.usage.allocated_bytes.max())
    assert once.result.n_device_allocs == truth.n_device_allocs
    assert replay.saved_bytes(once) == replay.alternatives[0].result.peak_reserved_bytes - truth.peak_reserved_bytes


def test_growing_by_copying_leaves_holes_that_a_single_allocation_does_not() -> None:
    program = Program()
    generate(program, prompt=100, n_new=60, n_layers=6, rate_bytes=100_000)
    replay = replay_without_copies(program.analysis().opinions().kv_lens)
    assert replay is not None
    saved = {one.name: replay.saved_bytes(one) for one in replay.alternatives}
    assert saved[AS_RECORDED] == 0
    assert (saved[ONCE] or 0) > 20 * MiB


def test_a_pool_serves_one_generation_after_the_other_from_the_same_memory() -> None:
    program = Program()
    for length in (100, 40, 70):
        program.drop(generate(program, prompt=length, n_new=10, rate_bytes=100_000))
    replay = replay_without_copies(program.analysis().opinions().kv_lens)
    assert replay is not None
    pool = next(one for one in replay.alternatives if one.name == POOL)
    # Six tensors of the longest cache's keys and values, each allocated once for all three.
    assert pool.result.peak_active_bytes >= 6 * 110 * 100_000
    assert pool.peak_allocated_bytes < 6 * 110 * 100_000 + 8 * MiB
    assert pool.result.usage.active_bytes[-1] == 0


def test_what_predates_the_recording_and_what_is_never_freed_are_kept() -> None:
    program = Program()
    cache = program.cache()
    program.dynamic(cache, 0, "keys", 100, 100_000)
    program.malloc(30 * MiB)
    trace = program.trace()
    late = Program()
    late.allocator, late.builder.strings = program.allocator, late.builder.strings
    address = cache.tensors[0, "keys"].address
    late.builder.set_owner_at(0, address, Category.KV_CACHE, "cache 1 layer 0 keys")
    late.caches, late.tensors = program.caches, program.tensors
    for n_tokens in range(101, 130):
        late.dynamic(cache, 0, "keys", n_tokens, 100_000)
    assert len(trace) > 0
    lens = late.analysis().opinions().kv_lens
    assert lens.cost.n_copies == 29
    replay = replay_without_copies(lens)
    assert replay is not None
    once = next(one for one in replay.alternatives if one.name == ONCE)
    held = 129 * 100_000
    assert once.result.usage.requested_bytes is not None
    assert set(once.result.usage.requested_bytes.tolist()) == {held + 30 * MiB}


def test_nothing_grown_is_nothing_to_replay() -> None:
    program = Program()
    generate(program, prompt=20, n_new=3, capacity=40)
    assert replay_without_copies(program.analysis().opinions().kv_lens) is None
