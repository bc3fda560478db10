"""The KV-cache view: the open trace and the simulation as parts of one page."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, html
from memscope_dashboard.app import create_app
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import kv as whole


def test_the_page_has_both_parts(serving: TraceStore) -> None:
    app = create_app(serving)
    names = [name for name in app.callback_map if "kvlens" in name]
    assert len(names) >= 4


def test_a_switch_stands_above_several_parts_only(board_store: TraceStore) -> None:
    def part(name: str) -> whole.Part:
        return whole.Part(name, name.title(), lambda: html.Div(id=f"inside-{name}"), lambda app, store: None)

    def switches(layout: Any) -> list[Any]:
        return [one for one in layout._traverse() if isinstance(one, dmc.SegmentedControl)]

    assert switches(whole.layout_of([part("one")])) == []
    two = [part("one"), part("two")]
    (switch,) = switches(whole.layout_of(two))
    assert [item["label"] for item in switch.data] == ["One", "Two"]
    app = Dash(__name__)
    whole.register_parts(app, board_store, two)
    assert len(app.callback_map) == 1
