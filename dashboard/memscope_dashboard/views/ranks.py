"""Ranks: the open traces side by side; choosing a rank opens it at the same step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.analysis import Analysis
from memscope.errors import MemscopeError
from memscope.figures.ranks import MEASURES, rank_labels, ranks_figure, row_names, step_table, steps_figure
from memscope.figures.theme import theme_named
from memscope.ranks.compare import compare_ranks
from memscope.ranks.comparison import AlignedStep, Difference, RankComparison
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count
from memscope.words.labels import row_label, sentence, short_place, split_site
from memscope.words.ranks import (
    change_words,
    numbering_words,
    ranks_finding,
    same_settings_words,
    setting_label,
    setting_words,
)
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.categories import category_legend
from memscope_dashboard.components.grid import NUMBER, data_grid
from memscope_dashboard.components.text import finding, picture, section, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

_HOW = "Each bar is a {noun}'s peak: allocated bytes (bold) by category, outlined by the highest reserved. "
_CLICK = "Click a bar or a step to open that {noun} there."
_ALONE = (
    "Open the traces of several ranks together, and they stand side by side here, step by step:",
    "memscope dash run-rank0.memscope run-rank1.memscope",
    "Under torchrun, memscope run gives each rank a trace of its own, with the rank in its name.",
)
_KINDS = {"category": "category", "rounding": "rounding", "owner": "owner", "site": "line of code", "none": "—"}
_MIN_ROW_PX = 22
_N_HOLDERS = 500


@dataclass(frozen=True, slots=True)
class OpenRanks:
    """A comparison of the open traces, without the traces themselves: they are not kept in memory for it.

    Attributes
    ----------
    comparison
        None where fewer than two devices could be read.
    trace_ids
        Of the comparison's traces, by the position that its rows name.
    problems
        Why a trace is left out, by its id.
    """

    comparison: RankComparison | None
    trace_ids: tuple[str, ...]
    problems: dict[str, str]

    def row_of(self, query: Query) -> int | None:
        """The row that is looked at, None where it is not among them."""
        if self.comparison is None:
            return None
        rows = enumerate(self.comparison.rows)
        sought = (query.trace_id, query.device)
        return next((i for i, row in rows if (self.trace_ids[row.position], row.device) == sought), None)

    def jump(self, row: int, event: int) -> dict[str, Any]:
        """What leads to a moment of a row, for the browser's store of jumps."""
        assert self.comparison is not None
        chosen = self.comparison.rows[row]
        return {"trace": self.trace_ids[chosen.position], "device": chosen.device, "event": event}

    def same_step(self, query: Query, row: int) -> int:
        """The event at which a row holds most in the step that is looked at; its peak where it has no such step."""
        assert self.comparison is not None
        now = self.row_of(query)
        peak = self.comparison.rows[row].peak.event
        if now is None or query.event is None:
            return peak
        step = next((step for step in self.comparison.steps if _is_in(step, now, query.event)), None)
        use = None if step is None else step.uses[row]
        return peak if use is None else use.allocated_event


def _is_in(step: AlignedStep, row: int, event: int) -> bool:
    use = step.uses[row]
    return use is not None and use.holds(event)


def open_ranks(store: TraceStore) -> OpenRanks:
    """Compare all traces of a store; one that cannot be opened is left out and named.

    Raises
    ------
    UsageError
        If two traces claim the same rank and device.
    """
    return store.remembered_for_all("ranks", lambda: _compare(store))


def _compare(store: TraceStore) -> OpenRanks:
    opened = {trace_id: _opened(store, trace_id) for trace_id in store.trace_ids}
    analyses = {trace_id: found for trace_id, found in opened.items() if isinstance(found, Analysis)}
    problems = {trace_id: str(found) for trace_id, found in opened.items() if isinstance(found, MemscopeError)}
    if sum(len(analysis.trace.devices) for analysis in analyses.values()) < 2:
        return OpenRanks(None, tuple(analyses), problems)
    comparison = replace(compare_ranks(list(analyses.values())), analyses=())
    return OpenRanks(comparison, tuple(analyses), problems)


def _opened(store: TraceStore, trace_id: str) -> Analysis | MemscopeError:
    try:
        return store.analysis(trace_id)
    except MemscopeError as error:
        return error


def _columns(highest: str, lowest: str) -> list[dict[str, Any]]:
    def sized(field: str, heading: str, width: int) -> dict[str, Any]:
        text = {"function": f"params.data.{field}_text"}
        return {"field": field, "headerName": heading, "width": width, "valueFormatter": text, **NUMBER}

    return [
        {"field": "name", "headerName": "what", "flex": 1, "minWidth": 180, "tooltipField": "whole"},
        {"field": "kind", "headerName": "told by", "width": 112},
        sized("highest", highest, 116),
        sized("lowest", lowest, 116),
        {**sized("difference", "difference", 124), "tooltipField": "exact"},
    ]


def layout() -> Component:
    """Components and ids only."""
    measure = dmc.SegmentedControl(id="ranks-measure", data=list(MEASURES), value=MEASURES[0], size="xs")
    grid = data_grid("ranks-grid", _columns("highest", "lowest"), "Nothing differs between the two")
    panels = [
        section("Peak of each", html.Div(id="ranks-legend", className="chips"), picture("ranks-graph")),
        html.Section(
            [
                html.Div([html.H2("Highest in each step", id="ranks-steps-title"), measure], className="panel-head"),
                picture("ranks-steps"),
            ],
            className="panel",
        ),
        html.Section(
            [
                html.H2(id="ranks-differences-title"),
                html.Div(grid, className="grid-box"),
                html.Div(id="ranks-settings"),
            ],
            className="panel",
        ),
    ]
    return view_frame(
        "ranks",
        view_heading("ranks-title", "ranks-note"),
        html.Div(id="ranks-alone"),
        html.Div(panels, id="ranks-panels", className="panel-stack"),
    )


def left_out(ranks: OpenRanks) -> list[Component]:
    """The traces that could not be compared, and why."""
    return [html.Div(text, className="warn", title=trace_id) for trace_id, text in ranks.problems.items()]


def difference_rows(comparison: RankComparison) -> list[dict[str, Any]]:
    """Rows for the grid: categories and rounding first, then owners and lines of code, the largest difference first."""
    found = comparison.differences
    if found is None:
        return []
    differences = [d for d in found.categories if d.difference_bytes] + list(found.holders[:_N_HOLDERS])
    return [_difference_row(str(i), difference) for i, difference in enumerate(differences)]


def _difference_row(row: str, difference: Difference) -> dict[str, Any]:
    name = difference.name
    if difference.kind in ("category", "rounding"):
        name = row_label(name)
    elif difference.kind == "site":
        function, place = split_site(name)
        name = f"{function} · {short_place(place)}" if place else function
    return {
        "row": row,
        "name": name,
        "whole": difference.name,
        "kind": _KINDS[difference.kind],
        "highest": difference.highest_bytes,
        "highest_text": format_bytes(difference.highest_bytes),
        "lowest": difference.lowest_bytes,
        "lowest_text": format_bytes(difference.lowest_bytes),
        "difference": difference.difference_bytes,
        "difference_text": change_words(difference.difference_bytes),
        "exact": f"{difference.difference_bytes:+,} bytes",
    }


def differences_title(comparison: RankComparison) -> str:
    """Which two ranks are set against each other, where, and by how much they differ."""
    found = comparison.differences
    if found is None:
        return "What differs"
    highest, lowest = comparison.rows[found.highest].label, comparison.rows[found.lowest].label
    when = f"in {found.step.title}" if found.step is not None else "each at its own peak: no step is common to them"
    if not found.difference_bytes:
        return f"{highest} and {lowest} hold equally much {when}"
    return f"What {highest} holds beyond {lowest} {when}: {change_words(found.difference_bytes)}"


def settings(comparison: RankComparison) -> Component:
    """Settings and facts of the recordings that are not the same on all ranks."""
    if not comparison.settings_that_differ:
        return html.P(f"{sentence(same_settings_words(comparison))}.", className="quiet small")
    rows = []
    for setting in comparison.settings_that_differ:
        values = "; ".join(f"{value} ({who})" for value, who in setting_words(comparison, setting).items())
        rows.append(html.Tr([html.Td(setting_label(setting.name)), html.Td(values)]))
    head = html.Tr([html.Th("differs"), html.Th("value (who has it)")])
    return html.Table([html.Thead(head), html.Tbody(rows)], className="small-table settings-table")


def steps_title(comparison: RankComparison, measure: str) -> str:
    """What the table of colours shows, and how many steps stand in a column."""
    n_steps, table = len(comparison.steps), step_table(comparison, measure)
    if not n_steps:
        return "Steps"
    blank = "; blank: not recorded" if bool((table.highest_bytes < 0).any()) else ""
    each = table.columns[0][1] - table.columns[0][0]
    width = f", {format_count(each)} steps in a column" if each > 1 else ""
    return f"Highest {measure} in each of {format_count(n_steps)} steps{width}{blank}"


def alone() -> list[Component]:
    """What stands there while there is nothing to compare: how to open several traces."""
    how, command, where = _ALONE
    return [section("One trace only", html.P(how), html.Pre(command, className="command"), html.P(where))]


def update(store: TraceStore, subject: dict[str, Any] | None, scheme: str | None, measure: str | None) -> list[Any]:
    """Every output of the view for the rank that is looked at."""
    if subject is None or scheme is None:
        raise PreventUpdate
    query = Query.from_data(subject)
    if query.trace_id not in store.trace_ids:
        query.analysis(store)  # says that there is no such trace
    ranks, measure = open_ranks(store), measure or MEASURES[0]
    comparison = ranks.comparison
    if comparison is None:
        title = "One trace is open: there is nothing to set it against"
        return [title, left_out(ranks), alone(), "hidden", *[no_update] * 8]
    theme = theme_named(scheme)
    found = comparison.differences
    names = ("highest", "lowest") if found is None else (found.highest, found.lowest)
    headings = [comparison.rows[i].label if isinstance(i, int) else i for i in names]
    notes = [
        html.Div((_HOW + _CLICK).format(noun=comparison.noun)),
        *[html.Div(sentence(text)) for text in numbering_words(comparison)],
        *left_out(ranks),
    ]
    height = max(120, 44 + _MIN_ROW_PX * len(comparison.rows))
    present = {name: None for row in comparison.rows for name, size in row.category_bytes.items() if size}
    return [
        finding(sentence(ranks_finding(comparison))),
        notes,
        None,
        "panel-stack",
        category_legend(present),
        ranks_figure(comparison, theme, chosen=ranks.row_of(query), height=280),
        steps_title(comparison, measure),
        steps_figure(comparison, theme, measure=measure, height=height),
        sentence(differences_title(comparison)),
        difference_rows(comparison),
        _columns(*headings),
        settings(comparison),
    ]


def clicked_rank(store: TraceStore, click: dict[str, Any] | None, data: dict[str, Any]) -> Any:
    """The rank whose bar was clicked, at the step that is looked at now."""
    ranks = open_ranks(store)
    if not click or not click.get("points") or ranks.comparison is None:
        return no_update
    labels = rank_labels(ranks.comparison)
    label = click["points"][0].get("x")
    if label not in labels:
        return no_update
    row = labels.index(label)
    return ranks.jump(row, ranks.same_step(Query.from_data(data), row))


def clicked_step(store: TraceStore, click: dict[str, Any] | None, measure: str | None) -> Any:
    """The rank and step whose cell was clicked, where the rank held most in it."""
    ranks, measure = open_ranks(store), measure or MEASURES[0]
    if not click or not click.get("points") or ranks.comparison is None:
        return no_update
    table = step_table(ranks.comparison, measure)
    rows = row_names(ranks.comparison)
    point = click["points"][0]
    if point.get("y") not in rows or point.get("x") not in table.titles:
        return no_update
    row = rows.index(point["y"])
    step = int(table.step[row, table.titles.index(point["x"])])
    use = None if step == NONE_ID else ranks.comparison.steps[step].uses[row]
    if use is None:
        return no_update
    event = use.allocated_event if measure == MEASURES[0] else use.reserved_event
    return no_update if event is None else ranks.jump(row, event)


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(*args: Any) -> list[Any]:
        return update(store, *args)

    def bar(click: dict[str, Any] | None, data: dict[str, Any]) -> Any:
        return clicked_rank(store, click, data)

    def cell(click: dict[str, Any] | None, measure: str | None) -> Any:
        return clicked_step(store, click, measure)

    outputs = [Output(f"ranks-{name}", "children") for name in ("title", "note", "alone")]
    outputs += [Output("ranks-panels", "className"), Output("ranks-legend", "children")]
    outputs += [Output("ranks-graph", "figure"), Output("ranks-steps-title", "children")]
    outputs += [Output("ranks-steps", "figure"), Output("ranks-differences-title", "children")]
    outputs += [Output("ranks-grid", "rowData"), Output("ranks-grid", "columnDefs")]
    outputs += [Output("ranks-settings", "children")]
    measure = Input("ranks-measure", "value")
    register_update(app, "ranks", answer, outputs, [Input("subject", "data"), Input("scheme", "data"), measure])
    jump = Output("jump", "data", allow_duplicate=True)
    clicked = Input("ranks-graph", "clickData")
    app.callback(jump, clicked, State("moment", "data"), prevent_initial_call=True)(bar)
    clicked = Input("ranks-steps", "clickData")
    app.callback(jump, clicked, State("ranks-measure", "value"), prevent_initial_call=True)(cell)


VIEW = View("ranks", "Ranks", layout, register)
