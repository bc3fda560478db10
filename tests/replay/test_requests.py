"""What a program asked for, as taken from a recording: found once, and told apart from the allocator's own doing."""

import dataclasses
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from memscope._core import caching
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.requests import requests_of
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action
from memscope.units import MiB
from tests.replay.recordings import Recorder

PRIVATE = (0, 1)
OTHER = (0, 2)


def lifetimes_of(events, *, has_pool_ids=True):
    """Events as (action, address in MiB, MiB, pool); all memory is given back at the end."""
    builder = TraceBuilder()
    builder.pool((0, 0))
    for action, address, size, pool in events:
        builder.add_event(action, address=address * MiB, size_bytes=size * MiB, pool=pool)
    return DeviceLifetimes(builder.build(TraceMetadata(source="synthetic", has_pool_ids=has_pool_ids)), 0)


def used_segment(address, size, pool=(0, 0)):
    """A segment made for an allocation that is freed again."""
    return [
        (Action.SEGMENT_ALLOC, address, size, pool),
        (Action.ALLOC, address, size, pool),
        (Action.FREE_REQUESTED, address, size, pool),
        (Action.FREE_COMPLETED, address, size, pool),
    ]


def given_back(address, size, pool=(0, 0)):
    return (Action.SEGMENT_FREE, address, size, pool)


def test_requests_are_found_once_and_kept_as_long_as_the_lifetimes():
    recorder = Recorder()
    recorder.workload(1, 50)
    lifetimes = DeviceLifetimes(recorder.trace(), 0)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(requests_of, [lifetimes] * 32))
    assert all(requests is found[0] for requests in found)
    assert requests_of(DeviceLifetimes(lifetimes.trace, 0)) is not found[0]
    kept = weakref.ref(lifetimes)
    del lifetimes, found
    gc.collect()
    assert kept() is None


def test_requests_cannot_be_changed():
    recorder = Recorder()
    recorder.workload(1, 50)
    requests = requests_of(DeviceLifetimes(recorder.trace(), 0))
    for field in dataclasses.fields(requests):
        column = getattr(requests, field.name)
        if isinstance(column, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                column[...] = 0


@pytest.mark.parametrize(
    ("pools", "op", "row"),
    [
        (((0, 0), (0, 0)), caching.Op.EMPTY_CACHE, NONE_ID),
        (((0, 0), PRIVATE), caching.Op.EMPTY_CACHE, NONE_ID),
        ((PRIVATE, OTHER), caching.Op.EMPTY_CACHE, NONE_ID),
        ((PRIVATE, PRIVATE), caching.Op.EMPTY_POOL, 1),
    ],
)
def test_run_of_segments_given_back_empties_the_cache_or_one_private_pool(pools, op, row):
    first, second = pools
    events = [
        *used_segment(0, 20, first),
        *used_segment(100, 20, second),
        given_back(0, 20, first),
        given_back(100, 20, second),
    ]
    requests = requests_of(lifetimes_of(events))
    assert requests.op[8:].tolist() == [op, caching.Op.NONE]
    assert requests.row[8:].tolist() == [row, NONE_ID]
    assert "repeated: 1 call of empty_cache; those that gave nothing back left no trace" in requests.notes


def test_unknown_pool_of_a_segment_given_back_empties_the_whole_cache():
    events = [*used_segment(0, 20), given_back(0, 20)]
    requests = requests_of(lifetimes_of(events, has_pool_ids=False))
    assert requests.op[-1] == caching.Op.EMPTY_CACHE


def test_reclaim_before_a_new_segment_is_the_allocators_only_where_the_driver_may_have_refused():
    # At the highest 100 MiB are reserved. Before the first reclaim 60, and 20 more are wanted: the driver refused
    # nothing, and the program emptied the cache. Before the second 100, and 40 more are wanted.
    events = [
        *used_segment(0, 20),
        *used_segment(100, 40),
        given_back(0, 20),
        given_back(100, 40),
        *used_segment(200, 20),
        *used_segment(300, 80),
        given_back(200, 20),
        *used_segment(400, 40),
        given_back(300, 80),
        given_back(400, 40),
    ]
    requests = requests_of(lifetimes_of(events))
    given = [i for i, event in enumerate(events) if event[0] == Action.SEGMENT_FREE]
    assert [int(requests.op[i]) for i in given] == [
        caching.Op.EMPTY_CACHE if i in (8, 23) else caching.Op.NONE for i in given
    ]


def test_private_pool_is_dropped_at_its_last_allocation():
    events = [*used_segment(0, 20, PRIVATE), *used_segment(100, 20, OTHER), *used_segment(200, 20, PRIVATE)]
    requests = requests_of(lifetimes_of(events))
    assert requests.dropped_pool.tolist() == [-1, -1, -1, -1, -1, 2, -1, -1, -1, 1, -1, -1]
