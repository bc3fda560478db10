"""Before and after: no peak is lost, the curves are named at their peaks, a card's memory is drawn where it is near."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.figures.theme import DARK, LIGHT
from memscope.figures.whatif import DrawnCourse, before_after_figure, before_after_words, reduced_course
from memscope.techniques.course import Course
from memscope.units import GiB, MiB


def course(values: list[int], reserved: list[int] | None = None) -> Course:
    allocated = np.array(values, np.int64)
    at = np.arange(len(values), dtype=np.float64)
    return Course(at, allocated, allocated + MiB if reserved is None else np.array(reserved, np.int64))


def drawn(*values: int) -> DrawnCourse:
    return reduced_course(course(list(values)))


def test_a_long_course_keeps_its_peaks_and_its_end() -> None:
    rng = np.random.default_rng(5)
    whole = course(rng.integers(0, GiB, 100_000).tolist(), rng.integers(0, GiB, 100_000).tolist())
    found = reduced_course(whole)
    assert len(found.at) < 5_000
    assert found.allocated_bytes.max() == whole.allocated_bytes.max()
    assert found.reserved_bytes.max() == whole.reserved_bytes.max()
    assert found.at[-1] == whole.at[-1]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("measure", ["reserved", "allocated"])
def test_both_are_drawn_and_named_at_their_peaks(theme: object, measure: str) -> None:
    before, after = drawn(0, 8 * MiB, 4 * MiB), drawn(0, 2 * MiB, 3 * MiB)
    figure = before_after_figure(before, after, theme, measure)  # type: ignore[arg-type]
    more = MiB if measure == "reserved" else 0
    assert [curve.name for curve in figure.data] == ["before", "after"]
    assert figure.data[0].customdata[1].endswith(f"{8 * MiB + more:,} bytes")
    texts = [note.text for note in figure.layout.annotations]
    assert texts == [f"<b>before</b> {8 + more // MiB}.0 MiB", f"<b>after</b> {3 + more // MiB}.0 MiB"]
    words = before_after_words(before, after, measure)  # type: ignore[arg-type]
    assert words.startswith(f"{measure.capitalize()} memory over the run, at most {8 + more // MiB}.0 MiB before")


def test_a_cards_memory_is_a_line_where_it_is_near_and_a_word_where_it_is_not() -> None:
    before, after = drawn(0, 8 * MiB), drawn(0, 4 * MiB)
    near = before_after_figure(before, after, LIGHT, "reserved", 10 * MiB)
    assert len(near.layout.shapes) == 1
    assert "capacity 10.0 MiB" in [note.text for note in near.layout.annotations]
    far = before_after_figure(before, after, LIGHT, "reserved", GiB)
    assert len(far.layout.shapes) == 0
    assert "↑ capacity 1.0 GiB, above" in [note.text for note in far.layout.annotations]


def test_names_of_peaks_that_lie_close_stand_on_both_sides() -> None:
    figure = before_after_figure(drawn(0, 80 * MiB), drawn(0, 78 * MiB), LIGHT, "allocated")
    assert [note.yanchor for note in figure.layout.annotations] == ["bottom", "top"]


def test_a_run_without_events_is_drawn() -> None:
    assert len(before_after_figure(drawn(0), drawn(0), LIGHT, "reserved").data) == 2
