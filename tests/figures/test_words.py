"""Words, colours and the ledger's lines."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.attribution.ledger import ROW_MEANINGS
from memscope.errors import UsageError
from memscope.figures.ledger import empty_rows, ledger_figure, ledger_lines
from memscope.figures.theme import DARK, LIGHT, THEMES, theme_named
from memscope.trace.categories import Category
from memscope.trace.trace import Frame
from memscope.units import format_bytes
from memscope.words.headlines import allocations_finding, ledger_finding, map_finding, timeline_finding
from memscope.words.labels import plain, short_place, split_site
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


def luminance(color: str) -> float:
    parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_every_ledger_row_has_a_colour_and_readable_ink(theme: object) -> None:
    assert theme in (LIGHT, DARK)
    for name in [*(category.label for category in Category), *ROW_MEANINGS]:
        color = theme.color(name)  # type: ignore[attr-defined]
        assert contrast(theme.ink_on(name), color) >= 4.5, name  # type: ignore[attr-defined]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_reads_well_on_the_surface(theme: object) -> None:
    for ink in (theme.ink, theme.muted, theme.red, theme.amber):  # type: ignore[attr-defined]
        assert contrast(ink, theme.surface) >= 4.5  # type: ignore[attr-defined]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="'pink'"):
        theme_named("pink")


def test_ledger_lines_are_the_rows_with_bytes_and_unknown(analysis: Analysis) -> None:
    ledger = analysis.peak(0).ledger
    lines = ledger_lines(ledger)
    assert sum(line.bytes for line in lines) == ledger.total_bytes
    assert "unknown" in [line.name for line in lines]
    assert len(lines) + len(empty_rows(ledger)) == len(ledger.rows)
    assert sum(line.share_frac for line in lines) == pytest.approx(1)


def test_ledger_bar_holds_the_rows_bytes(analysis: Analysis) -> None:
    ledger = analysis.peak(0).ledger
    figure = ledger_figure(ledger, LIGHT)
    assert sum(int(bar.x[0]) for bar in figure.data) == ledger.total_bytes


def test_findings_say_the_numbers_that_the_library_has(analysis: Analysis) -> None:
    peak = analysis.peak(0)
    assert ledger_finding(peak).startswith(f"Peak {format_bytes(peak.allocated_bytes)} at step ")
    assert "% of the peak" in ledger_finding(analysis.at(10, 0))
    assert format_bytes(peak.allocated_bytes) in timeline_finding(analysis.device(0))
    assert "out of memory 1 time" in timeline_finding(analysis.device(0))
    assert "reserved" in map_finding(peak)
    assert allocations_finding(peak).startswith(f"{len(peak.rows):,} allocations hold")
    assert "before" not in ledger_finding(analysis.at(-1, 0))


def test_texts_are_escaped_and_cut_in_their_middle() -> None:
    assert plain("a<b>&\n") == "a&lt;b&gt;&amp; "
    assert plain("x" * 50 + "end", 12).endswith("xend")
    assert len(plain("y" * 50, 12)) == 12


@pytest.mark.parametrize(
    "frame", [Frame("f", "/a b/c.py", 3), Frame("lambda x: 1", r"C:\x\y.py", 12), Frame("g", "??", 0)]
)
def test_a_site_is_split_into_function_and_place(frame: Frame) -> None:
    assert split_site(str(frame)) == (frame.name, f"{frame.filename}:{frame.line}")


def test_a_text_that_is_no_site_is_kept_whole() -> None:
    assert split_site("not recorded") == ("not recorded", "")
    assert short_place("/a/b/c.py:3") == "b/c.py:3"
