"""The tests for a cause, one by one."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.oom.verdict import OomClass, OomVerdict, oom_headline
from memscope.trace.categories import Category
from memscope.trace.schema import Action
from memscope.units import GiB, MiB
from tests.oom.planted import PRIVATE, Program, full, holes_between_pins, nearly_full


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
    assert oom_headline(verdict) == "capacity: 50.0 MiB asked, 0.98 GiB allocated of 1.00 GiB that PyTorch could have"
    memory = next(change for change in verdict.remedies.found if change.kind == "memory")
    assert memory.changed_bytes == 26 * MiB
    blocks = verdict.counterfactual
    assert (blocks.kind, blocks.checked, blocks.n_blocks) == ("blocks", "exact", 1)


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


def test_fragmentation_below_a_cap_is_a_second_cause() -> None:
    verdict = Analysis(holes_between_pins(Program(1 * GiB, fraction=0.25)).trace()).oom()
    assert verdict.verdict is OomClass.FRACTION_CAP
    assert verdict.cause.also == (OomClass.EXTERNAL_FRAGMENTATION,)
    assert verdict.failure.limit.cap_bytes == 256 * MiB
    cap = verdict.counterfactual
    assert (cap.kind, cap.checked) == ("cap", "exact")
    assert "0.309" in cap.text  # (256 + 60) MiB of 1 GiB


def test_memory_outside_that_nobody_told_apart_is_no_cause() -> None:
    program = full(total=4 * GiB, outside_bytes=3 * GiB)
    program.malloc(50 * MiB)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.CANNOT_TELL
    assert "by this process or by another was not measured" in verdict.reason
    assert verdict.failure.outside.total_bytes == 3 * GiB
    assert verdict.counterfactual is not None


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


def refused_with_room(file_name: str) -> OomVerdict:
    """A driver with 6 GiB left that refuses 1 GiB."""
    program = Program(8 * GiB)
    program.malloc(2 * GiB)
    program.fail(GiB, free_bytes=6 * GiB)
    if file_name:
        stacks = program.builder.stacks
        stack_id = stacks.stack([stacks.frame("step", file_name, 1)])
        program.builder.add_event(Action.SNAPSHOT, address=0, size_bytes=0, stack_id=stack_id)
    return Analysis(program.trace()).oom()


@pytest.mark.parametrize(
    ("file_name", "first", "has_windows"),
    [("", "a cap", True), ("/home/user/train.py", "a cap", False), (r"C:\Users\user\train.py", "Windows", True)],
)
def test_a_refusal_with_room_to_spare_has_several_causes(file_name: str, first: str, has_windows: bool) -> None:
    verdict = refused_with_room(file_name)
    assert verdict.verdict is OomClass.CANNOT_TELL
    assert not verdict.is_certain
    assert verdict.reason == "the driver refused 1.0 GiB although it said that 6.0 GiB were free"
    listed = [text for text in verdict.evidence if text.startswith("may have refused: ")]
    assert listed[0].startswith(f"may have refused: {first}")
    assert any("Windows" in text for text in listed) == has_windows
    assert any("MIG" in text for text in listed)


def test_requests_refused_at_the_same_total_bear_witness_to_a_cap() -> None:
    program = Program(8 * GiB, fraction=0.25, knows_fraction=False)
    while program.malloc(40 * MiB) is not None:
        pass
    assert Analysis(program.trace()).oom().verdict is OomClass.CANNOT_TELL
    program = Program(8 * GiB, fraction=0.25, knows_fraction=False)
    while program.malloc(40 * MiB) is not None:
        pass
    for _ in range(2):
        assert program.malloc(40 * MiB) is None
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.FRACTION_CAP
    assert verdict.reason.endswith("3 requests were refused so, at the same total: a cap on PyTorch's own share")
    assert not verdict.is_certain


def test_a_device_with_hardly_anything_free_is_full_however_it_would_be_packed() -> None:
    program = nearly_full()
    program.malloc(14 * MiB)
    verdict = Analysis(program.trace()).oom()
    # 1008 MiB in use and 14 more would fit into 1024, but 16 MiB are 1.6 % of it.
    assert verdict.failure.free.packed_bytes == 1022 * MiB
    assert verdict.cause.verdict is OomClass.CAPACITY
    assert verdict.cause.also == (OomClass.EXTERNAL_FRAGMENTATION,)
    assert "16.0 MiB (1.6 %) were free" in verdict.reason
    assert {change.kind for change in verdict.remedies.found} == {"blocks", "memory"}


def test_a_little_more_in_pieces_is_fragmentation() -> None:
    program = Program(GiB)
    for _ in range(38):
        program.malloc(24 * MiB)
    for _ in range(4):
        program.free(program.malloc(28 * MiB))
        program.malloc(20 * MiB)
    assert program.malloc(14 * MiB) is None
    # Four holes of 8 MiB: 3.1 % of the device are free.
    assert Analysis(program.trace()).oom().verdict is OomClass.EXTERNAL_FRAGMENTATION


def first_step(total: int, n_made: int) -> Program:
    """Four weights of 100 MiB with their gradients, and an optimizer that makes two tensors for each of them."""
    program = Program(total)
    for category in (Category.WEIGHTS, Category.GRADIENTS):
        for size in (100, 100, 100, 20):
            program.malloc(size * MiB, category=category)
    for size in ((20,) * 2 + (100,) * 6)[:n_made]:
        program.malloc(size * MiB, category=Category.OPTIMIZER_STATE)
    return program


def test_an_optimizer_with_more_to_make_than_is_free_is_capacity_however_it_is_packed() -> None:
    program = first_step((640 + 140 + 256) * MiB, 3)
    holes_between_pins(program)  # what is left, in pieces
    failed = program.builder.n_events - 1
    program.builder.set_owner(failed, Category.OPTIMIZER_STATE, "exp_avg")
    verdict = Analysis(program.trace()).oom()
    assert verdict.event == failed
    assert verdict.verdict is OomClass.CAPACITY
    # Of the 6 tensors of 100 MiB one was there.
    assert "at least 500.0 MiB of it still to make" in verdict.reason
    assert not any("still to make" in sentence for sentence in verdict.evidence)
    assert {change.kind for change in verdict.remedies.found} <= {"blocks", "batch", "memory"}


def test_what_the_optimizer_still_has_to_make_is_said_of_any_full_device() -> None:
    program = first_step(1000 * MiB, 5)
    assert program.malloc(100 * MiB) is None
    program.builder.set_owner(program.builder.n_events - 1, Category.OPTIMIZER_STATE, "exp_avg")
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.CAPACITY
    assert any("had at least 300.0 MiB still to make" in sentence for sentence in verdict.evidence)


def test_where_the_devices_size_is_not_recorded_the_rest_of_it_is_said_to_be_held_outside() -> None:
    def evidence(*, knows_total: bool) -> str:
        program = Program(600 * MiB, knows_total=knows_total)
        for _ in range(5):
            program.malloc(100 * MiB)
        assert program.malloc(200 * MiB) is None
        return " ".join(Analysis(program.trace()).oom().evidence)

    assert "what it has beyond these 600.0 MiB was held outside PyTorch" in evidence(knows_total=False)
    assert "not recorded" not in evidence(knows_total=True)


@pytest.mark.parametrize(("outside_bytes", "is_said"), [(3 * GiB, True), (300 * MiB, False)])
def test_memory_outside_that_would_have_been_enough_is_a_second_cause_of_fragmentation(
    outside_bytes: int, is_said: bool
) -> None:
    program = holes_between_pins(Program(outside_bytes + 256 * MiB, outside_bytes=outside_bytes))
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.EXTERNAL_FRAGMENTATION
    assert (
        any("held outside PyTorch beyond a context would have been enough" in text for text in verdict.evidence)
        is is_said
    )
