"""The lens at a moment: its layers, caches, pools and tokens."""

from __future__ import annotations

import pytest

from memscope.errors import UsageError
from memscope.kv_cache.series import SPLITS
from tests.kv_cache.serving_program import MiB, Program, assert_true, generate


def test_layers_and_caches_sum_to_the_whole() -> None:
    program = Program()
    generate(program, prompt=20, n_new=3)
    generate(program, prompt=7, n_new=2, capacity=16)
    program.malloc(12345, "kv").is_told = False
    lens = assert_true(program)
    for event in (0, lens.peak_event, lens.device.lifetimes.last_event):
        total = lens.total_at(event)
        for rows in (lens.by_layer(event), lens.by_cache(event)):
            for name in (*SPLITS, "n_tensors"):
                assert sum(getattr(row, name) for row in rows) == getattr(total, name)
    assert [row.name for row in lens.by_cache(lens.device.lifetimes.last_event)] == [
        "cache 1",
        "cache 2",
        "cache not recorded",
    ]


def test_tokens_held_are_those_of_all_sequences_of_the_caches_that_are_there() -> None:
    program = Program()
    first = generate(program, prompt=20, n_new=3, n_sequences=4)
    lens = program.analysis().opinions().kv_lens
    assert lens.tokens_at(lens.device.lifetimes.last_event) == 23 * 4
    generate(program, prompt=7, n_new=2, n_sequences=1)
    program.drop(first)
    lens = assert_true(program)
    assert lens.tokens_at(lens.device.lifetimes.last_event) == 9
    assert [cache.n_tokens for cache in lens.caches] == [23, 9]
    assert lens.caches[0].end_event == lens.device.lifetimes.last_event


def test_a_program_that_only_made_a_cache_recorded_nothing() -> None:
    program = Program()
    program.note(program.cache(), 5)
    with pytest.raises(UsageError, match="this trace is empty: it has no segments and no events"):
        program.analysis().opinions()


def test_a_trace_without_a_cache_has_no_lens() -> None:
    program = Program()
    program.malloc(1000)
    assert not program.analysis().opinions().kv_lens


def test_the_moment_looked_at_is_the_fullest_of_those_with_most_bytes() -> None:
    program = Program()
    generate(program, prompt=10, n_new=30, capacity=40)
    lens = program.analysis().opinions().kv_lens
    assert lens.total_at(lens.peak_event).unused_bytes == 0


def test_pools_of_every_layer_are_one_pool() -> None:
    program = Program()
    for i in range(32):
        program.malloc(MiB, f"model.layers.{i}.self_attn.attn").is_told = False
    lens = program.analysis().opinions().kv_lens
    (pool,) = lens.pools_at(lens.peak_event)
    assert (pool.name, pool.n_tensors, pool.untold_bytes) == ("model.layers.*.self_attn.attn", 32, 32 * MiB)


def test_a_cache_is_summed_up_over_the_recording() -> None:
    program = Program()
    program.drop(generate(program, prompt=20, n_new=3, n_sequences=4))
    generate(program, prompt=7, n_new=2, capacity=16)
    lens = program.analysis().opinions().kv_lens
    grown, fixed = lens.caches
    assert [cache.kinds for cache in (grown, fixed)] == [(("DynamicLayer", 3),), (("StaticLayer", 3),)]
    assert (grown.n_layers, grown.n_sequences, grown.n_tokens, grown.capacity_tokens) == (3, 4, 23, None)
    assert (fixed.n_tokens, fixed.capacity_tokens) == (9, 16)
    assert grown.begin_event < grown.end_event < fixed.begin_event
    assert fixed.end_event == -1
    assert lens.bytes_per_token(fixed.begin_event) == fixed.bytes_per_token
