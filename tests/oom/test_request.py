"""The limit in force at a failed request, and what lay outside PyTorch then."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.oom._request import DRIVER_SLACK_BYTES, NORMAL_CONTEXT_BYTES, NORMAL_GROWTH_BYTES
from memscope.oom.verdict import OomClass
from memscope.units import GiB, MiB
from tests.oom.planted import Program, full, holes_between_pins


@pytest.mark.parametrize(
    ("slack", "n_failed", "expected"),
    [
        (-2 * MiB, 3, OomClass.CANNOT_TELL),
        (2 * MiB, 1, OomClass.CANNOT_TELL),
        (2 * MiB, 3, OomClass.FRACTION_CAP),
    ],
)
def test_a_cap_that_was_not_recorded_is_inferred_where_several_were_refused_with_clear_room(
    slack: int, n_failed: int, expected: OomClass
) -> None:
    program = full(knows_total=False)
    for _ in range(n_failed):
        program.fail(20 * MiB, free_bytes=20 * MiB + DRIVER_SLACK_BYTES + slack)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is expected
    assert not verdict.is_certain
    assert any("inferred" in text for text in verdict.trust) is (expected is OomClass.FRACTION_CAP)


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
