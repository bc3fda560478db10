"""A cache's bytes over time: what the lens says is what the program knows, at every event, to the byte."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.analysis import Analysis
from memscope.errors import InvariantError
from memscope.kv_cache.series import SPLITS
from tests.kv_cache.serving_program import Program, assert_true, generate
from tests.properties import examples


def test_a_growing_cache_holds_tokens_and_its_old_copies() -> None:
    program = Program()
    generate(program, prompt=20, n_new=5)
    lens = assert_true(program)
    assert lens.cost.n_copies == 5 * 3 * 2
    assert int(lens.series.unused_bytes.max()) == 0
    # One tensor of the last but one length stands beside its replacement, in a block that may be larger.
    assert int(lens.series.stale_bytes.max()) == 24 * 64 * 1024
    table = lens.device.lifetimes.allocations
    assert lens.cost.copy_peak_bytes == int(table.block_bytes[lens.parts.rows[lens.growth.old]].max())
    assert lens.cost.moved_bytes == sum(range(20, 25)) * 6 * 64 * 1024


def test_a_static_cache_has_a_tail_that_fills_up() -> None:
    program = Program()
    generate(program, prompt=20, n_new=5, capacity=100)
    lens = assert_true(program)
    assert lens.cost.n_copies == 0
    end = lens.total_at(lens.device.lifetimes.last_event)
    assert (end.token_bytes, end.unused_bytes) == (25 * 6 * 64 * 1024, 75 * 6 * 64 * 1024)
    (cache,) = lens.caches
    assert (cache.capacity_tokens, cache.n_tokens, cache.n_sequences, cache.bytes_per_token) == (100, 25, 2, 6 * 32768)


def test_a_static_cache_of_which_no_length_was_noted_is_not_told() -> None:
    program = Program()
    cache = program.cache()
    program.static(cache, 0, "keys", 100, 1024)
    program.describe(cache, 0, 1, 1024, capacity_tokens=100)
    lens = assert_true(program)
    assert lens.total_at(lens.device.lifetimes.last_event).untold_bytes == 100 * 1024
    assert lens.tokens_at(lens.device.lifetimes.last_event) is None


def test_a_window_leaves_the_prompt_behind_until_the_next_token() -> None:
    program = Program()
    generate(program, prompt=50, n_new=4, window=8)
    lens = assert_true(program)
    assert int(lens.series.unused_bytes.max()) >= (50 - 8) * 6 * 64 * 1024
    # When the window is full each tensor is made anew at the same length: copies all the same.
    assert lens.cost.n_copies == 4 * 6


def test_what_waits_for_a_stream_is_stale() -> None:
    program = Program()
    cache = program.cache()
    program.dynamic(cache, 0, "keys", 4, 1024)
    program.describe(cache, 0, 1, 1024)
    (tensor,) = cache.tensors.values()
    program.free(tensor, waits=True)
    program.free(program.malloc(512))
    program.complete(tensor)
    lens = assert_true(program)
    assert int(lens.series.stale_bytes.max()) == 4096


def test_an_engines_pool_is_not_told() -> None:
    program = Program()
    pools = [program.malloc(7_000_000, f"model.layers.{i}.self_attn.attn") for i in range(4)]
    for tensor in pools:
        tensor.is_told = False
    lens = assert_true(program)
    event = lens.device.lifetimes.last_event
    assert sum(row.untold_bytes for row in lens.pools_at(event)) == 28_000_000
    assert [row.key for row in lens.by_layer(event)] == [0, 1, 2, 3]
    assert lens.caches == ()
    assert lens.bytes_per_token(event) is None


@given(seed=st.integers(0, 2**32))
@examples(60)
def test_whatever_a_program_does_the_split_is_its_truth(seed: int) -> None:
    rng = random.Random(seed)
    program = Program(rng.choice(["", "expandable_segments:True", "max_split_size_mb:20"]))
    running = []
    lengths: dict[int, int] = {}
    for _ in range(rng.randint(2, 30)):
        what = rng.random()
        if what < 0.25 or not running:
            cache = program.cache()
            kind = rng.choice(["dynamic", "static", "window", "mute"])
            running.append((cache, kind, rng.choice([512, 3000, 40_000]), rng.randint(1, 3)))
            lengths[cache.cache_id] = 0
        cache, kind, rate, n_layers = rng.choice(running)
        if what > 0.9 and cache.tensors:  # a program of empty caches alone would have recorded no event
            program.drop(cache)
            running = [entry for entry in running if entry[0] is not cache]
            continue
        n_tokens = lengths[cache.cache_id] = lengths[cache.cache_id] + rng.choice([1, 1, 1, 7, 60])
        for layer in range(n_layers):
            for part in ("keys", "values"):
                if kind in ("static", "mute"):
                    if (layer, part) not in cache.tensors:
                        program.static(cache, layer, part, 50, rate)
                else:
                    window = 9 if kind == "window" else None
                    program.dynamic(cache, layer, part, n_tokens, rate, window)
            limits = {
                "static": {"capacity_tokens": 50},
                "mute": {"capacity_tokens": 50},
                "window": {"window_tokens": 9},
            }
            program.describe(cache, layer, 1, rate, **limits.get(kind, {}))
            if rng.random() < 0.3:
                program.free(program.malloc(rng.choice([100, 5_000_000])))
        if kind != "mute":
            program.note(cache, n_tokens if rng.random() < 0.95 else -1)
        elif rng.random() < 0.1:
            program.malloc(999, "somebody's").is_told = False
    assert_true(program)


@pytest.mark.parametrize("name", ["event", "layer", "cache_id", "capacity_tokens", "n_sequences", "kind_id"])
def test_descriptions_that_make_no_sense_keep_the_split_closed(name: str) -> None:
    program = Program()
    generate(program, prompt=20, n_new=3, capacity=40)
    trace = program.trace()
    n = len(trace.cache_layers)
    if name == "event":  # a trace takes none that it has not
        with pytest.raises(InvariantError, match="points outside"):
            dataclasses.replace(trace, cache_layers=dataclasses.replace(trace.cache_layers, event=np.full(n, 1 << 30)))
    beyond = trace.n_events - 1 if name == "event" else 1 << 30
    values = np.array([-1, 0, beyond][:n]) if name != "kind_id" else np.full(n, -1)
    layers = dataclasses.replace(trace.cache_layers, **{name: values.astype(getattr(trace.cache_layers, name).dtype)})
    lens = Analysis(dataclasses.replace(trace, cache_layers=layers)).opinions().kv_lens
    assert all(int(getattr(lens.series, split).min()) >= 0 for split in SPLITS)
    lens.caches, lens.tokens_at(lens.peak_event), lens.bytes_per_token(lens.peak_event)
    total = lens.total_at(lens.peak_event)
    assert total.block_bytes == int(lens.series.block_bytes.max())


HUGE = np.iinfo(np.int64).max


@pytest.mark.parametrize("column", ["key_token_bytes", "value_token_bytes", "capacity_tokens", "window_tokens"])
@pytest.mark.parametrize("value", [HUGE, HUGE // 2, 1 << 40, -7])
def test_absurd_descriptions_never_give_negative_numbers(column: str, value: int) -> None:
    program = Program()
    generate(program, prompt=20, n_new=3, capacity=40)
    generate(program, prompt=20, n_new=3, window=8)
    assert_never_negative(program, "cache_layers", column, value)


@pytest.mark.parametrize("value", [HUGE, HUGE // 2, 1 << 40, -7])
def test_absurd_lengths_never_give_negative_numbers(value: int) -> None:
    program = Program()
    generate(program, prompt=20, n_new=3, capacity=40)
    generate(program, prompt=20, n_new=3)
    assert_never_negative(program, "cache_lengths", "n_tokens", value)


def assert_never_negative(program: Program, table: str, column: str, value: int) -> None:
    """The same recording with every value of a column replaced: it closes, and nothing is below zero."""
    trace = program.trace()
    rows = getattr(trace, table)
    changed = dataclasses.replace(rows, **{column: np.full(len(rows), value)})
    lens = Analysis(dataclasses.replace(trace, **{table: changed})).opinions().kv_lens
    allocations = lens.device.lifetimes.allocations
    held = lens.device.lifetimes.weighted_usage(lens.parts.rows, allocations.block_bytes[lens.parts.rows])
    np.testing.assert_array_equal(lens.series.block_bytes, held)
    assert all(int(getattr(lens.series, split).min()) >= 0 for split in SPLITS)
    assert (lens.tokens_at(lens.peak_event) or 0) >= 0
    assert (lens.bytes_per_token(lens.peak_event) or 0) >= 0
    for row in (*lens.by_layer(lens.peak_event), *lens.by_cache(lens.peak_event)):
        assert all(getattr(row, split) >= 0 for split in SPLITS)
