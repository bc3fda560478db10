"""The overview: the numbers of the library, and what was not measured."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest
from dash.exceptions import PreventUpdate
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import overview

from memscope.analysis import Analysis
from memscope.units import format_bytes
from tests.attribution.scripted import with_old_workspace
from tests.dashboard.pages import moment_data, text_of


def test_overview_shows_the_ledger_of_the_library(store: TraceStore) -> None:
    data = moment_data(store)
    title, _, tiles, figure, ledger, *_ = overview.update(store, data, "light")
    moment = Query.from_data(data).moment(store)
    assert f"Peak {format_bytes(moment.allocated_bytes)} allocated at" in text_of(title)
    words = text_of(ledger)
    for row in moment.ledger.rows:
        if row.bytes:
            assert format_bytes(row.bytes) in words
    assert isinstance(figure, go.Figure)
    assert format_bytes(64 * 2**20) in text_of(tiles)
    assert text_of(tiles).count("%") == text_of(tiles).count("% of reserved") == 1


def test_overview_says_not_measured(store: TraceStore) -> None:
    tiles = overview.update(store, moment_data(store, "other.memscope"), "light")[2]
    assert "not measured" in text_of(tiles)


def test_views_wait_for_the_scheme(store: TraceStore) -> None:
    with pytest.raises(PreventUpdate):
        overview.update(store, moment_data(store), None)


def test_the_coverage_says_what_is_inferred_and_how_sure_that_is() -> None:
    words = text_of(overview.coverage(Analysis(with_old_workspace()).peak()))
    assert "workspace 8.1 MiB inferred, 99 % sure: cuBLAS asks for exactly 8,519,680 bytes" in words
