"""Parts of the comparison: its numbers, its tables, the stack of a row, the legend of its colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dash import dcc, html
from dash.development.base_component import Component

from memscope.attribution.ledger import FREE_RELEASABLE
from memscope.compare.difference import UNALLOCATED, Change, Difference, Row
from memscope.device.device import Moment
from memscope.figures.compare import Step
from memscope.figures.flames.difference import (
    COLORS,
    DifferenceBoxes,
    Growth,
    box_growth,
    box_labels,
    place_of,
)
from memscope.figures.theme import Theme
from memscope.trace.schema import NONE_ID
from memscope.units import format_alike, format_bytes, format_count
from memscope.words.compare import (
    CHANGES,
    differing_facts,
    matched_words,
    owners_hint,
    place_hint,
    place_words,
    row_name,
    row_short,
    signed_bytes,
    trace_names,
)
from memscope.words.labels import NOT_MEASURED, row_label, sentence
from memscope_dashboard.components.grid import NUMBER
from memscope_dashboard.components.text import size, swatch, tile
from memscope_dashboard.query import Query

MAX_ROWS = 400
"""Rows of the table: the largest differences."""
_N_FRAMES = 40
_MAX_TABLE_BOXES = 150
_LEGEND = (
    Growth.NEW,
    Growth.MUCH_GROWN,
    Growth.GROWN,
    Growth.SLIGHTLY_GROWN,
    Growth.SAME,
    Growth.SLIGHTLY_SHRUNK,
    Growth.SHRUNK,
    Growth.MUCH_SHRUNK,
    Growth.GONE,
)
_SHORT = {
    Growth.MUCH_GROWN: "> 50 %",
    Growth.GROWN: "> 10 %",
    Growth.SLIGHTLY_GROWN: "grown",
    Growth.SLIGHTLY_SHRUNK: "shrunk",
    Growth.SHRUNK: "> 10 %",
    Growth.MUCH_SHRUNK: "> 50 %",
}


def signed(n_bytes: int | None) -> Component:
    """A difference with its exact bytes on hover, or "not measured"."""
    if n_bytes is None:
        return html.Span(NOT_MEASURED, className="not-measured")
    return html.Span(signed_bytes(n_bytes), title=f"{n_bytes:+,} bytes", className="num")


def moments_note(difference: Difference) -> list[Component]:
    """Where both moments lie, each with a link to it, and what weakens the comparison."""
    lines: list[Any] = []
    for label, moment, name in zip("AB", (difference.a, difference.b), trace_names(difference), strict=True):
        lines.append(html.Div([html.B(label), f" {name}, {place_words(moment)}"], className="compare-side"))
    hints = [hint for hint in (place_hint(difference), owners_hint(difference)) if hint]
    lines += [html.Div(f"{sentence(hint.partition(';')[0])}.") for hint in hints]
    return lines


def moment_link(trace_id: str, moment: Moment, words: str) -> Component:
    """A link to a moment on the canvas."""
    search = Query(trace_id, moment.device.index, moment.event).search()
    return dcc.Link(words, href=f"/canvas{search}", className="link small")


def tiles(difference: Difference) -> list[Component]:
    """The differences of the sums, each with both numbers, and what became of the rows."""
    a, b = difference.a, difference.b
    highest = a.device.peak_reserved().reserved_bytes, b.device.peak_reserved().reserved_bytes
    counts = [(change, len(difference.rows_of(change))) for change in CHANGES]
    changed = ", ".join(f"{format_count(n)} {change.value}" for change, n in counts if n)
    n_same = len(difference.rows_of(Change.SAME))
    return [
        _sum_tile("Allocated", a.allocated_bytes, b.allocated_bytes),
        _sum_tile("Reserved then", a.reserved_bytes, b.reserved_bytes),
        _sum_tile("Reserved at most", *highest),
        tile("Owners and lines", html.Span(changed or "nothing differs", className="tile-words"), f"{n_same} the same"),
    ]


def _sum_tile(label: str, a_bytes: int | None, b_bytes: int | None) -> Component:
    if a_bytes is None or b_bytes is None:
        return tile(label, signed(None), "the segments were not recorded")
    return tile(label, signed(b_bytes - a_bytes), " → ".join(format_alike(a_bytes, b_bytes)))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], numeric: Sequence[int], name: str = "") -> Component:
    """A plain table; columns of numbers stand at the right."""

    def classes(i: int) -> str:
        return "num" if i in numeric else ""

    top = html.Thead(html.Tr([html.Th(text, className=classes(i)) for i, text in enumerate(head)]))
    body = html.Tbody([html.Tr([html.Td(cell, className=classes(i)) for i, cell in enumerate(row)]) for row in rows])
    return html.Table([top, body], className=f"small-table {name}".strip())


def steps_table(ends: tuple[int, int], steps: Sequence[Step]) -> Component:
    """The waterfall as a table, whose differences sum to that of the last row."""
    rows = [
        (
            html.Span([*_step_swatch(step), step.label], title=step.whole),
            size(step.a_bytes),
            size(step.b_bytes),
            signed(step.delta_bytes),
            f"{step.delta_bytes:+,}",
        )
        for step in steps
    ]
    total = [html.B(cell) for cell in (size(ends[0]), size(ends[1]), signed(ends[1] - ends[0]))]
    rows.append((html.B("all, with what is the same"), *total, html.B(f"{ends[1] - ends[0]:+,}")))
    return table(("", "A", "B", "difference", "bytes"), rows, (1, 2, 3, 4), "compare-boxes")


def _step_swatch(step: Step) -> list[Component]:
    if not step.category:
        return []
    return [swatch(FREE_RELEASABLE if step.category == UNALLOCATED else step.category)]


def row_columns(name: str) -> list[dict[str, Any]]:
    """Columns of the table of rows, whose names are headed so."""

    def sized(field: str, heading: str, width: int) -> dict[str, Any]:
        text = {"function": f"params.data.{field}_text"}
        tip = {"tooltipField": f"{field}_exact"}
        return {"field": field, "headerName": heading, "width": width, "valueFormatter": text, **NUMBER, **tip}

    swatch_rule = {f"row-{category}": f"params.data.category === '{category}'" for category in _CATEGORIES}
    return [
        {**sized("delta", "difference", 104), "sort": None},
        {"field": "change", "headerName": "change", "width": 80},
        sized("a", "A", 96),
        sized("b", "B", 96),
        {
            "field": "category_text",
            "headerName": "category",
            "width": 146,
            "cellClass": "cat-cell",
            "cellClassRules": swatch_rule,
        },
        {"field": "name", "headerName": name, "flex": 1, "minWidth": 160, "tooltipField": "whole"},
        {"field": "count", "headerName": "allocations", "width": 100, **NUMBER, "sortable": False},
    ]


_CATEGORIES = (
    "weights",
    "gradients",
    "optimizer_state",
    "activations",
    "kv_cache",
    "inputs",
    "temporaries",
    "workspace",
    "communication",
    "unknown",
)


def changed_rows(difference: Difference, show: str) -> list[tuple[int, Row]]:
    """The rows that changed, or of one change only, with their places in the difference."""
    return [
        (i, row)
        for i, row in enumerate(difference.rows)
        if row.delta_bytes and not row.is_rounding and show in ("all", row.change.value)
    ]


def grid_rows(rows: Sequence[tuple[int, Row]]) -> list[dict[str, Any]]:
    """Rows for the grid, the largest difference first."""
    return [
        {
            "row": str(i),
            "delta": row.delta_bytes,
            "delta_text": signed_bytes(row.delta_bytes),
            "delta_exact": f"{row.delta_bytes:+,} bytes",
            "change": row.change.value,
            "a": row.a_bytes,
            "a_text": format_bytes(row.a_bytes),
            "a_exact": f"{row.a_bytes:,} bytes",
            "b": row.b_bytes,
            "b_text": format_bytes(row.b_bytes),
            "b_exact": f"{row.b_bytes:,} bytes",
            "category": row.category,
            "category_text": row_label(row.category),
            "name": row_short(row),
            "whole": row_name(row),
            "count": f"{row.n_a:,} → {row.n_b:,}",
        }
        for i, row in rows[:MAX_ROWS]
    ]


def rows_note(difference: Difference, n_shown: int, n_all: int) -> str:
    """How many rows are shown, and how allocations were matched."""
    left = f"The {format_count(n_shown)} largest of {format_count(n_all)}. " if n_all > n_shown else ""
    return f"{left}{sentence(matched_words(difference))}. Choose a row for its stack."


def row_panel(difference: Difference, row: Row) -> list[Component]:
    """What a row is, and the stacks that made most of it: one where both moments have the same."""
    a, b = (
        _frames(moment, stack_id)
        for moment, stack_id in ((difference.a, row.a_stack_id), (difference.b, row.b_stack_id))
    )
    sizes = f"{format_bytes(row.a_bytes)} in {row.n_a:,} → {format_bytes(row.b_bytes)} in {row.n_b:,} allocations"
    words = [
        html.Span([swatch(row.category), html.B(row_name(row))]),
        html.Span([signed(row.delta_bytes), f" ({row.delta_bytes:+,} bytes): {row.change.value}"]),
        html.Span(sizes),
    ]
    if a is not None and a == b:
        stacks = [_stack("Stack of most of it, at both moments", a)]
    else:
        stacks = [_stack(f"Stack of most of it in {label}", of) for label, of in (("A", a), ("B", b)) if of is not None]
    none = html.P("No stack was recorded for it.", className="quiet small")
    return [html.Div(words, className="compare-row-words"), html.Div(stacks or [none], className="compare-stacks")]


class _Frames(NamedTuple):
    """Function and place of each frame of a stack, innermost first, and how many lie below the user's own line."""

    frames: tuple[tuple[str, str], ...]
    n_inner: int


def _frames(moment: Moment, stack_id: int) -> _Frames | None:
    """The frames of a stack; None where none was recorded."""
    if stack_id == NONE_ID:
        return None
    trace, own = moment.device.trace, int(moment.device.recording.sites.frame_of_stack[stack_id])
    frames = [frame.as_shown() for frame in trace.stack(stack_id)]
    ids = trace.stacks.frames_of(stack_id).tolist()
    return _Frames(
        tuple((frame.name, f"{frame.filename}:{frame.line}") for frame in frames), ids.index(own) if own in ids else 0
    )


def _stack(title: str, found: _Frames) -> Component:
    """A stack from the user's own line outwards; what that called is folded up."""
    inner, outer = found.frames[: found.n_inner], found.frames[found.n_inner :]
    lines: list[Component] = [_frame(frame, is_own=not i) for i, frame in enumerate(outer[:_N_FRAMES])]
    if len(outer) > _N_FRAMES:
        lines.append(html.P(f"and {format_count(len(outer) - _N_FRAMES)} more frames", className="quiet small"))
    head = html.H3([title, html.Span(f"{len(found.frames)} frames, innermost first", className="quiet")])
    folded = [
        html.Details(
            [
                html.Summary(f"{format_count(len(inner))} inside it"),
                html.Div([_frame(frame) for frame in inner[-_N_FRAMES:]], className="stack", tabIndex=0),
            ]
        )
    ]
    return html.Div([head, *(folded if inner else []), html.Div(lines, className="stack", tabIndex=0)])


def _frame(frame: tuple[str, str], *, is_own: bool = False) -> Component:
    name, place = frame
    parts = [html.Span(name, className="frame-name"), html.Span(place, className="frame-file")]
    return html.Div(parts, className="frame own" if is_own else "frame")


def growth_legend(theme: Theme, present: set[Growth]) -> list[Component]:
    """Which colour is which change, of those that are drawn."""
    colors = COLORS[theme.name]
    chips = []
    for kind in _LEGEND:
        if kind not in present:
            continue
        name = "swatch growth-gone" if kind is Growth.GONE else "swatch"
        color = html.Span(className=name, style={"--growth": colors[kind]})
        chips.append(
            html.Span(
                [color, html.Span(_legend_words(kind), className="chip-name")], className="chip", title=kind.value
            )
        )
    return chips


def _legend_words(kind: Growth) -> str:
    if kind in (Growth.MUCH_GROWN, Growth.GROWN):
        return f"grown {_SHORT[kind]}"
    if kind in (Growth.MUCH_SHRUNK, Growth.SHRUNK):
        return f"shrunk {_SHORT[kind]}"
    if kind in _SHORT:
        return f"{_SHORT[kind]} ≤ 10 %"
    return "gone, as wide as in A" if kind is Growth.GONE else kind.value


def boxes_table(compared: tuple[Moment, Moment], tree: Any, boxes: DifferenceBoxes) -> Component:
    """The flame graph as a table: a name is a button that leads to its box."""
    a, b = compared
    names = box_labels(a, b, tree, boxes)
    children: dict[int, list[int]] = {}
    for box, above in enumerate(boxes.parent.tolist()):
        children.setdefault(above, []).append(box)
    order: list[int] = []
    stack = [0]
    while stack:
        box = stack.pop()
        order.append(box)
        stack += children.get(box, [])[::-1]
    rows = []
    for box in order[:_MAX_TABLE_BOXES]:
        node, a_bytes, b_bytes = int(boxes.node[box]), int(boxes.a_bytes[box]), int(boxes.b_bytes[box])
        words: Any = names[box]
        if node != NONE_ID:
            place = place_of(a, b, tree, node)
            go = {"type": "compare-go", "node": node, "at": "table"}
            words = html.Button(names[box], id=go, className="link", type="button", title=place or None)
        indent = {"paddingLeft": f"{10 * int(boxes.level[box])}px"}
        growth = box_growth(tree, boxes, box).value
        rows.append((html.Span(words, style=indent), size(a_bytes), size(b_bytes), signed(b_bytes - a_bytes), growth))
    found = table(("", "A", "B", "difference", ""), rows, (1, 2, 3), "compare-boxes")
    if len(order) <= _MAX_TABLE_BOXES:
        return found
    more = f"The first {_MAX_TABLE_BOXES} of {format_count(len(order))} boxes: choose one to look closer."
    return html.Div([found, html.P(more, className="quiet small")])


def facts_table(difference: Difference) -> list[Component]:
    """What else is not the same in the two recordings; nothing where all is."""
    facts = differing_facts(difference)
    if not facts:
        return []
    return [html.H2("What else differs"), table(("", "A", "B"), facts, (), "settings-table")]
