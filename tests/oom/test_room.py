"""Where memory was free when a request failed, and what of it the request could have had."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.lifetimes.device import DeviceLifetimes
from memscope.oom._request import failed_request
from memscope.oom.room import Room, fitting_free_bytes, room_at
from memscope.oom.verdict import OomClass
from memscope.replay.config import CachingAllocatorConfig
from memscope.units import MiB
from tests.oom.planted import OTHER_STREAM, Program, full, holes_between_pins


def test_free_memory_of_another_stream_is_fragmentation_too() -> None:
    program = Program(256 * MiB)
    program.free(program.malloc(200 * MiB, OTHER_STREAM))
    big = program.malloc(150 * MiB, OTHER_STREAM)
    program.malloc(40 * MiB, OTHER_STREAM)
    program.free(big)
    program.malloc(100 * MiB)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.EXTERNAL_FRAGMENTATION
    assert verdict.failure.free.largest_bytes == 0
    assert [group.why_not for group in verdict.failure.free.groups] == ["another stream"]


def room_of(program: Program) -> tuple[Room, DeviceLifetimes]:
    lifetimes = Analysis(program.trace()).device(0).lifetimes
    config = CachingAllocatorConfig.from_trace(lifetimes.trace, 0)
    return room_at(lifetimes, failed_request(lifetimes, int(lifetimes.oom_events[0]), config), config), lifetimes


def test_free_and_packed_bytes_are_those_of_the_state_at_the_failure() -> None:
    room, _ = room_of(holes_between_pins(Program(256 * MiB)))
    # Four segments of 64 MiB with 12, 12, 10 and 12 MiB live: 46 in use, 210 free; packed, 46 and the request of 60.
    assert (room.free_bytes, room.usable_free_bytes, room.largest_own_free_bytes) == (210 * MiB, 210 * MiB, 50 * MiB)
    assert (room.packed_bytes, room.releasable_bytes, room.fits_block) == (106 * MiB, 0, 0)


def test_a_free_that_waits_is_pending_and_packs_away_only_without_it() -> None:
    program = full()
    program.free(3, waits=True)
    program.fail(60 * MiB)
    room, lifetimes = room_of(program)
    assert room.pending_bytes == 100 * MiB == int(lifetimes.allocations.block_bytes[room.pending_rows].sum())
    assert (room.packed_bytes, room.packed_without_pending_bytes) == (1060 * MiB, 960 * MiB)


@pytest.mark.parametrize(
    ("conf", "fits"),
    [("", [False, True, True, True]), ("max_split_size_mb:200", [False, True, True, False])],
)
def test_a_block_above_the_split_limit_serves_no_request_below_it(conf: str, fits: list[bool]) -> None:
    sizes = np.array([50, 60, 100, 300]) * MiB
    assert fitting_free_bytes(sizes, 60 * MiB, CachingAllocatorConfig.parse(conf)).tolist() == fits
