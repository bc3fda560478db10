"""What a picture says, in a sentence."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.units import format_bytes
from memscope.words.headlines import (
    allocations_finding,
    fragmentation_finding,
    ledger_finding,
    map_finding,
    timeline_finding,
    where,
)
from tests.rank_traces import rank_trace, training
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


def test_findings_say_the_numbers_that_the_library_has(analysis: Analysis) -> None:
    peak = analysis.peak(0)
    assert ledger_finding(peak).startswith(f"Peak {format_bytes(peak.allocated_bytes)} allocated at step ")
    assert f", {format_bytes(peak.allocated_bytes)} at the peak" in ledger_finding(analysis.at(10, 0))
    assert format_bytes(peak.allocated_bytes) in timeline_finding(analysis.device(0))
    assert "out of memory 1 time" in timeline_finding(analysis.device(0))
    assert "reserved" in map_finding(peak)
    assert allocations_finding(peak).startswith(f"{len(peak.rows):,} allocations hold")
    assert "before" not in ledger_finding(analysis.at(-1, 0))


def test_findings_name_their_moment_and_what_holds_most(analysis: Analysis) -> None:
    peak = analysis.peak(0)
    assert ledger_finding(peak) == (
        "Peak 35.1 MiB allocated at step 2, backward: activations 47.6 %, weights 28.6 % of 42.0 MiB reserved"
    )
    assert fragmentation_finding(peak) == (
        "6.9 MiB free but pinned by live blocks at step 2, backward, 16.5 % of reserved"
    )
    assert allocations_finding(peak) == (
        "33 allocations hold 35.1 MiB at step 2, backward; the largest 4 hold half of it"
    )
    start = analysis.at(-1, 0)
    assert (where(start), allocations_finding(start)) == ("the start", "Nothing is live at the start")


def test_without_segments_nothing_is_said_about_fragmentation() -> None:
    blind = rank_trace(training(10), has_segment_events=False)
    peak = Analysis(blind).peak(0)
    assert fragmentation_finding(peak) == "Fragmentation is not measured: the segments were not recorded"
    assert map_finding(peak) == "30.0 MiB active at step 0; the segments were not recorded"
