"""The address map: a click pins a block."""

from __future__ import annotations

from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import address_map

from tests.dashboard.pages import moment_data


def test_map_pins_the_block_that_was_clicked(store: TraceStore) -> None:
    data = moment_data(store)
    row = int(Query.from_data(data).moment(store).rows[0])
    pin = address_map.clicked_row({"points": [{"customdata": row}]}, data)
    assert pin == {"trace": "train.memscope", "device": 0, "row": row}
    plain = address_map.update(store, data, "dark", None)[3]
    pinned = address_map.update(store, data, "dark", pin)[3]
    assert len(pinned.layout.shapes) > len(plain.layout.shapes)


def test_free_memory_cannot_be_pinned(store: TraceStore) -> None:
    from dash import no_update

    assert address_map.clicked_row({"points": [{"customdata": -1}]}, moment_data(store)) is no_update
    assert address_map.clicked_row(None, moment_data(store)) is no_update
