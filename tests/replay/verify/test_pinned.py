"""Following event by event: recordings of the naive allocator are exact, and anything else is found out."""

import pytest

from memscope._core import caching
from memscope.replay.caching._invariants import check_allocator
from memscope.replay.verify._pinned import DEFERRALS, follow
from memscope.trace.schema import Action, TieRule
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder
from tests.replay.recordings import Recorder
from tests.replay.verify.exactness import assert_exact, state_before

SETTINGS = (
    ("", {}),
    ("", {"max_split": 32 * MiB, "gc": 0.6, "fraction": 0.8}),
    ("large_segment_size_mb:64", {"large_segment": 64 * MiB, "non_split_rounding": 64 * MiB, "max_split": 80 * MiB}),
    ("expandable_segments:True", {"expandable": True}),
    ("expandable_segments:True", {"expandable": True, "max_split": 24 * MiB, "gc": 0.5, "fraction": 0.7}),
    ("expandable_segments:True,large_segment_size_mb:12", {"expandable": True, "large_segment": 12 * MiB}),
)


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


def test_state_after_the_last_event_is_the_allocator_s():
    recorder = NaiveRecorder(total=900 * MiB)
    recorder.workload(4, 200, p_wait=0.2)
    trace = recorder.trace()
    state = state_before(trace)
    assert follow(state) is None
    assert state.position == len(trace)
    assert state.inferred[DEFERRALS] > 0
    blocks = state.allocator.blocks()
    free = blocks.address[blocks.state == caching.BlockState.FREE]
    assert set(free.tolist()) == {block.address for block in recorder.naive.all_blocks() if block.state == "free"}
    check_allocator(state.allocator)


def segment_for_no_request(events):
    del events[-1]


def segment_that_is_not_used(events):
    events[-1][1] += 2 * MiB


def oom_with_memory_left(events):
    events.append([Action.OOM, -1, 40 * MiB, 0, (0, 0)])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (segment_for_no_request, "a segment was made for no request"),
        (segment_that_is_not_used, "the new segment was not used"),
        (oom_with_memory_left, "before all unused memory was given back"),
    ],
)
def test_what_the_allocator_never_does_is_named(change, reason):
    recorder = Recorder()
    recorder.allocator.free(recorder.allocator.malloc(30 * MiB))
    recorder.allocator.malloc(31 * MiB)
    divergence = follow(state_before(recorder.trace(change)))
    assert divergence is not None
    assert reason in divergence.reason
