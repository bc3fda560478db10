"""What a check found as GitHub's workflow commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from memscope.reports.check.annotations import github_lines
from tests.reports.check.gates import HERE, grown, kept, passed, unjudged, untold


def test_a_limit_that_is_passed_is_an_error_and_one_at_each_line() -> None:
    first, *lines = github_lines(passed(), PurePosixPath(HERE))
    assert first == "::error title=GPU memory%3A run::peak allocated is 34.0 MiB, 10.0 MiB over its limit of 24.0 MiB"
    assert lines[1] == (
        "::error file=train.py,line=7,title=GPU memory%3A run::"
        "10.0 MiB at the peak: fc output (activations), x (inputs)"
    )


def test_against_a_baseline_only_lines_that_grew_are_named() -> None:
    lines = github_lines(grown(), PurePosixPath("/elsewhere"))
    assert [line.split(",title")[0] for line in lines[1:]] == [f"::error file={HERE}/train.py,line=7"]
    assert "+10.0 MiB at the peak" in lines[1]


def test_what_is_kept_is_a_notice_and_what_cannot_be_told_a_warning() -> None:
    assert github_lines(kept(), Path("/"))[0].startswith("::notice ")
    (line,) = github_lines(untold(), Path("/"))
    assert line.startswith("::warning ")


def test_a_name_cannot_end_its_line() -> None:
    gate = passed()
    gate = replace(gate, check=replace(gate.check, name="a%b\n::error::c,d"))
    (first, *_) = github_lines(gate, Path("/"))
    assert first.startswith("::error title=GPU memory%3A a%25b%0A%3A%3Aerror%3A%3Ac%2Cd::")


def test_a_check_that_cannot_be_made_is_an_error() -> None:
    (line,) = github_lines(unjudged(), Path("/"))
    assert line.startswith("::error title=GPU memory%3A gone::not judged: folder/gone.memscope")
