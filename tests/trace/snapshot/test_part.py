"""Passing over a snapshot: its outline, and a part of its events with what is in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memscope.trace.schema import Action
from memscope.trace.snapshot.part import Wanted, read_outline, read_part
from tests.trace.snapshot.snapshots import BASE, FRAMES, MIB, changed, frames_of, small, write

NONE = np.empty(0, np.int64)
A, B = BASE, BASE + 4 * MIB


def wanted(begin: int, end: int) -> Wanted:
    """Events of ``small()``: its only segment, of key 0, is made by its first event."""
    return Wanted(begin, end, (NONE, NONE, NONE), np.zeros(1, np.int64), NONE, NONE, (0,) * 16, 64 * MIB, False)


def test_an_outline_has_the_events_of_segments_and_what_is_in_use_at_the_end(tmp_path: Path) -> None:
    outline = read_outline(write(tmp_path, small()))
    assert outline is not None
    assert (outline.n_events, outline.trace.action.tolist()) == ((5,), [Action.SEGMENT_ALLOC])
    assert outline.places[0].tolist() == [0]
    (in_use,) = outline.in_use
    assert (in_use.address.tolist(), in_use.requested_bytes.tolist()) == ([A], [4 * MIB - 100])
    assert outline.trace.stack(int(in_use.stack_id[0])) == frames_of(FRAMES)
    assert len(outline.trace.blocks) == 2


@pytest.mark.parametrize(
    ("begin", "end", "places", "in_use"),
    [
        (1, 2, [0, 1, 2], {A: (4 * MIB - 100, 4 * MIB, False)}),
        (2, 3, [1, 2, 3], {A: (4 * MIB - 100, 4 * MIB, False), B: (777, 1024, False)}),
        (3, 4, [2, 3, 4], {A: (4 * MIB - 100, 4 * MIB, False), B: (777, 1024, True)}),
        (4, 5, [3, 4], {A: (4 * MIB - 100, 4 * MIB, False)}),
    ],
)
def test_a_part_has_its_neighbours_and_what_is_in_use_after_it(
    tmp_path: Path, begin: int, end: int, places: list[int], in_use: dict[int, tuple[int, int, bool]]
) -> None:
    outline = read_outline(write(tmp_path, small()))
    assert outline is not None
    part = read_part(outline, {0: wanted(begin, end)})
    assert part is not None
    assert part.places[0].tolist() == places
    assert part.trace.n_events == len(places)
    (found,) = part.in_use
    rows = zip(found.address, found.requested_bytes, found.block_bytes, found.is_pending, strict=True)
    assert {int(at): (int(asked), int(given), bool(pending)) for at, asked, given, pending in rows} == in_use
    assert part.trace.metadata.torch_version == outline.trace.metadata.torch_version


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("device_traces", 0, 1, "action"), "alloc_by_magic"),
        (("device_traces", 0, 1, "addr"), -1),
        (("device_traces", 0, 1, "size"), 0),
        (("device_traces", 0, 2, "addr"), A),
        (("device_traces", 0, 3, "size"), 778),
        (("device_traces", 0, 3, "action"), "free_completed"),
        (("device_traces", 0, 1, "pool_id"), (0, 1)),
        (("device_traces", 0, 1), 7),
        (("device_traces", 0, 4, "time_us"), 99),
        (("segments",), ...),
    ],
)
def test_what_is_not_regular_has_no_outline(tmp_path: Path, path: tuple[object, ...], value: object) -> None:
    assert read_outline(write(tmp_path, changed(path, value))) is None


def test_what_does_not_fit_the_free_ranges_has_no_part(tmp_path: Path) -> None:
    outline = read_outline(write(tmp_path, changed(("device_traces", 0, 1, "addr"), A + MIB)))
    assert outline is not None
    assert read_part(outline, {0: wanted(2, 3)}) is None
