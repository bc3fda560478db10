"""Verification where reclaims, pools and reservations meet: recordings of the naive allocator must be exact."""

import pytest

from memscope.lifetimes.completeness import measure_completeness
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.never_split import pools_that_never_split
from memscope.lifetimes.placing import rules_of
from memscope.replay.verify.choice import LATE_FREES
from memscope.replay.verify.growth import EXTENTS, SLACK
from memscope.replay.verify.reclaim import POOL_RELEASES
from memscope.replay.verify.verify import verify
from memscope.trace.builder import TraceBuilder
from memscope.trace.schema import Action, BlockState, TieRule
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder

SETTINGS = (
    ("", {}),
    ("", {"max_split": 32 * MiB, "gc": 0.6, "fraction": 0.8}),
    ("large_segment_size_mb:64", {"large_segment": 64 * MiB, "non_split_rounding": 64 * MiB, "max_split": 80 * MiB}),
    ("expandable_segments:True", {"expandable": True}),
    ("expandable_segments:True", {"expandable": True, "max_split": 24 * MiB, "gc": 0.5, "fraction": 0.7}),
    ("expandable_segments:True,large_segment_size_mb:12", {"expandable": True, "large_segment": 12 * MiB}),
)


def assert_exact(trace):
    result = verify(trace)
    assert result.first_divergence is None, str(result.first_divergence)
    assert result.exact
    assert measure_completeness(trace, [DeviceLifetimes(trace, 0)]).contradictions == ()
    return result.devices[0].inferred


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tie_rule", list(TieRule))
@pytest.mark.parametrize(("conf", "settings"), SETTINGS)
def test_recording_with_memory_anywhere_is_exact(conf, settings, tie_rule, seed):
    recorder = NaiveRecorder(conf, seed=seed, tie_rule=tie_rule, total=500 * MiB, **settings)
    recorder.workload(seed, 500, streams=(0, 5), pools=(0, 0, 1), p_wait=0.2, p_empty=0.01)
    if seed % 2:
        recorder.start_recording()
        recorder.workload(seed + 100, 300, streams=(0, 5), pools=(0, 0, 1), p_wait=0.2, p_empty=0.01)
    assert_exact(recorder.trace())


def test_growth_that_needs_no_map_is_followed():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, max_split=32 * MiB)
    recorder.naive.free(recorder.malloc(120 * MiB))
    # The free block is too large for the request by the split limit, so the request grows: into that very block.
    recorder.malloc(80 * MiB)
    trace = recorder.trace()
    assert list(trace.action).count(Action.SEGMENT_MAP) == 1
    assert_exact(trace)


def test_reclaim_in_two_parts_around_the_frees_that_it_waited_for_is_one_reclaim():
    recorder = NaiveRecorder(max_split=32 * MiB, total=200 * MiB)
    recorder.malloc(60 * MiB)
    large, pending, small = recorder.malloc(50 * MiB), recorder.malloc(40 * MiB), recorder.malloc(24 * MiB)
    recorder.naive.free(small)
    recorder.naive.free(large)
    recorder.naive.free(pending, waits=True)
    recorder.malloc(110 * MiB)
    trace = recorder.trace()
    # The large block goes first, by itself, then the wait, then everything.
    actions = [Action(action).name for action in trace.action[-6:]]
    assert actions == ["SEGMENT_FREE", "FREE_COMPLETED", "SEGMENT_FREE", "SEGMENT_FREE", "SEGMENT_ALLOC", "ALLOC"]
    assert_exact(trace)


def test_block_that_a_reclaim_waited_for_comes_too_late_for_its_request():
    recorder = NaiveRecorder(total=60 * MiB)
    kept, late = recorder.malloc(18 * MiB), recorder.malloc(8 * MiB)
    beside = recorder.malloc(6 * MiB)
    recorder.naive.free(late, waits=True)
    assert recorder.malloc(7 * MiB) is not None
    assert recorder.malloc(14 * MiB) is None
    assert {kept, beside} <= {block.address for block in recorder.naive.all_blocks()}
    inferred = assert_exact(recorder.trace())
    assert inferred.get(LATE_FREES, 0) == 0

    recorder = NaiveRecorder(total=40 * MiB)
    late, _, other = recorder.malloc(8 * MiB), recorder.malloc(6 * MiB), recorder.malloc(18 * MiB)
    recorder.naive.free(late, waits=True)
    assert recorder.malloc(7 * MiB) is None
    assert other is not None
    inferred = assert_exact(recorder.trace())
    assert inferred[LATE_FREES] == 1


def test_pool_given_back_just_before_a_reclaim_is_told_apart():
    recorder = NaiveRecorder(max_split=24 * MiB, total=200 * MiB)
    recorder.naive.free(recorder.malloc(30 * MiB, pool=1))
    for address in [recorder.malloc(n * MiB) for n in (40, 70)]:
        recorder.naive.free(address)
    recorder.malloc(20 * MiB)
    for block in [b for b in recorder.naive.all_blocks() if b.owner.pool == 1]:
        recorder.naive.give_back(block)
    recorder.malloc(85 * MiB)
    inferred = assert_exact(recorder.trace())
    assert inferred[POOL_RELEASES] >= 1


def test_unmapped_memory_is_small_or_large_as_what_lay_in_it():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=900 * MiB, seed=3)
    small, large = recorder.malloc(1000, stream=5), recorder.malloc(2 * MiB, stream=5)
    recorder.start_recording()
    recorder.naive.free(large)
    recorder.naive.free(small)
    # All 20 MiB of the large reservation go back, as ten handles of a small one might.
    recorder.naive.empty_cache()
    trace = recorder.trace()
    timeline = DeviceLifetimes(trace, 0).timeline
    assert sorted(zip(timeline.size_bytes.tolist(), timeline.key_is_large[timeline.key].tolist(), strict=True)) == [
        (2 * MiB, False),
        (20 * MiB, True),
    ]
    assert_exact(trace)


def test_unmap_belongs_to_the_reservation_that_was_there_at_the_time():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=900 * MiB)
    place = recorder.naive.next_address
    recorder.naive.free(recorder.malloc(1000, stream=5))
    recorder.naive.empty_cache()
    recorder.naive.next_address = place
    recorder.naive.free(recorder.malloc(9 * MiB, stream=7))
    recorder.naive.empty_cache()
    recorder.naive.next_address = place
    recorder.malloc(500, stream=5)
    trace = recorder.trace()
    timeline = DeviceLifetimes(trace, 0).timeline
    assert timeline.n_misfits == 0
    assert timeline.key_is_large[timeline.key].tolist() == [False, False, True, True, False]
    assert_exact(trace)


@pytest.mark.parametrize("settings", [{}, {"expandable": True}])
@pytest.mark.parametrize("seed", range(4))
def test_pool_that_never_splits_is_known_by_its_requests(settings, seed):
    conf = "expandable_segments:True" if settings else ""
    recorder = NaiveRecorder(conf, total=4000 * MiB, whole_pools=(2,), **settings)
    recorder.workload(seed, 300, pools=(0, 1, 2), p_empty=0)
    for block in [b for b in recorder.naive.all_blocks() if b.state == "allocated"]:
        recorder.naive.free(block.address)
    recorder.naive.empty_cache()
    trace = recorder.trace()
    assert len(trace.segments) == 0
    never_split = pools_that_never_split(trace, rules_of(trace.metadata))
    assert [trace.pools[pool].tolist() for pool in never_split] == [[0, 2]]
    assert_exact(trace)


def test_rest_taken_at_a_handle_s_edge_proves_that_a_pool_splits():
    recorder = NaiveRecorder(total=4000 * MiB)
    recorder.malloc(10 * MiB - 512, pool=1)
    recorder.naive.free(recorder.malloc(10 * MiB - 512, pool=1))
    recorder.malloc(4 * MiB, pool=3)
    recorder.malloc(8 * MiB, pool=3)
    recorder.malloc(9 * MiB, pool=3)
    trace = recorder.trace()
    assert pools_that_never_split(trace, rules_of(trace.metadata)) == []
    assert_exact(trace)


def test_large_block_from_before_the_recording_is_not_split():
    recorder = NaiveRecorder(max_split=20 * MiB)
    recorder.naive.free(recorder.malloc(30 * MiB))
    held = recorder.malloc(22 * MiB)
    recorder.start_recording()
    # The 8 MiB behind the 22 are part of the block: what is asked for does not fit anywhere.
    recorder.malloc(3 * MiB)
    recorder.naive.free(held)
    recorder.malloc(3 * MiB)
    assert_exact(recorder.trace())


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


def test_reservation_made_by_a_request_that_failed_is_used_later():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=200 * MiB)
    recorder.naive.next_address = 0x7F4000000000
    recorder.malloc(60 * MiB)
    recorder.naive.next_address = 0x7F2000000000
    assert recorder.malloc(190 * MiB) is None
    address = recorder.malloc(30 * MiB)
    assert address == 0x7F2000000000
    assert_exact(recorder.trace())


def test_choice_between_free_blocks_tells_where_a_reservation_ends():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=240 * MiB)
    hole, _, tail = recorder.malloc(120 * MiB), recorder.malloc(20 * MiB), recorder.malloc(80 * MiB)
    recorder.naive.free(hole)
    recorder.naive.free(tail)
    # 60 MiB of addresses are left behind the tail: with them it would be the larger one.
    assert recorder.malloc(30 * MiB) == hole
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=200 * MiB)
    hole, _, tail = recorder.malloc(120 * MiB), recorder.malloc(20 * MiB), recorder.malloc(60 * MiB)
    recorder.naive.free(hole)
    recorder.naive.free(tail)
    assert recorder.malloc(30 * MiB) == tail
    inferred = assert_exact(recorder.trace())
    assert inferred[EXTENTS] >= 1


def test_decisions_tell_how_far_a_block_from_before_the_recording_reaches():
    recorder = NaiveRecorder()
    held, beside = recorder.malloc(5 * MiB), recorder.malloc(4 * MiB)
    rest = recorder.malloc(11 * MiB)
    recorder.naive.free(held)
    # The block of 5 MiB is taken whole by a request of 4.5, and what follows it is freed.
    held = recorder.malloc(4 * MiB + MiB // 2)
    recorder.naive.free(rest)
    recorder.naive.free(beside)
    recorder.start_recording()
    recorder.malloc(15 * MiB + MiB // 4)
    recorder.naive.free(held)
    recorder.malloc(18 * MiB)
    inferred = assert_exact(recorder.trace())
    assert inferred[SLACK] == 1


@pytest.mark.parametrize(("more", "is_exact"), [(MiB // 2, True), (2 * MiB, False), (-512, False)])
def test_active_bytes_may_be_more_by_what_old_blocks_can_hold(more, is_exact):
    recorder = NaiveRecorder()
    held, beside = recorder.malloc(5 * MiB), recorder.malloc(4 * MiB)
    recorder.naive.free(beside)
    recorder.start_recording()
    recorder.naive.events.append(("snapshot", 0, 5 * MiB + more, 0, 0))
    recorder.naive.free(held)
    result = verify(recorder.trace())
    assert result.exact == is_exact


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
