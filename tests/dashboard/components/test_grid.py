"""Tables that sort and scroll: who holds the rows, and what stands there without any."""

from __future__ import annotations

from memscope_dashboard.components.grid import NUMBER, data_grid

COLUMNS = [{"field": "name"}, {"field": "size", **NUMBER}]


def test_the_browser_holds_the_rows_unless_the_server_is_asked_for_them() -> None:
    whole, asked = data_grid("a", COLUMNS, "nothing"), data_grid("b", COLUMNS, "nothing", row_model="infinite")
    assert (whole.rowModelType, whole.rowData) == ("clientSide", [])
    assert asked.rowModelType == "infinite"
    assert "rowData" not in asked.to_plotly_json()["props"]


def test_more_settings_are_added_to_those_of_every_table() -> None:
    options = data_grid("a", COLUMNS, "no pins", rowHeight=20).dashGridOptions
    assert options["localeText"] == {"noRowsToShow": "no pins"}
    assert options["rowHeight"] == 20
    assert options["animateRows"] is False


def test_numbers_fall_first_when_they_are_sorted() -> None:
    assert NUMBER["sortingOrder"][0] == "desc"
