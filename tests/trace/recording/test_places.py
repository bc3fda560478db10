"""Places by counts and by address, against a walk over the events."""

from __future__ import annotations

import random

import numpy as np
import pytest

from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording._places import DevicePlaces
from memscope.trace.recording.notes import COUNTED
from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from tests.trace.recording.small_traces import A, B, trace_of


def random_trace(rng: random.Random) -> Trace:
    """Allocs and frees at three addresses of two devices, with segment events among them."""
    builder = TraceBuilder()
    for device in sorted(rng.randrange(2) for _ in range(rng.randrange(40))):
        action = rng.choice([Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED, Action.SEGMENT_ALLOC])
        builder.add_event(action, device=device, address=rng.choice([512, 1024, 4096]), size_bytes=512)
    return builder.build(TraceMetadata(source="cuda"))


@pytest.mark.parametrize("seed", range(30))
def test_each_place_is_where_a_walk_over_the_events_finds_it(seed: int) -> None:
    rng = random.Random(seed)
    trace = random_trace(rng)
    for device in trace.devices:
        first_call = rng.randrange(3)
        places = DevicePlaces(trace, device, first_call)
        events = [event for event in range(len(trace)) if trace.device[event] == device]
        after = {first_call: events[0]}
        for event in events:
            if trace.action[event] in COUNTED:
                after[first_call + len(after)] = event + 1
        counts = np.arange(60)
        assert places.events_after(counts).tolist() == [after.get(n, -1) for n in counts.tolist()]
        for address in (512, 1024, 4096, 8192):
            at = [event for event in events if trace.address[event] == address]
            allocs = [event for event in at if trace.action[event] == Action.ALLOC]
            frees = [event for event in at if trace.action[event] == Action.FREE_REQUESTED]
            for event in range(len(trace)):
                where = np.array([address]), np.array([event])
                assert places.alloc_before(*where).tolist() == [max((e for e in allocs if e < event), default=-1)]
                if event in allocs:
                    assert places.free_after(*where).tolist() == [min((e for e in frees if e > event), default=-1)]


def test_calls_between_counts_are_cut_to_what_the_trace_has() -> None:
    trace = trace_of(("segment", A), ("alloc", A), ("free", A), ("segment", B), ("alloc", B))
    places = DevicePlaces(trace, 0, 10)  # the calls 11 to 14 are events 1, 2, 3, 5
    assert places.calls_between((11,), (13,)).tolist() == [2, 3]
    assert places.calls_between((0,), (11,)).tolist() == [1]
    assert places.calls_between((12,), None).tolist() == [3, 5]
    assert places.calls_between((12,), (99,)).tolist() == [3, 5]
    assert places.calls_between((0,), (9,)).tolist() == []
    assert places.calls_between((20,), None).tolist() == []


def test_a_device_found_after_a_note_was_made_is_not_counted_in_it() -> None:
    places = DevicePlaces(trace_of(("alloc", A)), 0, 0)
    assert places.is_counted_in((3,))
    assert not places.is_counted_in(())
