"""A serving replay over time: what is drawn is what was found, and the time says that it is an estimate."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.figures.serving_curves import over_time_figure, over_time_words, serving_curve, without_timeline
from memscope.figures.theme import DARK, LIGHT
from memscope.serving.result import KvResult
from memscope.serving.simulate import simulate
from memscope.words.serving import CLAIMED_PARTS
from tests.serving.small_tables import job, table

MANY = table([(i * 40, 6 + i % 5, 3 + i % 7) for i in range(60)])
SMALL = 96
"""Tokens of memory: too few for all of them at once, so that requests wait and are put back."""


def result(manager: str = "paged", **options: int) -> KvResult:
    return simulate(job(MANY, manager, **({"n_tokens": SMALL, "max_length": 32} | options)))


@pytest.fixture(scope="module")
def results() -> list[KvResult]:
    return [result("max-length"), result("paged")]


def test_memory_over_time_is_the_results_own(results: list[KvResult]) -> None:
    one = results[1]
    curve, unit = serving_curve(one, 20), 1 << 10
    figure = over_time_figure(curve, LIGHT)
    memory = one.memory_over_time(20)
    by_name = {trace.name: trace for trace in figure.data}
    stacked = sum(np.asarray(by_name[part.label].y)[1:] for part in CLAIMED_PARTS) * unit
    claimed = memory.token_bytes + memory.reservation_bytes + memory.internal_bytes + memory.external_bytes
    assert stacked == pytest.approx(claimed)
    assert list(by_name["tokens"].x[1:]) == pytest.approx(list(memory.end_us / 1e6))
    assert sum(by_name["preempted"].y) == one.n_preemptions > 0
    assert max(by_name["running"].customdata) == one.peak_concurrent_requests
    assert figure.layout.xaxis.title.text == "estimated time"
    words = [note.text for note in figure.layout.annotations]
    assert any(f"{one.n_preemptions} preemption" in text for text in words)
    assert any(text.startswith("capacity") for text in words)
    assert figure.layout.shapes[0].y0 == pytest.approx(one.capacity_bytes / unit)


def test_a_capacity_far_above_is_named_and_does_not_flatten_the_picture() -> None:
    one = result(n_tokens=100_000)
    figure = over_time_figure(serving_curve(one), DARK)
    assert figure.layout.shapes == ()
    assert any(note.text.startswith("↑ capacity") for note in figure.layout.annotations)
    assert any("no preemptions" in note.text for note in figure.layout.annotations)
    assert any("hardly any request waits" in note.text for note in figure.layout.annotations)


def test_without_steps_there_is_nothing_to_draw(results: list[KvResult]) -> None:
    bare = without_timeline(results[1])
    assert not len(bare.timeline)
    assert bare.waste == results[1].waste
    for curve in (None, serving_curve(bare)):
        assert "nothing is replayed" in over_time_figure(curve, LIGHT).layout.annotations[0].text
        assert over_time_words(curve) == "Nothing is replayed."
    assert "requests at once" in over_time_words(serving_curve(results[1]))
