"""Verification: exact on what the allocator did, divergent on anything else, and frank about what it cannot see."""

import dataclasses

import pytest

from memscope.replay.verify._pinned import DEFERRALS
from memscope.replay.verify._reclaim import CACHES_EMPTIED, COLLECTIONS, RECLAIMS
from memscope.replay.verify.verify import verify
from memscope.trace.builder import TraceBuilder
from memscope.trace.schema import Action, BlockState, TieRule
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder
from tests.replay.recordings import Recorder
from tests.replay.verify.exactness import assert_exact

CONFS = (
    "",
    "max_split_size_mb:32",
    "max_split_size_mb:32,max_non_split_rounding_mb:40",
    "roundup_power2_divisions:4",
    "garbage_collection_threshold:0.5,per_process_memory_fraction:0.8",
    "max_split_size_mb:24,garbage_collection_threshold:0.4,per_process_memory_fraction:0.6",
    "large_segment_size_mb:64",
    "expandable_segments:True",
    "expandable_segments:True,roundup_power2_divisions:[4:2,16:4,>:8]",
    "expandable_segments:True,garbage_collection_threshold:0.5,per_process_memory_fraction:0.7",
)


@pytest.mark.parametrize("tie_rule", list(TieRule))
@pytest.mark.parametrize("conf", CONFS)
def test_recording_of_any_settings_is_exact(conf, tie_rule):
    recorder = Recorder(conf, total=600 * MiB, tie_rule=tie_rule)
    recorder.workload(1, 1500, streams=(0, 0, 7), p_wait=0.1)
    trace = recorder.trace()
    result = verify(trace)
    assert result.first_divergence is None
    assert result.exact
    assert result.n_events_compared == len(trace)
    device = result.devices[0]
    assert device.replayed_reserved_bytes == device.recorded_reserved_bytes
    assert device.replayed_peak_reserved_bytes == device.recorded_peak_reserved_bytes
    assert device.inferred[RECLAIMS] > 0
    assert device.inferred[DEFERRALS] > 0


def test_what_the_recording_does_not_say_is_counted():
    recorder = Recorder("garbage_collection_threshold:0.3,per_process_memory_fraction:0.8", total=600 * MiB)
    recorder.workload(3, 600, p_empty=0.02)
    inferred = verify(recorder.trace()).devices[0].inferred
    assert inferred[COLLECTIONS] > 0
    assert inferred[CACHES_EMPTIED] > 0
    assert DEFERRALS not in inferred


@pytest.mark.parametrize("conf", ["", "expandable_segments:True"])
@pytest.mark.parametrize("tie_rule", list(TieRule))
def test_recording_that_starts_mid_life_is_exact(conf, tie_rule):
    recorder = Recorder(conf, tie_rule=tie_rule)
    recorder.workload(5, 800)
    recorder.start_recording()
    recorder.workload(6, 800)
    result = verify(recorder.trace())
    assert result.first_divergence is None
    assert result.exact


def test_private_pools_are_followed_where_events_name_them():
    recorder = Recorder()
    recorder.allocator.malloc(1, pool=(0, 1))
    recorder.workload(7, 1500, pools=((0, 0), (0, 0), (0, 1)))
    recorder.allocator.release_pool((0, 1))
    recorder.allocator.empty_cache()
    assert verify(recorder.trace()).exact


def test_wrong_tie_rule_is_found_out():
    recorder = Recorder(tie_rule=TieRule.BLOCK_AGE)
    recorder.workload(9, 3000)
    trace = recorder.trace()
    lying = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, tie_rule=TieRule.ADDRESS))
    assert verify(trace).exact
    divergence = verify(lying).first_divergence
    assert divergence is not None
    assert "another free block" in divergence.reason
    assert trace.action[divergence.event] == Action.ALLOC


def test_wrong_settings_are_found_out():
    recorder = Recorder("max_split_size_mb:32")
    recorder.workload(10, 1000)
    trace = recorder.trace()
    lying = dataclasses.replace(
        trace, metadata=dataclasses.replace(trace.metadata, alloc_conf="", allocator_settings={})
    )
    divergence = verify(lying).first_divergence
    assert divergence is not None
    assert divergence.event >= 0


def shift_second_alloc(events):
    """As if the second of two allocations had gone 512 bytes further on."""
    [event for event in events if event[0] == Action.ALLOC][1][1] += 512


def swap_first_two_segment_frees(events):
    positions = [i for i, event in enumerate(events) if event[0] == Action.SEGMENT_FREE][:2]
    events[positions[0]], events[positions[1]] = events[positions[1]], events[positions[0]]


def drop_last_segment_free(events):
    del events[max(i for i, event in enumerate(events) if event[0] == Action.SEGMENT_FREE)]


def grow_first_segment(events):
    next(event for event in events if event[0] == Action.SEGMENT_ALLOC)[2] += 2 * MiB


def move_a_free_to_another_stream(events):
    next(event for event in events if event[0] == Action.FREE_COMPLETED)[3] = 7


def move_a_segment_to_another_stream(events):
    next(event for event in events if event[0] == Action.SEGMENT_ALLOC)[3] = 7


def move_a_segment_free_to_another_stream(events):
    next(event for event in events if event[0] == Action.SEGMENT_FREE)[3] = 7


@pytest.mark.parametrize(
    "change",
    [
        move_a_free_to_another_stream,
        move_a_segment_to_another_stream,
        move_a_segment_free_to_another_stream,
        shift_second_alloc,
        swap_first_two_segment_frees,
        drop_last_segment_free,
        grow_first_segment,
    ],
)
def test_altered_recording_is_not_exact(change):
    recorder = Recorder()
    addresses = [recorder.allocator.malloc(n) for n in (1000, 2000, 3 * MiB, 30 * MiB, 31 * MiB)]
    for address in addresses[2:]:
        recorder.allocator.free(address)
    recorder.allocator.empty_cache()
    result = verify(recorder.trace(change))
    assert not result.exact
    assert result.first_divergence is not None or result.devices[0].not_comparable is not None


def test_first_divergence_says_where_and_what():
    recorder = Recorder()
    for n in (1000, 2000):
        recorder.allocator.malloc(n)
    live = recorder.allocator.malloc(3000)
    recorder.allocator.malloc(4000)
    recorder.allocator.free(live)
    # 3,000 bytes fit the hole of 3,072 exactly; the altered recording takes them from the rest at the end instead.
    recorder.allocator.malloc(3000)

    def take_the_rest(events):
        events[-1][1] += 3072 + 4096

    result = verify(recorder.trace(take_the_rest))
    device = result.devices[0]
    assert not result.exact
    text = str(device.first_divergence or device.not_comparable)
    assert "contradicts" in text or "another free block" in text


def test_oom_that_the_rules_would_have_served_diverges():
    recorder = Recorder(total=60 * MiB)
    recorder.allocator.free(recorder.allocator.malloc(30 * MiB))

    def add_an_oom(events):
        events.append([Action.OOM, -1, 20 * MiB, 0, (0, 0)])

    divergence = verify(recorder.trace(add_an_oom)).first_divergence
    assert divergence is not None
    assert "fits" in divergence.reason


def test_trace_without_events_is_not_called_exact():
    recorder = Recorder()
    recorder.allocator.malloc(1000)
    recorder.start_recording()
    result = verify(recorder.trace())
    assert not result.exact
    assert "nothing to replay" in result.devices[0].not_comparable
    assert result.n_events_compared == 0


def test_other_backend_is_not_comparable():
    recorder = Recorder()
    recorder.allocator.malloc(1000)
    recorder.conf = "backend:cudaMallocAsync"
    device = verify(recorder.trace()).devices[0]
    assert not device.exact
    assert "cudaMallocAsync" in device.not_comparable


def test_blocks_may_be_larger_than_a_request_by_one_large_segment():
    recorder = NaiveRecorder(
        "max_split_size_mb:40,large_segment_size_mb:12",
        max_split=40 * MiB,
        large_segment=12 * MiB,
        non_split_rounding=12 * MiB,
    )
    recorder.naive.free(recorder.malloc(74 * MiB))
    recorder.malloc(58 * MiB)
    trace = recorder.trace()
    assert list(trace.action).count(Action.SEGMENT_ALLOC) == 2
    assert_exact(trace)


def test_device_without_events_does_not_keep_another_from_being_exact():
    builder = TraceBuilder()
    builder.add_event(Action.SEGMENT_ALLOC, address=4 * MiB, size_bytes=2 * MiB)
    builder.add_event(Action.ALLOC, address=4 * MiB, size_bytes=MiB)
    for device, address in ((0, 4 * MiB), (1, 90 * MiB)):
        segment = builder.add_segment(device=device, address=address, size_bytes=2 * MiB, is_large=False)
        builder.add_block(
            segment, address=address, size_bytes=MiB, requested_bytes=MiB, state=BlockState.ACTIVE_ALLOCATED
        )
        builder.add_block(segment, address=address + MiB, size_bytes=MiB, requested_bytes=0, state=BlockState.INACTIVE)
    result = verify(builder.build(NaiveRecorder().metadata()))
    assert [device.exact for device in result.devices] == [True, False]
    assert result.exact


@pytest.mark.parametrize("action", [Action.SNAPSHOT, Action.SEGMENT_ALLOC])
def test_a_device_that_was_never_used_does_not_keep_another_from_being_exact(action):
    builder = TraceBuilder()
    builder.add_event(Action.SEGMENT_ALLOC, address=4 * MiB, size_bytes=2 * MiB)
    builder.add_event(Action.ALLOC, address=4 * MiB, size_bytes=MiB)
    builder.add_event(action, address=90 * MiB, size_bytes=2 * MiB, device=1)
    segment = builder.add_segment(address=4 * MiB, size_bytes=2 * MiB, is_large=False)
    builder.add_block(segment, address=4 * MiB, size_bytes=MiB, requested_bytes=MiB, state=BlockState.ACTIVE_ALLOCATED)
    builder.add_block(segment, address=5 * MiB, size_bytes=MiB, requested_bytes=0, state=BlockState.INACTIVE)
    result = verify(builder.build(NaiveRecorder().metadata()))
    assert result.devices[1].n_events == 1
    assert "nothing to replay" in result.devices[1].not_comparable
    assert result.exact
