"""Whether a recording keeps within its limits, and whether that can be believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memscope.analysis import Analysis, load
from memscope.compare.baseline import Tolerance, baseline_of
from memscope.compare.checks import Check
from memscope.compare.for_inputs import SizePeak
from memscope.compare.gate import BASELINE_INPUTS, BASELINE_PEAK, BASELINE_RESERVED, Gate, run_check
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run
from tests.oom.planted import plant
from tests.rank_traces import Alloc, rank_trace

SHIPPED = Path(__file__).parents[2] / "traces"


def acts(mib: int) -> list[Any]:
    return [Take(20 * MiB, Category.WEIGHTS, "fc.weight", line(1)), Take(mib * MiB, calls=line(5))]


def judged(analysis: Analysis, baseline: Any = None, **limits: Any) -> Gate:
    if baseline is not None:
        limits["baseline"] = Path("base.json")
    return run_check(Check("run", Path("run.memscope"), **limits), analysis, baseline)


@pytest.mark.parametrize(("limit", "code"), [(24 * MiB, 0), (24 * MiB - 1, 2), (0, 2)])
@pytest.mark.parametrize("name", ["max_peak_bytes", "max_reserved_bytes"])
def test_a_limit_is_kept_up_to_its_last_byte(name: str, limit: int, code: int) -> None:
    found = judged(run(acts(4)), **{name: limit})
    assert found.exit_code == code
    assert found.is_ok == (code == 0)
    assert [one.actual_bytes for one in found.limits] == [24 * MiB]
    assert sum(row.b_bytes for row in found.blame) == (24 * MiB if code else 0)


def test_the_tolerance_is_let_through_beyond_the_highest_run_or_the_noise_if_that_is_larger() -> None:
    one = baseline_of([run(acts(180))])
    # 200 MiB, of which 1 % is 2 MiB: no less than what the allocator takes from the driver.
    gate = judged(run(acts(182)), one)
    assert {limit.name: limit.limit_bytes for limit in gate.limits} == dict.fromkeys(
        (BASELINE_PEAK, BASELINE_RESERVED), 202 * MiB
    )
    assert gate.exit_code == 0
    assert judged(run(acts(184)), one).exit_code == 2
    assert judged(run(acts(184)), one, tolerance=Tolerance(bytes=4 * MiB)).exit_code == 0
    noisy = baseline_of([run(acts(size)) for size in (176, 180, 182)])
    # They lie 6 MiB apart, and the highest has 202.
    assert judged(run(acts(188)), noisy).exit_code == 0
    assert judged(run(acts(190)), noisy).exit_code == 2


def test_a_run_is_held_to_what_its_inputs_take_where_the_baseline_has_steps_of_several_sizes() -> None:
    def batches(*sizes: int, more: int = 0) -> Analysis:
        acts: list[Any] = []
        for i, n in enumerate(sizes):
            acts += [Take(2 * n * MiB, Category.INPUTS, "x", line(3), free_at_step=True)]
            acts += [Take((200 + 20 * n + 2 * more) * MiB, calls=line(5), free_at_step=True), str(i)]
        return run(acts)

    base = baseline_of([batches(9, 4, 2, 8), batches(9, 2, 2)])
    assert base.for_inputs == tuple(
        SizePeak(2 * n * MiB, (200 + 22 * n) * MiB, 0, n_runs) for n, n_runs in ((2, 2), (4, 1), (8, 1))
    )
    for n, more, code in ((2, 1, 0), (2, 2, 2), (3, 1, 0), (3, 4, 2), (8, 1, 0), (1, 0, 0), (1, 14, 2), (9, 0, 0)):
        gate = judged(batches(1, n, more=more), base)
        assert (n, more, gate.exit_code) == (n, more, code)
        # The band alone, which reaches up to what the largest batch needs, lets all of them through.
        assert all(limit.is_kept or limit.name == BASELINE_INPUTS for limit in gate.limits)
        assert (BASELINE_INPUTS in {limit.name for limit in gate.limits}) == (n <= 8)
        one_size = baseline_of([batches(9, 9), batches(9)])
        assert BASELINE_INPUTS not in {limit.name for limit in judged(batches(n, more=more), one_size).limits}


def test_reserved_memory_may_differ_by_what_the_driver_gives_at_once() -> None:
    gate = judged(run(acts(4)), baseline_of([run(acts(4))]), tolerance=Tolerance())
    assert {limit.name: limit.limit_bytes for limit in gate.limits} == {
        BASELINE_PEAK: 24 * MiB,
        BASELINE_RESERVED: 26 * MiB,
    }


def test_the_blame_is_what_grew_since_the_baseline() -> None:
    gate = judged(
        run([*acts(4), Take(8 * MiB, Category.ACTIVATIONS, "fc output", line(7))]), baseline_of([run(acts(4))])
    )
    assert (gate.blame[0].key, gate.blame[0].delta_bytes) == ("fc output", 8 * MiB)
    assert sum(row.delta_bytes for row in gate.blame) == 8 * MiB


def test_lost_events_are_no_proof_that_a_limit_was_kept_but_one_that_was_passed_is_passed() -> None:
    partial = run(acts(4), n_events_lost=7)
    gate = judged(partial, max_peak_bytes=24 * MiB)
    assert gate.exit_code == 3
    assert not gate.is_ok
    assert "7 events lost" in gate.untrusted[0]
    assert judged(partial, max_peak_bytes=24 * MiB, allow_partial=True).exit_code == 0
    assert judged(partial, max_peak_bytes=23 * MiB).exit_code == 2


def test_a_run_that_ran_out_of_memory_needs_more_than_its_peak() -> None:
    gate = judged(load(SHIPPED / "tiny-out-of-memory.memscope"), max_peak_bytes=1 << 40)
    assert gate.exit_code == 3
    assert "memory ran out" in gate.untrusted[0]


def test_reserved_memory_that_was_not_recorded_cannot_be_judged() -> None:
    analysis = Analysis(plant("no-oom", 1).trace(has_segment_events=False))
    gate = judged(analysis, max_reserved_bytes=1 << 40, allow_partial=True)
    assert gate.limits[0].is_kept is None
    assert gate.exit_code == 3
    assert "not measured" in gate.untrusted[-1]


def test_each_device_has_its_limits_and_the_worst_is_blamed() -> None:
    analysis = Analysis(rank_trace([Alloc("a", 10)], [Alloc("b", 30)]))
    gate = judged(analysis, max_peak_bytes=20 * MiB)
    assert [(one.device, one.is_kept) for one in gate.limits] == [(0, True), (1, False)]
    assert gate.blamed_device == 1
    assert len(judged(analysis, max_peak_bytes=20 * MiB, device=0).limits) == 1


def test_what_else_differs_from_the_baseline_is_a_note() -> None:
    gate = judged(run(acts(4), torch_version="2.13.0"), baseline_of([run(acts(4), torch_version="2.11.0")]))
    assert gate.notes == ("the baseline has torch 2.11.0, this run 2.13.0",)
