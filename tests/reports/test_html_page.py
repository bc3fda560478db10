"""The page of the HTML report, its style and script, and its parts. Every text from a trace is escaped here."""

from __future__ import annotations

import re
from pathlib import Path

import plotly.graph_objects as go
import pytest

from memscope.analysis import Analysis
from memscope.errors import UsageError
from memscope.figures.theme import THEMES
from memscope.reports import html_page as parts
from memscope.reports.html_page import in_themes, page, picture, write_page
from memscope.units import GiB, format_count
from tests.replay.comparisons import FAILED, OTHER, comparison_of, result_of
from tests.sampled_trace import FULL, sampled_trace
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


def test_a_size_has_its_bytes_on_hover_or_is_not_measured() -> None:
    assert parts.size(1536) == '<span title="1,536 bytes">1.5 KiB</span>'
    assert parts.size(None) == '<span class="missing">not measured</span>'


def test_a_tables_headings_are_text_and_its_cells_markup() -> None:
    assert parts.table(("<a>", "size"), [("<b>x</b>", "1")], (1,)) == (
        '<table><thead><tr><th class="">&lt;a&gt;</th><th class="num">size</th></tr></thead>'
        '<tbody><tr><td class=""><b>x</b></td><td class="num">1</td></tr></tbody></table>'
    )


def test_tables_of_a_moment_have_its_numbers_and_no_markup_of_its_names(analysis: Analysis) -> None:
    peak = analysis.peak(0)
    ledger = parts.ledger_table(peak.ledger)
    assert f"<b>{format_count(peak.ledger.total_bytes)}</b>" in ledger
    holders = parts.allocations_table(peak, 40) + parts.sites_table(peak, 40) + parts.pins_table(peak, 5)
    assert "&lt;script&gt;alert(1)" in holders
    assert "<script>" not in holders
    assert parts.pins_table(analysis.at(-1, 0), 5) == (
        '<p class="quiet">No live block keeps free memory from going back.</p>'
    )


def test_rows_of_the_devices_count_that_nothing_measured_are_named() -> None:
    sample = {**FULL, "event": 4, "ms": 250, "process_used_bytes": -1, "others_used_bytes": -1}
    count = Analysis(sampled_trace(sample)).peak(0).ledger.driver_usage
    assert count is not None
    content = parts.driver_usage_table(count)
    assert content.count("not measured") == 2
    assert f"<b>{format_count(900 << 20)}</b>" in content


def test_a_replay_that_failed_says_so_beside_its_numbers() -> None:
    content = parts.replay_table(comparison_of(10 * GiB, result_of(OTHER, 8 * GiB, oom=FAILED)))
    assert "out of memory at event 7, asking for 2.0 GiB" in content
    assert "−20.0 %" in content


def test_a_title_is_text_and_the_body_stays_markup() -> None:
    content = page("<b>run</b>", "<p id=mine>x</p>")
    assert "<title>&lt;b&gt;run&lt;/b&gt;</title>" in content
    assert "<main><p id=mine>x</p></main>" in content
    assert not re.search(r"<(?:script|link|img)[^>]* (?:src|href)=", content)
    for name, theme in THEMES.items():
        assert f':root[data-scheme="{name}"]{{--ink:{theme.ink};' in content


def test_a_figure_cannot_end_the_script_that_it_stands_in() -> None:
    hostile = "</script><script>alert(1)</script>"
    figures = in_themes(lambda theme: go.Figure(layout={"title": {"text": hostile + theme.name}}))
    content = picture("one", figures, 'a "picture"')
    assert re.findall(r'id="([\w-]+)"', content) == ["one", "one-light", "one-dark"]
    assert content.count("</script>") == 2
    assert "alert(1)" in content
    assert 'aria-label="a &quot;picture&quot;"' in content


def test_a_page_is_written_whole_and_not_over_another(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert write_page("a lone surrogate \ud800", path).read_text() == "a lone surrogate \\ud800"
    with pytest.raises(UsageError, match="exists already"):
        write_page("x", path)
    assert write_page("x", path, overwrite=True).read_text() == "x"


def test_paper_is_white_whatever_the_screen_shows() -> None:
    content = page("run", "")
    (printed,) = re.findall(r"@media print\{:root\[data-scheme\]\{(.*?)\}\}", content)
    assert "--page:#ffffff;" in printed
    assert f"--ink:{THEMES['light'].ink};" in printed
    assert content.index("@media print{:root") > content.index(':root[data-scheme="dark"]')


def test_a_headline_keeps_numbers_whole_and_is_text() -> None:
    assert parts.headline("<b> 1.5 GiB, 12.0 % of it", "a & b", is_bad=True) == (
        '<h2 class=bad>&lt;b&gt; 1.5\u00a0GiB, 12.0\u00a0% of it</h2><p class="quiet">a &amp; b</p>'
    )
