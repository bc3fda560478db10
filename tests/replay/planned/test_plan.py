"""Static plans: sound, near the lower bound, optimal where that is easy, and told as any other replay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.device.limits import Limits
from memscope.errors import InvariantError, UsageError
from memscope.fragmentation.metrics import measure_fragmentation
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.planned import plan as plan_search
from memscope.replay.planned._checker import check_plan
from memscope.replay.planned.plan import find_plan, plan_allocations, plan_state, replay_planned
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState
from memscope.trace.snapshot.read import read_snapshot
from memscope.units import MiB
from tests.oracles import ORACLE, needs_shared
from tests.properties import examples
from tests.replay.recordings import Recorder

N_POSITIONS = 64


def planned(start, end, size):
    """A plan that the checker accepts; its space is between the lower bound and everything side by side."""
    start, end, size = np.array(start), np.array(end), np.array(size)
    plan = find_plan(start, end, size, int(end.max()) + 1)
    check_plan(start, end, size * 512, plan.offset * 512, plan.peak * 512)
    assert plan.peak == (plan.offset + size).max()
    assert plan.lower_bound == max(int(size[(start <= p) & (end > p)].sum()) for p in set(start.tolist()))
    assert plan.lower_bound <= plan.peak <= size.sum()
    return plan


@st.composite
def lifetimes_of(draw, sizes, max_rows=40):
    n = draw(st.integers(1, max_rows))
    start = [draw(st.integers(0, N_POSITIONS - 2)) for _ in range(n)]
    end = [draw(st.integers(s + 1, N_POSITIONS - 1)) for s in start]
    return start, end, [draw(sizes) for _ in range(n)]


@examples(150)
@given(lifetimes_of(st.one_of(st.integers(1, 8), st.integers(1, 1 << 20), st.integers(1, 1 << 45))))
def test_every_plan_is_sound_and_the_same_again(case):
    plan = planned(*case)
    again = planned(*case)
    assert again.offset.tolist() == plan.offset.tolist()
    assert again.method == plan.method


@examples(100)
@given(lifetimes_of(st.just(7)))
def test_one_size_needs_no_more_than_are_alive_at_once(case):
    plan = planned(*case)
    assert plan.peak == plan.lower_bound


@examples(100)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_last_in_first_out_needs_no_more_than_is_in_use(sizes, random):
    start, end, stack, clock = [], [0] * len(sizes), [], 0
    for i in range(len(sizes)):
        while stack and random.random() < 0.45:
            end[stack.pop()] = clock
            clock += 1
        start.append(clock)
        stack.append(i)
        clock += 1
    for i in stack:
        end[i] = clock
    plan = planned(start, end, sizes)
    assert plan.peak == plan.lower_bound


def test_knowing_the_future_beats_placing_in_time():
    # a=1 and b=1 come first; a ends and c=2 comes. In time: a b c, c does not fit a's place: 4. Best: b below, then a
    # and later c above it: 3.
    plan = planned([0, 0, 2], [2, 6, 6], [1, 1, 2])
    assert plan.peak == 3


@examples(60)
@given(lifetimes_of(st.integers(1, 1000)), st.integers(0, 400))
def test_any_bound_on_the_work_still_gives_a_sound_plan(case, work):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_search, "WORK_IN_ALL", work)
        patch.setattr(plan_search, "WORK_PER_ROW", 0)
        planned(*case)


def test_without_any_work_sizes_share_slots(monkeypatch):
    monkeypatch.setattr(plan_search, "WORK_IN_ALL", 0)
    monkeypatch.setattr(plan_search, "WORK_PER_ROW", 0)
    # Two of size 1, one after the other, and one of size 2 in between: 1 + 2 units.
    plan = planned([0, 2, 4], [2, 4, 6], [1, 2, 1])
    assert (plan.method, plan.peak, plan.lower_bound) == ("slots", 3, 2)


def test_too_many_to_order_are_split_into_the_largest_and_the_rest(monkeypatch):
    rng = np.random.default_rng(5)
    start = rng.integers(0, 4000, 3000)
    end = start + rng.integers(1, 600, 3000)
    size = np.where(rng.random(3000) < 0.2, rng.integers(500, 5000, 3000), rng.integers(1, 20, 3000))
    full = planned(start, end, size)
    monkeypatch.setattr(plan_search, "WORK_IN_ALL", 0)
    monkeypatch.setattr(plan_search, "WORK_PER_ROW", 900)
    split = planned(start, end, size)
    assert split.method == "size over a stack, the smallest in time"
    assert full.peak <= split.peak < 1.2 * split.lower_bound


@examples(80)
@given(lifetimes_of(st.integers(1, 50), max_rows=25), st.data())
def test_plan_with_one_place_moved_into_another_is_refused(case, data):
    start, end, size = (np.array(column) for column in case)
    pairs = [(i, j) for i in range(len(start)) for j in range(i) if start[i] < end[j] and start[j] < end[i]]
    plan = planned(start, end, size)
    if not pairs:
        return
    moved, target = data.draw(st.sampled_from(pairs))
    offset = plan.offset.copy()
    offset[moved] = offset[target] + data.draw(st.integers(0, int(size[target]) - 1))
    with pytest.raises(InvariantError, match="overlap"):
        check_plan(start, end, size * 512, offset * 512, 2 * int(size.sum()) * 512)


def recorded(*, seed=1, n_steps=800, late=0, **workload):
    recorder = Recorder()
    if late:
        recorder.workload(seed + 100, late, **workload)
        recorder.start_recording()
    recorder.workload(seed, n_steps, **workload)
    return DeviceLifetimes(recorder.trace(), 0)


def test_replay_reserves_the_plan_once_and_counts_what_is_in_use():
    lifetimes = recorded()
    plan = plan_allocations(lifetimes)
    result = replay_planned(lifetimes)
    table = lifetimes.allocations
    assert plan.size_bytes.tolist() == (-(-table.requested_bytes // 512) * 512).tolist()
    assert result.peak_reserved_bytes == plan.plan_bytes >= result.peak_active_bytes == plan.lower_bound_bytes
    assert set(result.usage.reserved_bytes.tolist()) == {plan.plan_bytes}
    assert result.usage.requested_bytes.tolist() == lifetimes.usage.requested_bytes.tolist()
    for event in (-1, 0, 100, lifetimes.last_event):
        in_use = table.active_at(event)
        assert result.usage.active_bytes[result.usage.index_of(event)] == plan.size_bytes[in_use].sum()
    assert (result.strategy, result.exactness, result.conf, result.oom) == ("planned", "modelled", None, None)
    assert (result.n_device_allocs, result.n_device_frees, result.n_retries) == (1, 0, 0)
    assert result.driver_calls is not None
    assert result.driver_calls.counts == {"cudaMalloc": 1}
    assert "same requests in the same order" in result.notes[0]


def test_plan_that_does_not_fit_fails_before_the_first_event():
    lifetimes = recorded()
    need = plan_allocations(lifetimes).plan_bytes
    assert replay_planned(lifetimes, limits=Limits(need)).oom is None
    result = replay_planned(lifetimes, limits=Limits(need - 1), measures_fragmentation=True)
    assert result.oom is not None
    assert (result.oom.event, result.oom.requested_bytes, result.oom.free_bytes) == (-1, need, need - 1)
    assert (len(result.usage), result.peak_reserved_bytes, result.n_device_allocs) == (1, 0, 0)
    assert result.fragmentation is None


def test_place_is_kept_until_the_free_completes():
    builder = TraceBuilder()
    for action, address, size_bytes in (
        (Action.ALLOC, 4096, 1000),
        (Action.FREE_REQUESTED, 4096, 1000),
        (Action.ALLOC, 8192, 1024),  # the first still waits for another stream
        (Action.FREE_COMPLETED, 4096, 1000),
        (Action.ALLOC, 4096, 512),
    ):
        builder.add_event(action, address=address, size_bytes=size_bytes)
    lifetimes = DeviceLifetimes(builder.build(TraceMetadata(source="synthetic")), 0)
    plan = plan_allocations(lifetimes)
    assert plan.start_event.tolist() == [0, 2, 4]
    assert plan.end_event.tolist() == [3, 5, 5]
    assert plan.plan_bytes == 2048
    state = plan_state(plan, 2)
    assert sorted(state.blocks.state.tolist()) == [BlockState.ACTIVE_ALLOCATED, BlockState.ACTIVE_PENDING_FREE]
    assert state.allocated_bytes == 1024


def test_what_stood_before_the_recording_has_its_place_from_the_start():
    lifetimes = recorded(late=400)
    plan = plan_allocations(lifetimes)
    before = lifetimes.allocations.alloc_event == -1
    assert np.any(before)
    assert set(plan.start_event[before].tolist()) == {lifetimes.first_event - 1}
    result = replay_planned(lifetimes)
    assert result.usage.active_bytes[0] == plan.size_bytes[before].sum() > 0


def test_state_tiles_the_pool_at_every_moment():
    lifetimes = recorded(streams=(0, 7), p_wait=0.2)
    plan = plan_allocations(lifetimes)
    result = replay_planned(lifetimes)
    for event in (-1, *range(0, lifetimes.last_event, 97), lifetimes.last_event):
        state = plan_state(plan, event)
        state.check()
        assert state.reserved_bytes == plan.plan_bytes
        assert state.unplaced_bytes == 0
        assert state.active_bytes == result.usage.active_bytes[result.usage.index_of(event)]
        rows = state.allocation_ids[state.allocation_ids >= 0]
        assert sorted(rows.tolist()) == np.flatnonzero(lifetimes.allocations.active_at(event)).tolist()


def test_fragmentation_is_measured_where_the_most_is_in_use():
    lifetimes = recorded()
    plan = plan_allocations(lifetimes)
    result = replay_planned(lifetimes, measures_fragmentation=True)
    assert result.fragmentation is not None
    overall = result.fragmentation.overall
    assert overall.reserved_bytes == plan.plan_bytes
    assert overall.active_bytes == result.peak_active_bytes
    assert overall.requested_bytes == result.usage.requested_bytes[np.argmax(result.usage.active_bytes)]
    state = plan_state(plan, result.fragmentation.event)
    assert measure_fragmentation(lifetimes.trace, state) == result.fragmentation
    assert replay_planned(lifetimes).fragmentation is None


def test_alignment_rounds_sizes_and_offsets():
    plan = plan_allocations(recorded(n_steps=200), alignment_bytes=2 * MiB)
    assert not np.any(plan.size_bytes % (2 * MiB))
    assert not np.any(plan.offset % (2 * MiB))


@pytest.mark.parametrize("alignment_bytes", [0, 256, 768])
def test_alignment_that_no_allocator_has_is_refused(alignment_bytes):
    with pytest.raises(UsageError, match="alignment"):
        plan_allocations(recorded(n_steps=20), alignment_bytes=alignment_bytes)


def test_device_without_allocations_has_no_plan():
    builder = TraceBuilder()
    builder.add_event(Action.SEGMENT_ALLOC, address=1 << 21, size_bytes=2 * MiB)
    with pytest.raises(UsageError, match="no allocations to plan"):
        replay_planned(DeviceLifetimes(builder.build(TraceMetadata(source="synthetic")), 0))


@needs_shared
@pytest.mark.parametrize(
    "name",
    [
        "gpt2_small_train",
        "gpt2_tiny_train",
        "llama1b_train_ckpt",
        "llama1b_train_oom",
        "llama1b_serve_exp",
        "llama7b_generate",
    ],
)
def test_plans_of_language_models_are_close_to_the_bound_and_below_the_recording(name):
    lifetimes = DeviceLifetimes(read_snapshot(ORACLE / "torch-2.11.0" / f"llm_{name}.pickle.gz"), 0)
    plan = plan_allocations(lifetimes)
    assert plan.plan_bytes <= 1.005 * plan.lower_bound_bytes
    assert lifetimes.usage.reserved_bytes is not None
    assert plan.plan_bytes <= lifetimes.usage.reserved_bytes.max()
