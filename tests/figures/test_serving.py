"""Pictures of serving replays: what is drawn is what was found, and what an estimate is says so."""

from __future__ import annotations

import dataclasses

import pytest

from memscope.figures.serving import shares_figure, shares_words, sweep_figure, swept_managers
from memscope.figures.theme import DARK, LIGHT, Theme
from memscope.serving.result import KvResult
from memscope.serving.simulate import simulate
from memscope.units import format_fraction
from memscope.words.serving import CLAIMED_PARTS, result_label
from tests.serving.small_tables import job, table

MANY = table([(i * 40, 6 + i % 5, 3 + i % 7) for i in range(60)])
SMALL = 96
"""Tokens of memory: too few for all of them at once, so that requests wait and are put back."""


def result(manager: str = "paged", **options: int) -> KvResult:
    return simulate(job(MANY, manager, **({"n_tokens": SMALL, "max_length": 32} | options)))


@pytest.fixture(scope="module")
def results() -> list[KvResult]:
    return [result("max-length"), result("paged"), result("paged", block_size=8), result("radix")]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_the_parts_of_every_bar_sum_to_all_of_it(results: list[KvResult], theme: Theme) -> None:
    figure = shares_figure([(result_label(one), one) for one in results], theme)
    assert [trace.name for trace in figure.data] == [part.label for part in CLAIMED_PARTS]
    for row in range(len(results)):
        assert sum(trace.x[row] for trace in figure.data) == pytest.approx(100)
    assert figure.data[0].marker.color == theme.color("kv_cache")
    for trace in figure.data:
        assert trace.marker.color not in (theme.red, theme.amber)
    assert list(figure.layout.yaxis.ticktext) == ["max-length", "paged (4)", "paged (8)", "radix"]


def test_a_replay_to_come_keeps_its_place(results: list[KvResult]) -> None:
    figure = shares_figure([("to come", None), ("paged (4)", results[1])], LIGHT)
    assert list(figure.data[0].y) == [1]
    assert list(figure.layout.yaxis.ticktext) == ["to come", "paged (4)"]
    assert "nothing is replayed" in shares_figure([], LIGHT).layout.annotations[0].text
    assert shares_words([]) == "Nothing is replayed."
    share = format_fraction(results[3].kv_token_share_frac or 0)
    assert f"radix: {share} tokens" in shares_words([results[3]])


def test_a_sweep_has_a_curve_for_each_manager_with_several_block_sizes(results: list[KvResult]) -> None:
    assert list(swept_managers(results)) == ["paged"]
    share, peak = sweep_figure(results, LIGHT).data
    assert list(share.x) == list(peak.x) == ["4", "8"]
    assert list(share.y) == pytest.approx([100 * (one.kv_token_share_frac or 0) for one in results[1:3]])
    assert list(peak.y) == [one.peak_concurrent_requests for one in results[1:3]]
    assert swept_managers(results[:2]) == {}


def test_names_of_curves_that_end_together_are_kept_apart(results: list[KvResult]) -> None:
    twin = [dataclasses.replace(one, manager="paged-prefix") for one in results[1:3]]
    notes = [note for note in sweep_figure([*results, *twin], LIGHT).layout.annotations if "paged" in note.text]
    first = [note.yshift for note in notes if note.xref == "x"]
    assert len(first) == 2
    assert abs(first[0] - first[1]) >= 16
