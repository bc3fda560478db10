"""The tests for a cause, one by one, and what weakens their answer."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.errors import UsageError
from memscope.oom.request import DRIVER_SLACK_BYTES, NORMAL_CONTEXT_BYTES, NORMAL_GROWTH_BYTES, failed_request, limit_at
from memscope.oom.rerun import Change, Rerun, Restart
from memscope.oom.room import room_at
from memscope.oom.verdict import OomClass, oom_headline
from memscope.replay.config import CachingAllocatorConfig
from memscope.units import GiB, MiB
from tests.oom.planted import OTHER_STREAM, PRIVATE, Program


def full(total=1 * GiB, block=100 * MiB, **options) -> Program:
    """Ten blocks of 100 MiB on 1 GiB: 24 MiB are left, and nothing is free inside."""
    program = Program(total, **options)
    for _ in range(10):
        program.malloc(block)
    return program


def test_a_full_device_is_capacity_with_the_bytes_that_are_lacking() -> None:
    program = full()
    program.malloc(50 * MiB)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.CAPACITY
    # 1000 MiB in use and 50 more: 26 MiB beyond the 1024 MiB of the device.
    assert verdict.failure.free.packed_bytes == 1050 * MiB
    assert verdict.failure.limit.low_bytes == verdict.failure.limit.high_bytes == 1024 * MiB
    assert "26.0 MiB more" in verdict.reason
    assert verdict.failure.free.free_bytes == 0
    assert oom_headline(verdict) == "capacity: 50.0 MiB asked, 1000.0 MiB allocated of 1.0 GiB that PyTorch could have"
    memory = next(change for change in verdict.remedies.found if change.kind == "memory")
    assert memory.changed_bytes == 26 * MiB
    blocks = verdict.counterfactual
    assert (blocks.kind, blocks.checked, blocks.n_blocks) == ("blocks", "exact", 1)


def holes_between_pins(program: Program, late: bool = False) -> Program:
    """Four segments of 64 MiB, in each a hole of 50 MiB and a live block; one of the live blocks is smaller."""
    for key in [program.malloc(64 * MiB) for _ in range(4)]:
        program.free(key)
    holes = []
    for size in (12, 12, 10, 12):
        holes.append(program.malloc(50 * MiB))
        program.malloc(size * MiB)
    if late:
        program.forget()
    for key in holes:
        program.free(key)
    program.malloc(60 * MiB)
    return program


def test_holes_between_pins_are_fragmentation_and_the_cheapest_pin_is_named() -> None:
    program = holes_between_pins(Program(256 * MiB))
    verdict = Analysis(program.trace()).oom()
    # Each segment: 50 MiB free, a pin, and the rest free: 210 MiB free in all, never more than 50 in one piece.
    assert verdict.verdict is OomClass.EXTERNAL_FRAGMENTATION
    assert verdict.failure.free.free_bytes == (4 * 64 - 46) * MiB
    assert verdict.failure.free.largest_bytes == 50 * MiB
    assert (
        oom_headline(verdict) == "external fragmentation: 60.0 MiB asked, 210.0 MiB free in pieces of at most 50.0 MiB"
    )
    blocks = next(change for change in verdict.remedies.found if change.kind == "blocks")
    assert blocks.checked == "exact"
    assert [block.block_bytes for block in blocks.blocks] == [10 * MiB]
    setting = verdict.counterfactual
    assert setting.line == f"PYTORCH_ALLOC_CONF={setting.conf}"
    assert program.survives(conf=setting.conf)


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


def test_frees_that_still_wait_while_nothing_is_reclaimed() -> None:
    program = full()
    program.free(3, waits=True)
    program.fail(60 * MiB)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.STREAM_DELAYED_FREES
    assert verdict.failure.free.pending_bytes == 100 * MiB
    assert oom_headline(verdict).endswith("100.0 MiB freed but waiting for other streams")


def test_a_free_that_nothing_delays_just_before_the_failure_is_no_delayed_free() -> None:
    program = full()
    program.free(program.malloc(20 * MiB))
    program.malloc(70 * MiB)
    assert Analysis(program.trace()).oom().verdict is OomClass.CAPACITY


def test_cached_memory_that_a_capture_cannot_reclaim_is_the_private_pools_border() -> None:
    program = full()
    program.free(3)
    program.malloc(4 * MiB, 0, PRIVATE)
    program.fail(60 * MiB, 0, PRIVATE)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.PRIVATE_POOL
    assert "100.0 MiB" in verdict.reason


@pytest.mark.parametrize(("slack", "expected"), [(-2 * MiB, OomClass.CANNOT_TELL), (2 * MiB, OomClass.FRACTION_CAP)])
def test_a_cap_that_was_not_recorded_is_inferred_only_where_the_driver_had_clear_room(slack: int, expected) -> None:
    program = full(knows_total=False)
    program.fail(60 * MiB, free_bytes=60 * MiB + DRIVER_SLACK_BYTES + slack)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is expected
    assert not verdict.is_certain
    assert any("inferred" in text for text in verdict.trust) is (expected is OomClass.FRACTION_CAP)


def test_fragmentation_below_a_cap_is_a_second_cause() -> None:
    verdict = Analysis(holes_between_pins(Program(1 * GiB, fraction=0.25)).trace()).oom()
    assert verdict.verdict is OomClass.FRACTION_CAP
    assert verdict.cause.also == (OomClass.EXTERNAL_FRAGMENTATION,)
    assert verdict.failure.limit.cap_bytes == 256 * MiB
    cap = verdict.counterfactual
    assert (cap.kind, cap.checked) == ("cap", "exact")
    assert "0.309" in cap.text  # (256 + 60) MiB of 1 GiB


@pytest.mark.parametrize("grown", [NORMAL_GROWTH_BYTES, NORMAL_GROWTH_BYTES + 200 * MiB])
def test_a_context_may_grow_a_little_before_it_is_a_cause(grown: int) -> None:
    context = 300 * MiB
    program = Program(2 * GiB, outside_bytes=context + grown)
    program.malloc(64 * MiB)
    program.sample(context, 0)
    while program.left >= 100 * MiB:
        program.malloc(100 * MiB)
    program.sample(context + grown, 0)
    program.malloc(110 * MiB)
    verdict = Analysis(program.trace()).oom()
    assert context + grown < NORMAL_CONTEXT_BYTES
    assert verdict.failure.outside.own_bytes == context + grown
    expected = OomClass.NON_PYTORCH if grown > NORMAL_GROWTH_BYTES else OomClass.CAPACITY
    assert verdict.verdict is expected


def test_memory_outside_that_nobody_told_apart_is_no_cause() -> None:
    program = full(total=4 * GiB, outside_bytes=3 * GiB)
    program.malloc(50 * MiB)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.CANNOT_TELL
    assert "by this process or by another was not measured" in verdict.reason
    assert verdict.failure.outside.total_bytes == 3 * GiB
    assert verdict.counterfactual is not None


def test_what_collectives_took_is_told_apart() -> None:
    program = full(total=4 * GiB, outside_bytes=3 * GiB)
    program.malloc(50 * MiB)
    parts = {"device_parts": {"0": [["cuda_context", 0, 500 * MiB], ["collectives", 0, 2 * GiB]]}}
    verdict = Analysis(program.trace(extra=parts)).oom()
    assert verdict.verdict is OomClass.NON_PYTORCH
    assert verdict.failure.outside.collectives_bytes == 2 * GiB


def test_without_what_the_driver_had_left_a_limit_that_leaves_it_open_tells_nothing() -> None:
    program = Program(700 * MiB, knows_total=False, knows_free=False)
    for _ in range(6):
        program.malloc(100 * MiB)
    program.malloc(110 * MiB)
    verdict = Analysis(program.trace()).oom()
    # 600 MiB were granted and 710 refused. Both leave less than the 710 MiB that all of it needs.
    assert (verdict.failure.limit.low_bytes, verdict.failure.limit.high_bytes) == (600 * MiB, 710 * MiB - 1)
    assert verdict.failure.limit.device_free_bytes is None
    assert verdict.verdict is OomClass.CAPACITY
    assert not verdict.is_certain


def test_without_what_the_driver_had_left_a_peak_before_the_failure_bounds_the_limit() -> None:
    verdict = Analysis(holes_between_pins(Program(256 * MiB, knows_total=False, knows_free=False)).trace()).oom()
    assert verdict.failure.limit.low_bytes == 256 * MiB
    assert verdict.verdict is OomClass.EXTERNAL_FRAGMENTATION


def test_where_the_bounds_of_the_limit_disagree_nothing_is_told() -> None:
    program = Program(700 * MiB, knows_total=False, knows_free=False)
    keys = [program.malloc(100 * MiB) for _ in range(6)]
    program.free(keys[0])
    program.malloc(60 * MiB)  # 40 MiB are left of that segment
    program.malloc(110 * MiB)
    verdict = Analysis(program.trace()).oom()
    # 560 MiB and 110 more: too much for the 600 that were granted, not for the 709 that may have been there.
    assert verdict.verdict is OomClass.CANNOT_TELL
    assert "only known to lie between 600.0 MiB and 710.0 MiB" in verdict.reason


def test_a_recording_that_began_late_keeps_its_cause_and_says_what_is_older() -> None:
    verdict = Analysis(holes_between_pins(Program(256 * MiB), late=True).trace()).oom()
    assert verdict.verdict is OomClass.EXTERNAL_FRAGMENTATION
    assert any("older than the recording" in text for text in verdict.trust)
    blocks = next(change for change in verdict.remedies.found if change.kind == "blocks")
    assert [block.alloc_event for block in blocks.blocks] == [None]


def test_lost_events_are_named_and_no_failure_among_the_kept_ones_is_not_proof() -> None:
    verdict = Analysis(full().trace(n_events_lost=7)).oom()
    assert verdict.verdict is OomClass.NO_OOM
    assert verdict.trust == ("7 events were lost: a request that failed among them is not seen",)
    assert not verdict.is_certain


def test_where_loss_cannot_be_told_no_failure_is_no_proof() -> None:
    program = full()
    program.forget()
    program.free(3)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.NO_OOM
    assert not verdict.is_certain
    assert "whether events are missing cannot be told" in verdict.trust[0]


def test_rejections_that_leave_no_event_are_named() -> None:
    trace = full().trace(alloc_conf="throw_on_cudamalloc_oom:True")
    verdict = Analysis(trace).oom()
    assert verdict.verdict is OomClass.NO_OOM
    assert "throw_on_cudamalloc_oom" in verdict.trust[0]


@pytest.mark.parametrize("is_split", [True, False])
def test_a_failure_that_pytorch_would_not_have_had_is_not_explained(is_split: bool) -> None:
    program = full()
    program.free(3)
    if is_split:
        program.malloc(20 * MiB)
    program.fail(70 * MiB)
    program.free(4)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.CANNOT_TELL
    assert ("would have served it" if is_split else "could still be given back") in verdict.reason


def test_without_segments_nothing_is_told() -> None:
    program = full()
    program.malloc(50 * MiB)
    verdict = Analysis(program.trace(has_segment_events=False)).oom()
    assert verdict.verdict is OomClass.CANNOT_TELL
    assert verdict.failure.free is None
    assert verdict.failure.owners


def test_each_of_several_failures_has_its_own_verdict() -> None:
    program = full()
    program.malloc(50 * MiB)
    program.free(2)
    program.malloc(200 * MiB)
    analysis = Analysis(program.trace())
    first, second = analysis.device(0).oom_events.tolist()
    assert analysis.oom().event == first
    assert analysis.oom(event=second).failure.request.rounded_bytes == 200 * MiB
    assert analysis.oom(event=second).remedies.replay_error_bytes == 0
    assert analysis.oom().events == (first, second)
    with pytest.raises(UsageError, match=f"its errors are at {first}, {second}"):
        analysis.oom(event=1)
    with pytest.raises(UsageError, match="has none in this trace"):
        Analysis(full().trace()).oom(event=1)


@pytest.mark.parametrize("late", [False, True])
def test_the_recorded_state_alone_answers_as_the_whole_replay_does(late: bool) -> None:
    program = holes_between_pins(Program(256 * MiB), late)
    lifetimes = Analysis(program.trace()).device(0).lifetimes
    config = CachingAllocatorConfig.from_trace(lifetimes.trace, 0)
    request = failed_request(lifetimes, int(lifetimes.oom_events[0]), config)
    limit, room = limit_at(lifetimes, request, config), room_at(lifetimes, request, config)
    restart = Restart(lifetimes, request, limit, room, config)
    whole = Rerun(lifetimes, request, limit, room, config)
    table = lifetimes.allocations
    for row in np.flatnonzero(table.active_at(request.event)):
        freed = Change(freed_rows=np.array([row]))
        assert restart.serve(freed).is_served == whole.serve(freed).is_served
    assert not restart.serve(Change()).is_served
    assert restart.serve(Change()).reserved_bytes == room.state.reserved_bytes
    assert not restart.serve(Change(more_bytes=58 * MiB)).is_served
    assert restart.serve(Change(more_bytes=60 * MiB)).is_served
