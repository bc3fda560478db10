"""The block of each allocation: the request rounded, or more where the rest was too small to split off."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.lifetimes._pairing import pair_rows
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.placing import Placement, place_rows
from memscope.lifetimes.segments import segment_timeline
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.trace import Trace
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder
from tests.replay.verify.exactness import assert_exact
from tests.trace.snapshot.snapshots import BASE, block, event, segment, write


def placement_of(trace: Trace) -> Placement:
    return place_rows(trace, pair_rows(trace, 0), segment_timeline(trace, 0))


@pytest.mark.parametrize(
    ("requested", "block"),
    [
        (1000, 1024),
        # 20 MiB segments: the rest of 1 MiB is not split off, the one of 1.5 MiB is.
        (19 * MiB, 20 * MiB),
        (18 * MiB + MiB // 2, 18 * MiB + MiB // 2),
    ],
)
def test_block_is_the_rounded_request_or_reaches_to_what_was_not_split_off(requested: int, block: int) -> None:
    recorder = NaiveRecorder()
    if requested > MiB:
        recorder.naive.free(recorder.malloc(9 * MiB))
    recorder.malloc(requested)
    placement = placement_of(recorder.trace())
    assert placement.n_misplaced == 0
    assert placement.allocations.block_bytes[-1] == block
    assert placement.allocations.is_exact[-1]


def test_block_from_before_the_recording_is_known_from_below_where_its_neighbour_was_free() -> None:
    recorder = NaiveRecorder()
    held, beside = recorder.malloc(5 * MiB), recorder.malloc(4 * MiB)
    recorder.naive.free(beside)
    recorder.start_recording()
    recorder.naive.free(held)
    table = placement_of(recorder.trace()).allocations
    assert table.block_bytes.tolist() == [5 * MiB]
    assert table.is_exact.tolist() == [False]


def test_segment_at_the_place_of_a_later_whole_pool_is_split_as_its_own_pool_does() -> None:
    recorder = NaiveRecorder(has_pool_ids=False, whole_pools=(1,))
    place = recorder.naive.next_address
    for address in [recorder.malloc(4 * MiB), recorder.malloc(5 * MiB)]:
        recorder.naive.free(address)
    recorder.naive.empty_cache()
    recorder.naive.next_address = place
    assert recorder.malloc(3 * MiB, pool=1) == place
    trace = recorder.trace()
    placement = placement_of(trace)
    assert placement.n_misplaced == 0
    assert placement.allocations.block_bytes.tolist() == [4 * MiB, 5 * MiB, 20 * MiB]
    assert_exact(trace)


TWO_FREES = [event("free_requested", BASE, 4 * MiB, 1), event("free_completed", BASE, 4 * MiB, 2)]


@pytest.mark.parametrize(
    ("address", "size", "why"),
    [
        (BASE + 4 * MiB, 400 * MiB, "lies in no segment of then"),
        (BASE + (1 << 40), 4 * MiB, "lies in no segment of then"),
        (BASE - 4 * MiB, 4 * MiB, "lies in no segment of then"),
        (BASE + 2 * MiB, 4 * MiB, "overlaps another such allocation"),
    ],
)
def test_what_is_freed_in_a_place_where_nothing_can_have_been_is_a_contradiction(
    tmp_path: Path, address: int, size: int, why: str
) -> None:
    for actions in (("free_requested", "free_completed"), ("free_completed",)):
        frees = [event(action, address, size, 3) for action in actions]
        snapshot = {"segments": [segment(BASE, [block(BASE, 20 * MiB)])], "device_traces": [[*TWO_FREES, *frees]]}
        problems = DeviceLifetimes(read_snapshot(write(tmp_path, snapshot)), 0).problems
        assert [why in str(problem) for problem in problems] == [True]


def test_what_is_freed_inside_a_segment_of_before_is_none(tmp_path: Path) -> None:
    frees = [event("free_completed", BASE + 4 * MiB, 16 * MiB, 3)]
    snapshot = {"segments": [segment(BASE, [block(BASE, 20 * MiB)])], "device_traces": [[*TWO_FREES, *frees]]}
    assert DeviceLifetimes(read_snapshot(write(tmp_path, snapshot)), 0).problems == ()
