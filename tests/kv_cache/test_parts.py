"""The allocations of a device that are key/value cache: which part each is, and how they grew by copying."""

from __future__ import annotations

import random

import numpy as np
import pytest

from memscope.kv_cache._parts import UNNAMED, members_of
from memscope.kv_cache.lens import KvLens
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from tests.kv_cache.serving_program import MiB, Program, Tensor


def test_parts_are_read_from_the_names_of_their_owners() -> None:
    program = Program()
    program.malloc(1000, "cache 2 layer 3 keys scale")
    program.malloc(1000, "a weight", Category.WEIGHTS)
    program.malloc(1000, "cache 1 cross layer 0 values")
    program.malloc(1000, "model.layers.7.self_attn.attn")
    program.malloc(1000, "my own cache")
    parts = program.analysis().opinions().kv_lens.parts
    assert parts.rows.tolist() == [0, 2, 3, 4]
    assert parts.cache_id.tolist() == [2, 1, NONE_ID, NONE_ID]
    assert parts.layer.tolist() == [3, 0, 7, NONE_ID]
    assert [parts.part(i) for i in range(4)] == ["keys scale", "values", UNNAMED, UNNAMED]
    assert parts.is_cross.tolist() == [False, True, False, False]
    assert parts.is_numbered.tolist() == [True, True, False, False]


def test_members_of_a_column_are_listed_by_value() -> None:
    found = {value: positions.tolist() for value, positions in members_of(np.array([3, -1, 3, 0]))}
    assert found == {-1: [1], 0: [3], 3: [0, 2]}
    assert members_of(np.empty(0, np.int64)) == []


def lens_of(program: Program) -> KvLens:
    return program.analysis().opinions().kv_lens


def goes_on(program: Program) -> None:
    """The program allocates something else."""
    program.free(program.malloc(MiB))


def test_chunks_of_one_name_that_go_together_were_never_copied() -> None:
    program = Program()
    chunks = [program.malloc(8 * MiB, f"request 17 layers.0 {part}_cache") for _ in range(24) for part in "kv"]
    for chunk in chunks:
        program.free(chunk)
    lens = lens_of(program)
    assert len(lens.growth) == 0
    assert lens.cost.copy_peak_bytes == 0
    assert int(lens.series.untold_bytes.max()) == 48 * 8 * MiB


def test_buffers_of_different_sizes_under_one_name_were_never_copied() -> None:
    program = Program()
    sizes = ([MiB] * 5 + [12 * MiB]) * 4
    for tensor in [program.malloc(size, "kv_cache") for size in sizes]:
        program.free(tensor)
    assert len(lens_of(program).growth) == 0


def test_every_layer_is_paired_where_one_name_stands_for_all() -> None:
    program = Program()
    layers = [program.malloc(10 * MiB, "kv_cache") for _ in range(6)]
    for step in range(1, 20):
        for i, old in enumerate(layers):
            layers[i] = program.malloc((10 + step) * MiB, "kv_cache")
            program.free(old)
            goes_on(program)
    lens = lens_of(program)
    assert len(lens.growth) == 19 * 6
    assert len(set(lens.growth.chain.tolist())) == 6


def test_caches_that_grow_in_any_order_under_one_name_are_kept_apart() -> None:
    rng = random.Random(1)
    program = Program()
    sizes = [10, 25, 60]
    caches: list[Tensor] = [program.malloc(size * MiB, "kv_cache") for size in sizes]
    truth = []
    for _ in range(57):
        i = rng.randrange(3)
        old, sizes[i] = caches[i], sizes[i] + 1
        caches[i] = program.malloc(sizes[i] * MiB, "kv_cache")
        truth.append(old.requested_bytes)
        program.free(old)
        goes_on(program)
    lens = lens_of(program)
    assert lens.cost.n_copies == 57
    assert lens.cost.moved_bytes == sum(truth)


def test_a_large_tensor_that_stays_does_not_hide_what_grows_beside_it() -> None:
    program = Program()
    program.malloc(500 * MiB, "kv_cache")
    old = program.malloc(10 * MiB, "kv_cache")
    for step in range(1, 20):
        new = program.malloc((10 + step) * MiB, "kv_cache")
        program.free(old)
        goes_on(program)
        old = new
    assert lens_of(program).cost.n_copies == 19


def test_a_smaller_prefix_that_is_kept_is_not_taken_for_replaced() -> None:
    program = Program()
    prefix = program.malloc(5 * MiB, "kv_cache")
    old = program.malloc(6 * MiB, "kv_cache")
    for step in range(1, 30):
        new = program.malloc((6 + step) * MiB, "kv_cache")
        program.free(old)
        goes_on(program)
        old = new
    program.free(prefix)
    goes_on(program)
    assert lens_of(program).cost.n_copies == 29


@pytest.mark.parametrize("waits", [False, True])
def test_what_was_waiting_for_its_stream_when_recording_began_replaced_nothing(waits: bool) -> None:
    program = Program()
    cache = program.cache()
    program.dynamic(cache, 0, "keys", 10, MiB)
    (tensor,) = cache.tensors.values()
    if waits:
        program.free(tensor, waits=True)
    late = Program()
    late.allocator, late.caches = program.allocator, program.caches
    late.builder.set_owner_at(0, tensor.address, Category.KV_CACHE, "cache 1 layer 0 keys")
    if waits:
        cache.tensors.clear()
    for n_tokens in range(11, 20):
        late.dynamic(cache, 0, "keys", n_tokens, MiB)
        if waits and n_tokens == 12:
            late.complete(tensor)
    assert lens_of(late).cost.n_copies == (8 if waits else 9)
