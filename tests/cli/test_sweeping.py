"""The options of verbs that replay many times become one value; their bar is for terminals only."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from memscope.cli.sweeping import SweepOptions, progress, sweep_options
from memscope.units import GiB


def _given(*arguments: str) -> SweepOptions:
    found: list[SweepOptions] = []

    @click.command()
    @sweep_options
    def verb(sweep: SweepOptions) -> None:
        found.append(sweep)

    result = CliRunner().invoke(verb, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def test_sizes_are_read_as_bytes_and_kept_together() -> None:
    sweep = _given("--capacity", "80GiB", "--held-by-others", "2GiB", "--memory-fraction", "0.5", "-j", "3")
    limits = sweep.limits
    assert (limits.total_bytes, limits.reserved_by_others_bytes, limits.memory_fraction) == (80 * GiB, 2 * GiB, 0.5)
    assert sweep.spread.n_jobs == 3


def test_what_is_not_given_is_left_to_the_recording() -> None:
    limits = _given().limits
    assert limits.total_bytes is limits.reserved_by_others_bytes is limits.memory_fraction is None


def test_no_bar_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("replaying") as on_done:
        assert on_done is None
    assert capsys.readouterr().err == ""
