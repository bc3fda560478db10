"""Which allocations are a cache's, and which cache, layer and part each is."""

from __future__ import annotations

import numpy as np

from memscope.kv_cache._parts import UNNAMED, members_of
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from tests.kv_cache.serving_program import Program


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
