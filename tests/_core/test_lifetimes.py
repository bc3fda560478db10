"""Ranges of segments, against a set of unit cells and against a dictionary where there are many of them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope._core import lifetimes as core
from memscope.trace.schema import Action
from tests.properties import examples

NOTHING = (np.empty(0, np.int64),) * 3
operations = st.lists(
    st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 6), st.integers(0, 1)), min_size=1, max_size=40
)


def columns_of(operations: list) -> tuple[np.ndarray, ...]:
    """Action, address, size and key of events that map (True) or unmap."""
    maps, start, length, key = zip(*operations, strict=True)
    action = np.where(maps, Action.SEGMENT_MAP, Action.SEGMENT_UNMAP).astype(np.int8)
    return (action, *(np.array(column, np.int64) for column in (start, length, key)))


def cells_after(operations: list) -> tuple[dict[int, int], int]:
    """The key of each cell once the operations that fit are done, and how many did not."""
    cells: dict[int, int] = {}
    n_misfits = 0
    for maps, start, length, key in operations:
        wanted = range(start, start + length)
        held = {cells.get(cell) for cell in wanted}
        if maps and held == {None}:
            cells.update(dict.fromkeys(wanted, key))
        elif not maps and len(held) == 1 and None not in held:
            for cell in wanted:
                del cells[cell]
        else:
            n_misfits += 1
    return cells, n_misfits


def check_holds(ranges: tuple[np.ndarray, ...], cells: dict[int, int]) -> None:
    starts, ends, keys = ranges
    assert {c: int(k) for s, e, k in zip(starts, ends, keys, strict=True) for c in range(s, e)} == cells
    assert np.all(ends[:-1] <= starts[1:])
    touching = ends[:-1] == starts[1:]
    assert not np.any(touching & (keys[:-1] == keys[1:]))


@examples(100)
@given(operations)
def test_ranges_hold_exactly_the_cells_put_in_and_merge_only_equal_keys(operations: list) -> None:
    for n in range(1, len(operations) + 1):
        check_holds(core.ranges_after(NOTHING, *columns_of(operations[:n])), cells_after(operations[:n])[0])


@examples(100)
@given(operations)
def test_undoing_takes_from_the_last_event_on_and_counts_what_it_cannot_undo(operations: list) -> None:
    ranges, n_misfits, first_misfit = core.ranges_before(NOTHING, *columns_of(operations))
    undone = [(not maps, *others) for maps, *others in reversed(operations)]
    cells, n_expected = cells_after(undone)
    check_holds(ranges, cells)
    assert n_misfits == n_expected
    if n_misfits:
        # Up to the one after it, all but this one.
        later = undone[: len(operations) - 1 - first_misfit]
        assert cells_after([*later, undone[len(later)]])[1] == cells_after(later)[1] + 1
        assert cells_after(undone)[1] == cells_after([*later, undone[len(later)]])[1]
    else:
        assert first_misfit == -1


def test_many_ranges_come_and_go_as_in_a_dictionary() -> None:
    rng = random.Random(3)
    slots = list(range(2000))
    rng.shuffle(slots)
    operations = [(True, 10 * slot, 5, slot % 3) for slot in slots]
    held = {10 * slot: 10 * slot + 5 for slot in slots}
    rng.shuffle(slots)
    for step, start in enumerate(10 * slot for slot in slots):
        if step % 3 == 0:
            operations.append((False, start, 5, 0))
            del held[start]
        elif step % 3 == 1:
            operations.append((False, start, 2, 0))
            held[start + 2] = held.pop(start)
    starts, ends, keys = core.ranges_after(NOTHING, *columns_of(operations))
    assert dict(zip(starts.tolist(), ends.tolist(), strict=True)) == held
    assert np.all(np.diff(starts) > 0)
    assert keys.tolist() == [start // 10 % 3 for start in starts.tolist()]
    for start, end in held.items():
        operations.append((False, start, end - start, 0))
    assert [len(column) for column in core.ranges_after(NOTHING, *columns_of(operations))] == [0, 0, 0]


def test_ends_that_no_address_can_have_fit_nowhere() -> None:
    events = columns_of([(True, (1 << 63) - 10, 100, 0), (True, 5, 0, 0), (True, 5, -3, 0), (False, 5, 1, 0)])
    assert [len(column) for column in core.ranges_after(NOTHING, *events)] == [0, 0, 0]


def test_columns_of_different_lengths_are_refused() -> None:
    action, address, size_bytes, key = columns_of([(True, 5, 1, 0), (True, 8, 1, 0)])
    with pytest.raises(IndexError, match="index 1 of an array of 1"):
        core.ranges_after(NOTHING, action, address[:1], size_bytes, key)
    with pytest.raises(IndexError, match="index 1 of an array of 1"):
        core.pair_events(action * 0, address, size_bytes[:1], allocs_recorded=True, completions_recorded=True)
