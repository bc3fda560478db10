"""Allocations and usage as columns: who is active, who waits, and where peaks are."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.lifetimes.tables import AllocationTable, UsageSeries

# Four allocations: older than the events and freed at 3; freed at once; freed at 2, complete at 5; never freed.
TABLE = AllocationTable(
    alloc_event=[-1, 0, 1, 4],
    free_requested_event=[3, 2, 2, -1],
    free_event=[3, 2, 5, -1],
    address=[0, 512, 1024, 1536],
    requested_bytes=[512, 512, 512, 100],
    block_bytes=[512, 512, 512, 512],
    is_exact=[False, True, True, True],
    is_pending_at_start=[False, False, False, False],
    stream_id=[0, 0, 0, 0],
    pool_id=[0, 0, 0, 0],
    is_large=[False, False, False, False],
    stack_id=[-1, -1, -1, -1],
)


@pytest.mark.parametrize(
    ("event", "active", "pending"),
    [
        (-1, [True, False, False, False], [False, False, False, False]),
        (1, [True, True, True, False], [False, False, False, False]),
        (2, [True, False, True, False], [False, False, True, False]),
        (4, [False, False, True, True], [False, False, True, False]),
        (5, [False, False, False, True], [False, False, False, False]),
    ],
)
def test_a_block_is_active_until_its_free_is_complete(event: int, active: list[bool], pending: list[bool]) -> None:
    assert TABLE.active_at(event).tolist() == active
    assert TABLE.pending_at(event).tolist() == pending


def test_the_program_lets_go_when_it_asks_for_the_free() -> None:
    assert TABLE.let_go_event.tolist() == [3, 2, 2, -1]


def test_peaks_are_the_first_of_their_height() -> None:
    usage = UsageSeries(10, np.array([0, 5, 9, 9]), np.array([0, 5, 9, 9]), np.array([0, 4, 8, 8]), None)
    assert (usage.peak_event, usage.peak_reserved_event) == (11, None)
    assert usage.event_at(usage.index_of(12)) == 12
    assert usage.event_at(0) == -1
    with pytest.raises(ValueError, match="read-only"):
        usage.active_bytes[0] = 1
