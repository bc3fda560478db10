"""Tables that sort and scroll: one look for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dash_ag_grid as dag
from dash.development.base_component import Component

_GRID_THEME = (
    "themeQuartz.withParams({backgroundColor: 'var(--ms-surface)', foregroundColor: 'var(--ms-ink)', "
    "borderColor: 'var(--ms-line)', headerBackgroundColor: 'var(--ms-surface)', headerTextColor: 'var(--ms-muted)', "
    "rowHoverColor: 'var(--ms-hover)', selectedRowBackgroundColor: 'var(--ms-selected)', accentColor: 'var(--ms-ink)', "
    "oddRowBackgroundColor: 'var(--ms-surface)', fontFamily: 'inherit', fontSize: 13, headerFontSize: 12, "
    "headerFontWeight: 500, rowHeight: 32, headerHeight: 34, wrapperBorder: false, wrapperBorderRadius: 0, "
    "columnBorder: false, spacing: 6})"
)

NUMBER: dict[str, Any] = {
    "type": "rightAligned",
    "cellClass": ["num", "ag-right-aligned-cell"],
    "sortingOrder": ["desc", "asc"],
}
"""Settings of a column of numbers."""


def grid_options(nothing: str, **options: Any) -> dict[str, Any]:
    """The grid's own settings; ``nothing`` is what stands there when there are no rows."""
    return {
        "theme": {"function": _GRID_THEME},
        "animateRows": False,
        "tooltipShowDelay": 400,
        "suppressCellFocus": True,
        "localeText": {"noRowsToShow": nothing},
        **options,
    }


def data_grid(
    id_: str,
    columns: Sequence[dict[str, Any]],
    nothing: str,
    *,
    row_model: Literal["clientSide", "infinite"] = "clientSide",
    **options: Any,
) -> Component:
    """A table that fills its panel, without rows; each row's ``row`` is its id.

    Parameters
    ----------
    nothing
        What stands there when there are no rows.
    row_model
        Whether the browser holds all rows, or asks the server for those in sight.
    options
        More of the grid's own settings.
    """
    return dag.AgGrid(
        id=id_,
        columnDefs=list(columns),
        **({"rowData": []} if row_model == "clientSide" else {}),
        rowModelType=row_model,
        getRowId="params.data.row",
        dashGridOptions=grid_options(nothing, **options),
        defaultColDef={"sortable": True, "resizable": True, "suppressHeaderMenuButton": True},
        className="data-grid",
        style={"height": None, "width": None},
    )
