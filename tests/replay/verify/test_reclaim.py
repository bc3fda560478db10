"""Runs of memory that went back, read as the stages of a reclaim."""

from memscope.replay.verify._pinned import follow
from memscope.replay.verify._reclaim import POOL_RELEASES, Reading, RunReader, UnusedMemory
from memscope.replay.verify._state import Request
from memscope.trace.schema import Action
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder
from tests.replay.verify.exactness import assert_exact, state_before


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


def after_freeing(*sizes, **settings):
    """The state once blocks of some sizes, each a segment of its own, are free."""
    recorder = NaiveRecorder(**settings)
    for address in [recorder.malloc(size) for size in sizes]:
        recorder.naive.free(address)
    state = state_before(recorder.trace())
    assert follow(state) is None
    return state


def reader_of(state, releases):
    return RunReader(state, tuple(release.key for release in releases), UnusedMemory(state))


def test_pool_gives_back_its_large_segments_first_and_the_smaller_before_the_larger():
    state = after_freeing(1000, 30 * MiB, 24 * MiB)
    unused = UnusedMemory(state).of_pool(0)
    assert [release.size_bytes for release in unused] == [24 * MiB, 30 * MiB, 2 * MiB]
    assert UnusedMemory(state).of_pool(0, {unused[0].block}) == unused[1:]
    reading = reader_of(state, unused).read_for_nothing()
    assert reading is not None
    assert list(reading.releases) == unused


def test_run_in_another_order_is_refused_with_what_the_rules_expect():
    state = after_freeing(1000, 30 * MiB, 24 * MiB)
    first, second, third = UnusedMemory(state).of_pool(0)
    reader = reader_of(state, [first, third, second])
    assert reader.read_for_nothing() is None
    assert reader.refusal.n_read == 1
    trace = state.recording.trace
    assert reader.refusal.describe(trace) == second.describe(trace)


def test_stage_that_leads_nowhere_is_taken_back_and_the_next_one_tried():
    state = after_freeing(40 * MiB, 70 * MiB, max_split=24 * MiB)
    request = Request(state.position, state.request_at(1).pool, 60 * MiB)
    smaller, larger = UnusedMemory(state).of_pool(0)
    # One block that is enough goes by itself; then everything, if the driver still has too little.
    for run in ([larger], [larger, smaller], [smaller, larger]):
        reading = reader_of(state, run).read_for(request)
        assert reading is not None
        assert list(reading.releases) == run
    assert reader_of(state, [smaller]).read_for(request) is None


def test_reading_is_extended_without_being_changed():
    state = after_freeing(30 * MiB)
    start = Reading()
    further = start.then(UnusedMemory(state).of_pool(0), POOL_RELEASES)
    assert (len(start), start.inferred) == (0, ())
    assert (len(further), further.inferred) == (1, (POOL_RELEASES,))
    assert further.blocks == {further.releases[0].block}
