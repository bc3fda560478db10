"""Pins as rows of a table: which live blocks keep how much free memory, and who holds them."""

from __future__ import annotations

from typing import Any

from memscope.device.device import Moment
from memscope.fragmentation.pins import Holder, Pin
from memscope.trace.categories import Category
from memscope.units import format_bytes, format_count, format_duration
from memscope.words.labels import row_label, short_place, split_site
from memscope_dashboard.components.grid import NUMBER

MAX_PINS = 200
NO_PINS = "No live block keeps free memory from going back"
_TEXT_LIMIT = 160
_RULES = {f"cat-cell row-{category.label}": f"params.value === '{category.label}'" for category in Category}


def _bytes_column(field: str, name: str, tooltip: str, width: int = 94) -> dict[str, Any]:
    return {
        "field": field,
        "headerName": name,
        "headerTooltip": tooltip,
        "width": width,
        "tooltipField": f"{field}_exact",
        "valueFormatter": {"function": f"params.data.{field}_text"},
        **NUMBER,
    }


PIN_COLUMNS: list[dict[str, Any]] = [
    _bytes_column("held", "free, held", "Free bytes that would go back but for these blocks"),
    _bytes_column("returned", "gives back", "What freeing these blocks, and then emptying the cache, gives back"),
    _bytes_column("pinning", "live blocks", "How many blocks keep it, and their bytes", 116),
    {
        "field": "category",
        "headerName": "largest of them",
        "width": 130,
        "cellClassRules": _RULES,
        "valueFormatter": {"function": "params.data.label"},
    },
    {"field": "owner", "headerName": "owner", "flex": 3, "minWidth": 110, "tooltipField": "owner"},
    {"field": "site", "headerName": "allocated by", "flex": 3, "minWidth": 110, "tooltipField": "site_whole"},
    {
        "field": "age",
        "headerName": "age",
        "headerTooltip": "Events since it was allocated",
        "width": 78,
        "tooltipField": "age_exact",
        "valueFormatter": {"function": "params.data.age_text"},
        **NUMBER,
    },
    {"field": "step", "headerName": "step", "width": 62},
    _bytes_column("segment", "segment", "The segment that they lie in", 94),
]
"""Columns of the table; a row's id is read by :func:`allocation_of`."""


def pin_rows(moment: Moment, limit: int = MAX_PINS) -> tuple[list[dict[str, Any]], int]:
    """Rows for the grid, those that hold most free bytes first, and how many pins there are."""
    if not moment.lifetimes.segments_are_known:
        return [], 0
    pins = moment.pins(moment.fragmentation.overall.n_active_blocks + 1)
    return [_row(moment, position, pin) for position, pin in enumerate(pins[:limit])], len(pins)


def allocation_of(row_id: str) -> int:
    """The largest allocation of the pin in a row."""
    return int(row_id.rsplit("-", 1)[1])


def pin_note(moment: Moment, n_shown: int, n_all: int) -> str:
    """How to use the table, and what it leaves out."""
    if not moment.lifetimes.segments_are_known:
        return "Not measured: the segments were not recorded."
    if not n_shown:
        return "Emptying the cache would give back all free memory outside private pools."
    left = f"The {format_count(n_shown)} of {format_count(n_all)} that hold most. " if n_all > n_shown else ""
    return f"{left}Click a row to pin its largest block: the address map then outlines it."


def _row(moment: Moment, position: int, pin: Pin) -> dict[str, Any]:
    (holder,) = moment.holders(pin, 1)
    site = moment.device.site_of(holder.row)
    kind = "expandable segment" if pin.is_expandable else "segment"
    unknown = "" if pin.is_pool_known else "; its pool was not recorded: in a private one nothing goes back"
    return {
        "row": f"{position}-{holder.row}",
        **_size("held", pin.held_bytes),
        **_size("returned", pin.returned_bytes),
        **_live(pin),
        "category": holder.category.label,
        "label": row_label(holder.category.label),
        "owner": _shortened(holder.owner),
        "site": _short_site(site),
        "site_whole": site or "no stack recorded",
        **_age(holder),
        "step": holder.step or "—",
        **_size("segment", pin.segment_bytes),
        "segment_exact": f"{kind} at {pin.segment_address:#x}, {format_count(pin.segment_bytes)} bytes{unknown}",
    }


def _size(field: str, n_bytes: int) -> dict[str, Any]:
    return {field: n_bytes, f"{field}_text": format_bytes(n_bytes), f"{field}_exact": f"{format_count(n_bytes)} bytes"}


def _live(pin: Pin) -> dict[str, Any]:
    n = len(pin.allocation_ids)
    found = _size("pinning", pin.pinning_bytes)
    words = f"{format_count(n)} block{'s' if n > 1 else ''}, {found['pinning_exact']}"
    return found | {"pinning_text": f"{format_count(n)} · {found['pinning_text']}", "pinning_exact": words}


def _age(holder: Holder) -> dict[str, Any]:
    """What predates the events is older than all of them."""
    events = f"{'> ' if holder.alloc_event is None else ''}{format_count(holder.age_events)}"
    time = "" if holder.age_ns is None else f", {format_duration(holder.age_ns)}"
    return {"age": holder.age_events, "age_text": events, "age_exact": f"{events} events{time}"}


def _short_site(site: str | None) -> str:
    if site is None:
        return "—"
    function, place = split_site(site)
    return _shortened(f"{function} · {short_place(place)}" if place else function)


def _shortened(text: str | None) -> str:
    if text is None:
        return "—"
    return text if len(text) <= _TEXT_LIMIT else f"{text[: _TEXT_LIMIT // 3]}…{text[-2 * _TEXT_LIMIT // 3 :]}"
