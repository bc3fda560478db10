"""The page that reports stand in: it loads nothing, and no text of a trace is markup in it."""

from __future__ import annotations

import re
from pathlib import Path

import plotly.graph_objects as go
import pytest

from memscope.errors import UsageError
from memscope.figures.theme import THEMES
from memscope.reports._html_page import in_themes, page, picture, write_page


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
