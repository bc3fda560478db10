"""The memory that a replay's device has."""

from __future__ import annotations

import dataclasses

import pytest

from memscope.analysis import Analysis
from memscope.device.limits import (
    GIVEN,
    NO_LIMITS,
    Limits,
    Refusals,
    available_bytes,
    checked_limits,
    limits_for,
    recorded_limits,
    refused_with_room,
)
from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.strategies import ReplayOptions, replay
from memscope.units import GiB, MiB
from memscope.words.replay import limits_words
from tests.lifetimes.test_reclaims import nearly_full
from tests.oom.planted import Program, plant
from tests.training_trace import training_trace


def test_what_is_given_goes_before_what_was_recorded() -> None:
    trace = training_trace(total_bytes=5 * GiB)
    metadata = dataclasses.replace(trace.metadata, extra={"context_bytes_modelled": 512 << 20})
    known = DeviceLifetimes(dataclasses.replace(trace, metadata=metadata), 0)
    assert recorded_limits(known) == Limits(5 * GiB, 512 << 20, source="recorded")
    assert limits_for(known) == recorded_limits(known)
    assert limits_for(known, Limits(8 * GiB)) == Limits(8 * GiB, 0)
    assert limits_for(known, Limits(None, GiB, 0.5)) == Limits(5 * GiB, GiB, 0.5, "recorded; the rest given")
    assert recorded_limits(DeviceLifetimes(training_trace(total_bytes=None), 0)) == Limits(None, 0, source="not known")


def test_the_context_of_an_emulated_device_is_not_the_allocators() -> None:
    trace = training_trace(total_bytes=5 * GiB)
    extra = {"emulated": True, "emulated_overhead_bytes": 512 << 20}
    emulated = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, extra=extra))
    assert recorded_limits(DeviceLifetimes(emulated, 0)) == Limits(5 * GiB, 512 << 20, source="recorded")
    with_room, without = (Analysis(each).device(0) for each in (trace, emulated))
    assert without.headroom_bytes == with_room.headroom_bytes - (512 << 20)


def test_what_the_allocator_can_have_is_less_what_others_hold_and_at_most_its_share() -> None:
    limits = Limits(10 * GiB, 3 * GiB)
    assert limits.left_bytes == 7 * GiB
    assert Limits(10 * GiB, 12 * GiB).left_bytes == 0
    assert limits.cap_bytes(0.5) == 5 * GiB
    assert limits.cap_bytes(1.0) is None
    assert Limits(10 * GiB, memory_fraction=0.2).cap_bytes(0.5) == 2 * GiB
    assert NO_LIMITS.left_bytes is NO_LIMITS.cap_bytes(0.5) is None


def test_a_recorded_fraction_bounds_what_could_be_reserved() -> None:
    trace = training_trace(total_bytes=4 * GiB)
    assert available_bytes(DeviceLifetimes(trace, 0)) == 4 * GiB
    capped = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, memory_fraction={0: 0.25}))
    assert available_bytes(DeviceLifetimes(capped, 0)) == GiB
    assert available_bytes(DeviceLifetimes(training_trace(total_bytes=None), 0)) is None


def test_what_was_left_at_a_failure_is_what_the_allocator_could_have() -> None:
    program = plant("other-process", 0)
    lifetimes = DeviceLifetimes(program.trace(), 0)
    limits = recorded_limits(lifetimes)
    assert limits == Limits(program.total, program.outside_bytes, source="recorded")
    without_total = dataclasses.replace(program.trace().metadata, device_total_bytes={})
    limits = recorded_limits(DeviceLifetimes(dataclasses.replace(program.trace(), metadata=without_total), 0))
    assert limits.left_bytes == program.total - program.outside_bytes


def test_the_allocator_could_have_at_least_what_it_had_at_some_time() -> None:
    program = Program(GiB)
    for key in [program.malloc(100 * MiB) for _ in range(8)]:
        assert key is not None
        program.free(key)
    program.allocator.empty_cache()
    program.malloc(200 * MiB)
    program.fail(300 * MiB, free_bytes=100 * MiB)
    lifetimes = DeviceLifetimes(program.trace(), 0)
    assert recorded_limits(lifetimes) == Limits(GiB, GiB - 800 * MiB, source="recorded")


def test_a_recorded_fraction_is_no_memory_of_others() -> None:
    program = Program(2 * GiB, fraction=0.25)
    program.malloc(400 * MiB)
    assert program.malloc(200 * MiB) is None
    lifetimes = DeviceLifetimes(program.trace(), 0)
    assert recorded_limits(lifetimes) == Limits(2 * GiB, 0, 0.25, "recorded", "recorded")
    assert available_bytes(lifetimes) == 512 * MiB
    # A program sets it of whatever device it runs on; what is given goes before.
    assert limits_for(lifetimes, Limits(8 * GiB)) == Limits(8 * GiB, 0, 0.25, GIVEN, "recorded")
    assert limits_for(lifetimes, Limits(8 * GiB, memory_fraction=0.5)) == Limits(8 * GiB, 0, 0.5)


def refused_with_room_to_spare(n_times: int, fraction: float) -> DeviceLifetimes:
    """A program under a cap that nobody recorded, which takes all that it can have and asks on."""
    program = Program(8 * GiB, fraction=fraction, knows_fraction=False)
    while program.malloc(40 * MiB) is not None:
        pass
    for _ in range(n_times - 1):
        assert program.malloc(40 * MiB) is None
    program.malloc(256)
    return DeviceLifetimes(program.trace(), 0)


@pytest.mark.parametrize(("fraction", "told"), [(0.25, 0.25), (0.5, 0.5), (0.2517, 0.25), (0.3333, 0.333)])
def test_a_cap_that_was_not_recorded_is_inferred_as_people_write_it(fraction: float, told: float) -> None:
    lifetimes = refused_with_room_to_spare(3, fraction)
    limits = recorded_limits(lifetimes)
    assert limits == Limits(8 * GiB, 0, told, "recorded", "inferred from 3 requests refused with room")
    assert lifetimes.usage.reserved_bytes.max() <= available_bytes(lifetimes) == int(told * 8 * GiB)
    assert limits_words(limits).endswith(f"(a fraction of {told}, inferred from 3 requests refused with room)")
    result = replay(lifetimes, "caching", ReplayOptions(limits=limits_for(lifetimes)))
    assert (result.exactness, result.oom, result.n_ooms) == ("exact", None, 3)
    assert result.peak_reserved_bytes == lifetimes.usage.reserved_bytes.max()


def test_a_fraction_in_the_settings_is_recorded() -> None:
    trace = training_trace(total_bytes=4 * GiB)
    conf = "garbage_collection_threshold:0.8, per_process_memory_fraction:0.5"
    metadata = dataclasses.replace(trace.metadata, alloc_conf=conf)
    limits = recorded_limits(DeviceLifetimes(dataclasses.replace(trace, metadata=metadata), 0))
    assert limits == Limits(4 * GiB, 0, 0.5, "recorded", "recorded")


def test_two_refusals_with_room_are_no_cap() -> None:
    lifetimes = refused_with_room_to_spare(2, 0.25)
    assert refused_with_room(lifetimes).n_requests == 2
    assert recorded_limits(lifetimes).memory_fraction is None


def test_no_short_fraction_lies_between_what_was_granted_and_what_was_refused() -> None:
    assert Refusals(3, 1000, 1001).fraction_of(1 << 40) is None
    assert Refusals(3, 1000, 1010).fraction_of(3000) == 0.334
    assert Refusals(0).fraction_of(1 << 30) is None


def test_reclaims_tell_what_the_allocator_could_have_where_no_request_failed() -> None:
    program = nearly_full()
    trace = program.trace()
    assert recorded_limits(DeviceLifetimes(trace, 0)) == Limits(GiB, 16 * MiB, source="recorded")
    unknown = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, device_total_bytes={}))
    lifetimes = DeviceLifetimes(unknown, 0)
    assert recorded_limits(lifetimes) == Limits(1008 * MiB, 0, source="inferred from 4 reclaims")
    result = replay(lifetimes, "caching", ReplayOptions(limits=limits_for(lifetimes)))
    assert (result.n_retries, result.exactness) == (4, "exact")
    assert result.peak_reserved_bytes == lifetimes.usage.reserved_bytes.max()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(0), "a capacity must be above 0"),
        (Limits(10, 10), "nothing is left: others hold 10 B of a capacity of 10 B"),
        (Limits(10, 11), "nothing is left"),
        (Limits(memory_fraction=1.5), "a memory fraction of 1.5 is not between 0 and 1"),
    ],
)
def test_a_device_that_nobody_can_have_is_refused(limits: Limits, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        checked_limits(limits)


def test_what_is_left_open_and_what_fits_is_as_it_was_given() -> None:
    for limits in (Limits(), Limits(10, 9, 1.0), Limits(None, 10), Limits(memory_fraction=0.5)):
        assert checked_limits(limits) is limits
