"""Memory given back in runs, and what reclaims tell of the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.reclaims import RefusedAbove, given_back, refused_above
from memscope.trace.schema import NONE_ID
from memscope.units import GiB, MiB
from tests.oom.planted import OTHER_STREAM, Program


def nearly_full(n_reclaims: int = 4, **options: object) -> Program:
    """960 MiB are held of 1 GiB; what comes and goes beside them is larger each time, so that nothing cached serves."""
    program = Program(GiB, **options)
    for _ in range(48):
        program.malloc(20 * MiB)
    for i in range(n_reclaims + 1):
        key = program.malloc((40 + 2 * i) * MiB)
        assert key is not None
        program.free(key)
    return program


def emptied() -> Program:
    """A program that empties its cache between rounds, and asks for the same again each time."""
    program = Program(8 * GiB)
    program.malloc(900 * MiB)
    for _ in range(5):
        key = program.malloc(40 * MiB)
        assert key is not None
        program.free(key)
        program.empty_cache()
    return program


def test_a_run_is_what_is_given_back_without_anything_between() -> None:
    runs = given_back(DeviceLifetimes(nearly_full().trace(), 0))
    assert runs.given_bytes.tolist() == [size * MiB for size in (40, 42, 44, 46)]
    assert runs.takes.all()
    assert runs.wanted_bytes.tolist() == [(960 + 2 * size + 2) * MiB for size in (40, 42, 44, 46)]
    assert not runs.had_room.any()
    assert (runs.end - runs.start).tolist() == runs.begins.tolist() == [1] * 4


def test_several_reclaims_bound_what_the_allocator_could_have() -> None:
    found = refused_above(DeviceLifetimes(nearly_full().trace(), 0))
    assert found == RefusedAbove((960 + 48) * MiB, (960 + 40 + 42) * MiB, 4)
    assert found.granted_bytes <= GiB < found.refused_bytes


def test_a_few_may_be_anything() -> None:
    assert refused_above(DeviceLifetimes(nearly_full(2).trace(), 0)) is None


def test_a_program_that_empties_its_cache_says_nothing_of_the_device() -> None:
    lifetimes = DeviceLifetimes(emptied().trace(), 0)
    runs = given_back(lifetimes)
    assert len(runs.start) == 5
    assert runs.had_room[runs.takes].all()
    assert refused_above(lifetimes) is None


def test_a_segment_of_another_stream_would_not_have_served() -> None:
    program = Program(GiB)
    program.malloc(900 * MiB)
    program.free(program.malloc(100 * MiB, OTHER_STREAM))
    assert program.malloc(90 * MiB) is not None
    assert given_back(DeviceLifetimes(program.trace(), 0)).had_room.tolist() == [False]


def test_garbage_collection_gives_back_long_before_the_end() -> None:
    trace = nearly_full().trace()
    settings = {**trace.metadata.allocator_settings, "garbage_collection_threshold": 0.6}
    collected = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, allocator_settings=settings))
    assert refused_above(DeviceLifetimes(collected, 0)) is None


def test_requests_of_very_different_sizes_do_not_agree_on_a_limit() -> None:
    program = Program(GiB)
    program.malloc(300 * MiB)
    for size in (400, 420, 440, 460, 480):
        key = program.malloc(size * MiB)
        assert key is not None
        program.free(key)
    lifetimes = DeviceLifetimes(program.trace(), 0)
    assert len(given_back(lifetimes).start) == 4
    assert refused_above(lifetimes) is None


@pytest.mark.parametrize("make", [lambda: Program(GiB), lambda: nearly_full(0)], ids=["nothing", "nothing given back"])
def test_without_any_run_there_is_nothing_to_say(make: Callable[[], Program]) -> None:
    lifetimes = DeviceLifetimes(make().trace(), 0)
    assert not len(given_back(lifetimes).start)
    assert refused_above(lifetimes) is None


def test_a_run_at_the_end_takes_nothing() -> None:
    program = Program(GiB)
    program.free(program.malloc(100 * MiB))
    program.empty_cache()
    runs = given_back(DeviceLifetimes(program.trace(), 0))
    assert runs.takes.tolist() == [False]
    assert runs.wanted_bytes.tolist() == [NONE_ID]
