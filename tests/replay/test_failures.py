"""What a failed request's reclaim did."""

from __future__ import annotations

import numpy as np

from memscope._core import caching
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.failures import completed_before, own_segments, reclaimed_rows, unused_pools_at, was_delayed
from memscope.replay.requests import requests_of
from memscope.units import GiB, MiB
from tests.oom.planted import PRIVATE, Program, plant


def lifetimes_of(program: Program) -> DeviceLifetimes:
    return DeviceLifetimes(program.trace(), 0)


def test_frees_that_waited_for_another_stream_wait_until_the_reclaim_of_the_request() -> None:
    lifetimes = lifetimes_of(plant("stream-delayed-frees", 0))
    event = lifetimes.fatal_oom_event
    assert event is not None
    rows = reclaimed_rows(lifetimes, event)
    assert len(rows)
    assert set(rows.tolist()) <= set(completed_before(lifetimes, event).tolist())
    op = requests_of(lifetimes).op
    assert (op[lifetimes.allocations.free_event[rows] - lifetimes.first_event] == caching.Op.NONE).all()
    assert op[event - lifetimes.first_event] == caching.Op.MALLOC


def test_a_free_that_nothing_delayed_was_there_when_the_allocator_looked() -> None:
    program = Program(GiB)
    kept, freed = program.malloc(600 * MiB), program.malloc(100 * MiB)
    program.free(freed)
    assert program.malloc(500 * MiB) is None
    assert kept is not None
    lifetimes = lifetimes_of(program)
    event = lifetimes.fatal_oom_event
    assert event is not None
    rows = completed_before(lifetimes, event)
    assert len(rows) == 1
    assert not was_delayed(lifetimes, rows).any()
    assert not len(reclaimed_rows(lifetimes, event))


def test_a_private_pool_that_kept_its_unused_memory_through_a_reclaim_was_in_use() -> None:
    lifetimes = lifetimes_of(plant("private-pool", 0))
    event = lifetimes.fatal_oom_event
    assert event is not None
    pools = unused_pools_at(lifetimes, event)
    assert [tuple(lifetimes.trace.pools[pool]) for pool in pools] == [PRIVATE]
    assert not np.isin(requests_of(lifetimes).dropped_pool, pools).any()
    state = lifetimes.state_at(event)
    own = own_segments(state, int(pools[0]), 0, is_large=True)
    assert own.any()
    assert (state.segments.pool_id[own] == pools[0]).all()


def test_a_request_that_failed_and_did_not_end_the_run_is_tried() -> None:
    program = Program(GiB)
    assert program.malloc(2 * GiB) is None
    program.malloc(100 * MiB)
    assert program.malloc(3 * GiB) is None
    lifetimes = lifetimes_of(program)
    requests = requests_of(lifetimes)
    first, second = (lifetimes.oom_events - lifetimes.first_event).tolist()
    assert (requests.op[first], requests.op[second]) == (caching.Op.TRY, caching.Op.MALLOC)
    assert requests.requested_bytes[requests.row[[first, second]]].tolist() == [2 * GiB, 3 * GiB]
    assert requests.fatal_event == lifetimes.oom_events[-1]
    assert not requests.is_modelled
