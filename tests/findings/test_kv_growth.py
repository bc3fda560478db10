"""Caches that grow by copying."""

from __future__ import annotations

import numpy as np

from memscope.analysis import Analysis, load
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from tests.findings.traces import SHIPPED, kinds, of_kind

MiB = 1 << 20


def test_a_kv_cache_that_grows_by_copying_is_found_with_its_copies() -> None:
    analysis = load(SHIPPED / "tiny-gpt2-generate.memscope")
    (found,) = of_kind(analysis.opinions(0).findings, "kv-growth")
    table = analysis.device(0).allocations
    rows = np.flatnonzero(analysis.device(0).attribution.category == Category.KV_CACHE)
    # 24 tokens, 3 layers, keys and values: 23 times each of 6 tensors is replaced by one that is a token longer.
    assert found.evidence["n_copies"] == len(rows) - 6 == 138
    assert found.evidence["moved_bytes"] == sum(sorted(table.requested_bytes[rows].tolist())[:138])
    assert found.evidence["most_held_bytes"] == int(analysis.device(0).category_usage[Category.KV_CACHE].max())


def test_a_kv_cache_of_fixed_size_does_not_grow() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.SEGMENT_ALLOC, address=1 << 40, size_bytes=20 * MiB)
    for i in range(9):
        event = builder.add_event(Action.ALLOC, address=(1 << 40) + 2 * i * MiB, size_bytes=2 * MiB)
        builder.set_owner(event, Category.KV_CACHE, f"layer {i}")
    trace = builder.build(TraceMetadata(source="synthetic", block_layout_recorded=False))
    assert "kv-growth" not in kinds(Analysis(trace).opinions(0).findings)
