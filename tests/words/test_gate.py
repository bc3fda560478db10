"""What a check found in words."""

from __future__ import annotations

from pathlib import Path

from memscope.analysis import Analysis
from memscope.compare.baseline import baseline_of
from memscope.compare.checks import Check
from memscope.compare.gate import run_check
from memscope.words.gate import blame_heading, gate_words, limit_name, limit_words
from tests.compare.runs import MiB, Take, run
from tests.rank_traces import Alloc, rank_trace


def test_limits_are_said_with_what_was_measured() -> None:
    analysis = run([Take(24 * MiB)])
    gate = run_check(Check("run", Path("run"), max_peak_bytes=20 * MiB, max_reserved_bytes=30 * MiB), analysis)
    assert limit_words(gate, gate.limits[0]) == "peak allocated is 24.0 MiB, 4.0 MiB over its limit of 20.0 MiB"
    assert limit_words(gate, gate.limits[1]) == "peak reserved is 24.0 MiB, within its limit of 30.0 MiB"
    assert gate_words(gate) == limit_words(gate, gate.limits[0])
    assert blame_heading(gate) == "Who holds most at the peak"


def test_what_cannot_be_told_says_why_and_what_would_judge_it() -> None:
    gate = run_check(Check("run", Path("run"), max_peak_bytes=30 * MiB), run([Take(24 * MiB)], n_events_lost=1))
    assert gate_words(gate).startswith("cannot be told: 1 event lost")
    assert "--allow-partial" in gate_words(gate)


def test_of_several_devices_each_is_named() -> None:
    gate = run_check(
        Check("r", Path("r"), max_peak_bytes=1 << 40), Analysis(rank_trace([Alloc("a", 10)], [Alloc("b", 30)]))
    )
    assert "peak allocated on device 1 is 30.0 MiB" in gate_words(gate)


def test_the_baselines_limits_have_names_of_their_own() -> None:
    analysis = run([Take(24 * MiB)])
    gate = run_check(Check("run", Path("run"), baseline=Path("b")), analysis, baseline_of([analysis]))
    assert [limit_name(one) for one in gate.limits] == [
        "peak allocated against the baseline",
        "peak reserved against the baseline",
    ]
    assert blame_heading(gate) == "What grew since the baseline"


def test_a_limit_is_said_as_it_was_given_where_that_is_another_size() -> None:
    def words(size: int, given: str) -> str:
        check = Check("run", Path("run"), max_peak_bytes=size, max_peak_given=given)
        return gate_words(run_check(check, run([Take(24 * MiB)])))

    assert words(400 * 10**6, "400MB") == "peak allocated is 24.0 MiB, within its limit of 381.5 MiB (400MB)"
    assert words(30 * MiB, "30MiB").endswith("within its limit of 30.0 MiB")
    assert words(20 * 10**6, "20MB").endswith("over its limit of 19.1 MiB (20MB)")
