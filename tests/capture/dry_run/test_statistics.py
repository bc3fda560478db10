"""The counters of ``torch.cuda.memory_stats`` in a dry run."""

from __future__ import annotations

import pytest

from memscope.capture.dry_run._statistics import Stat
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")
MiB = 1 << 20


def test_a_counter_keeps_its_peak_and_its_sums() -> None:
    stat = Stat()
    for amount in (5, 7, -10, 3):
        stat.change(amount)
    assert dict(stat.items()) == {"current": 5, "peak": 12, "allocated": 15, "freed": 10}


def test_every_counter_is_there_by_pool() -> None:
    with dry_run():
        small = torch.empty(1000, dtype=torch.uint8, device="cuda")
        large = torch.empty(3 * MiB, dtype=torch.uint8, device="cuda")
        gone = torch.empty(5 * MiB, dtype=torch.uint8, device="cuda")
        del gone
        stats = torch.cuda.memory_stats()
        nested = torch.cuda.memory_stats_as_nested_dict()
        assert "Allocated memory" in torch.cuda.memory_summary()
    assert stats["allocation.all.current"] == 2
    assert stats["allocation.all.allocated"] == 3
    assert stats["allocated_bytes.small_pool.current"] == 1024
    assert stats["requested_bytes.small_pool.current"] == 1000
    assert stats["allocated_bytes.large_pool.current"] == 3 * MiB
    assert stats["allocated_bytes.large_pool.peak"] == 8 * MiB
    assert stats["reserved_bytes.all.current"] == 22 * MiB
    assert stats["segment.large_pool.current"] == stats["segment.small_pool.current"] == 1
    assert stats["inactive_split_bytes.all.current"] == 22 * MiB - 1024 - 3 * MiB
    assert stats["num_ooms"] == stats["num_alloc_retries"] == 0
    assert stats["num_device_alloc"] == 2
    assert nested["allocation"]["all"]["current"] == 2
    assert list(stats) == sorted(stats)
    assert len(small) + len(large)


def test_peaks_and_sums_begin_anew() -> None:
    with dry_run():
        gone = torch.empty(5 * MiB, dtype=torch.uint8, device="cuda")
        del gone
        assert torch.cuda.max_memory_allocated() == 5 * MiB
        torch.cuda.reset_peak_memory_stats()
        assert torch.cuda.max_memory_allocated() == 0
        torch.cuda.reset_accumulated_memory_stats()
        assert torch.cuda.memory_stats()["allocation.all.allocated"] == 0
