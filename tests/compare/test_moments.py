"""Which moments are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.analysis import Analysis, load
from memscope.compare.moments import common_devices, highest_in_step, moment_asked, parse_steps
from memscope.errors import UsageError
from tests.compare.runs import MiB, Take, run
from tests.rank_traces import Alloc, rank_trace, training

SHIPPED = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


def test_a_step_is_compared_where_it_is_highest() -> None:
    device = load(SHIPPED).device()
    for i, name in enumerate(device.steps.labels):
        moment = highest_in_step(device, name)
        begin, end = int(device.steps.begin[i]), int(device.steps.end[i])
        assert begin <= moment.event < end
        assert moment.allocated_bytes == max(device.at(event).allocated_bytes for event in range(begin, end))


def test_a_step_is_named_or_counted() -> None:
    device = run([Take(2 * MiB), "step 10", Take(2 * MiB), "step 11"]).device()
    assert highest_in_step(device, "10").event == highest_in_step(device, "step 10").event
    assert highest_in_step(device, "0").event == highest_in_step(device, "10").event
    with pytest.raises(UsageError, match="no step '12': it has step 10 to step 11"):
        highest_in_step(device, "12")


def test_a_trace_without_steps_says_so() -> None:
    with pytest.raises(UsageError, match="the steps of run"):
        highest_in_step(run([Take(2 * MiB)]).device(), "0")


@pytest.mark.parametrize("text", ["3", "3:4:5", ":", "3:", ""])
def test_what_is_not_two_steps_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not two steps"):
        parse_steps(text)


def test_without_an_event_the_peak_is_meant() -> None:
    device = load(SHIPPED).device()
    assert moment_asked(device, None).event == device.peak().event
    assert moment_asked(device, 5).event == 5


def test_devices_of_the_same_number_are_compared_and_single_ones_of_any() -> None:
    two = Analysis(rank_trace([Alloc("a", 10)], [Alloc("b", 20)]))
    assert [(a.index, b.index) for a, b in common_devices(two, two)] == [(0, 0), (1, 1)]
    one = Analysis(rank_trace(training(10)))
    assert [(a.index, b.index) for a, b in common_devices(one, two)] == [(0, 0)]
    second = Analysis(rank_trace([], [Alloc("b", 20)]))
    assert [(a.index, b.index) for a, b in common_devices(one, second)] == [(0, 1)]
    assert [(a.index, b.index) for a, b in common_devices(two, two, 1)] == [(1, 1)]
    with pytest.raises(UsageError, match="device 1 is not in this trace"):
        common_devices(one, two, 1)
