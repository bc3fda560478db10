"""The options that decide sizes, as a trace has them."""

from __future__ import annotations

import numpy as np

from memscope._core.caching import UNLIMITED
from memscope.lifetimes.rules import large_segment_bytes, rules_of
from memscope.trace.metadata import TraceMetadata
from memscope.units import MiB


def test_rules_are_torch_s_where_a_trace_does_not_say() -> None:
    rules = rules_of(TraceMetadata(source="synthetic"))
    assert (rules.max_split_bytes, rules.large_segment_bytes, rules.is_expandable) == (UNLIMITED, 20 * MiB, False)
    assert rules.roundup_divisions == (0,) * 16


def test_rules_are_read_from_the_recorded_settings() -> None:
    settings = {
        "max_split_size": 64 * MiB,
        "expandable_segments": True,
        "roundup_power2_divisions": {"1": 2, "32768": 8},
    }
    rules = rules_of(
        TraceMetadata(source="synthetic", alloc_conf="large_segment_size_mb:12", allocator_settings=settings)
    )
    assert (rules.max_split_bytes, rules.large_segment_bytes, rules.is_expandable) == (64 * MiB, 12 * MiB, True)
    assert rules.roundup_divisions == (2, *(0,) * 14, 8)


def test_large_segments_have_the_configured_size() -> None:
    assert large_segment_bytes(None) == 20 * MiB
    assert large_segment_bytes("max_split_size_mb:40, large_segment_size_mb:64") == 64 * MiB
    assert large_segment_bytes("large_segment_size_mb:much") == 20 * MiB


def test_sizes_are_rounded_and_split_by_the_rules() -> None:
    rules = rules_of(TraceMetadata(source="synthetic", allocator_settings={"roundup_power2_divisions": {"1": 4}}))
    assert rules.round_size(4097) == 5120
    assert rules.round_sizes(np.array([1, 4097, 65_537])).tolist() == [512, 5120, 81_920]
    assert rules.should_split(20 * MiB, 19 * MiB - 512)
    assert not rules.should_split(20 * MiB, 19 * MiB)
