"""What a check found as text."""

from __future__ import annotations

import io

from memscope.compare.baseline import baseline_of
from memscope.compare.gate import Gate
from memscope.reports.check.text import print_baseline, print_gate
from memscope.reports.terminal import Terminal
from tests.compare.runs import run
from tests.reports.check.gates import AFTER, BEFORE, grown, kept, passed, untold


def printed(gate: Gate, top: int = 10) -> str:
    out = io.StringIO()
    print_gate(gate, top, Terminal(file=out, width=120))
    return out.getvalue()


def test_a_limit_that_is_passed_names_who_holds_most() -> None:
    text = printed(passed())
    assert "✗ peak allocated is 34.0 MiB, 10.0 MiB over its limit of 24.0 MiB" in text
    assert text.index("fc.weight") < text.index("fc output")
    assert "train.py:7 forward" in text


def test_against_a_baseline_only_what_grew_is_named() -> None:
    text = printed(grown())
    assert "What grew since the baseline" in text
    assert "+8.0 MiB" in text
    assert "fc.weight" not in text
    assert "fc output" not in printed(grown(), top=1).split("+8.0 MiB")[0]


def test_what_is_kept_and_what_cannot_be_told() -> None:
    assert printed(kept()).count("✓") == 2
    assert "⚠ 3 events lost" in printed(untold())


def test_a_baseline_shows_its_band() -> None:
    out = io.StringIO()
    print_baseline(baseline_of([run(BEFORE), run(AFTER)]), Terminal(file=out, width=120))
    text = out.getvalue()
    assert "Baseline of 2 runs" in text
    assert "24.0 MiB" in text
    assert "10.0 MiB" in text
