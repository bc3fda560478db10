"""The columns of the allocations' table, and its rows as the browser gets them: by allocation, or in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memscope.attribution.grouping import NOT_RECORDED, Grouping
from memscope.attribution.ledger import PENDING_FREES, ROW_MEANINGS
from memscope.trace.categories import Category
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.labels import row_label, short_place, split_site
from memscope_dashboard.components.grid import NUMBER
from memscope_dashboard.live_allocations import Group, LiveTable

TOTAL = "total"
"""Id of the row that sums up the others."""

GROUPINGS: dict[str, Grouping | None] = {
    "allocation": None,
    "site": Grouping.SITE,
    "module": Grouping.MODULE,
    "category": Grouping.CATEGORY,
    "rule": Grouping.RULE,
}
"""What the table can be grouped by, as the switch names it."""

_TEXT_LIMIT = 160
_MIXED = "mixed"


def _shown(field: str) -> dict[str, Any]:
    """Show another field of a row than the one that is sorted; rows on their way have none."""
    return {"valueFormatter": {"function": f"params.data ? params.data.{field} : ''"}}


def _text_filter() -> dict[str, Any]:
    options = {"filterOptions": ["contains", "notContains"], "maxNumConditions": 1, "debounceMs": 250}
    return {"filter": "agTextColumnFilter", "filterParams": options}


def _number_filter(unit: str) -> dict[str, Any]:
    kinds = ["greaterThanOrEqual", "lessThanOrEqual", "inRange"]
    options = {"filterOptions": kinds, "maxNumConditions": 1, "filterPlaceholder": unit, "debounceMs": 250}
    return {"filter": "agNumberColumnFilter", "filterParams": options}


def _category_column(width: int) -> dict[str, Any]:
    rules = {f"cat-cell row-{category.label}": f"params.value === '{category.label}'" for category in Category}
    rules[f"cat-cell row-{PENDING_FREES}"] = f"params.value === '{PENDING_FREES}'"
    return {
        "field": "category",
        "headerName": "category",
        "width": width,
        "cellClassRules": rules,
        **_shown("label"),
    }


def columns(grouping: Grouping | None, *, has_streams: bool = False) -> list[dict[str, Any]]:
    """The columns of the table; streams only where there is more than the default one."""
    if grouping is not None:
        return _group_columns(grouping)
    size = {"field": "block_bytes", "headerName": "block", "width": 98, "tooltipField": "exact"}
    stream = {"field": "stream", "headerName": "stream", "width": 96, "cellClass": "num", **_shown("stream_name")}
    return [
        {**size, **_shown("size"), **_number_filter("MiB"), **NUMBER},
        _category_column(140),
        {"field": "owner", "headerName": "owner", "flex": 4, "minWidth": 112, "tooltipField": "owner"} | _text_filter(),
        {"field": "site", "headerName": "allocated by", "flex": 4, "minWidth": 112, "tooltipField": "site_whole"}
        | _text_filter(),
        {"field": "rule", "headerName": "rule", "flex": 3, "minWidth": 90, "tooltipField": "rule_reason"}
        | _text_filter(),
        {"field": "alloc_event", "headerName": "since event", "width": 100, **_shown("since")} | NUMBER,
        *([stream] if has_streams else []),
    ]


def _group_columns(grouping: Grouping) -> list[dict[str, Any]]:
    names = {Grouping.SITE: "line of code", Grouping.MODULE: "module", Grouping.RULE: "decided by"}
    name = {
        "field": "name",
        "headerName": names.get(grouping),
        "flex": 5,
        "minWidth": 124,
        "tooltipField": "name_whole",
        **_shown("name_short"),
    }
    category = _category_column(146) | ({} if grouping is Grouping.CATEGORY else {"sortable": False})
    numbers = [
        {"field": "block_bytes", "headerName": "block", "width": 100, "tooltipField": "exact", **_shown("size")},
        {"field": "share", "headerName": "share", "width": 80, "sortable": False},
        {"field": "requested_bytes", "headerName": "requested", "width": 106, **_shown("requested")},
        {"field": "n_allocations", "headerName": "allocations", "width": 112, **_shown("count")},
    ]
    if grouping is Grouping.CATEGORY:
        category |= {"flex": 1}
        return [category, *[number | NUMBER for number in numbers]]
    return [name, category, *[number | NUMBER for number in numbers]]


def allocation_records(table: LiveTable, positions: Sequence[int], reasons: dict[str, str]) -> list[dict[str, Any]]:
    """Some allocations as rows of the table, long texts cut in their middle.

    Parameters
    ----------
    reasons
        Why each rule means its category.
    """
    return [_allocation_record(table, i, reasons) for i in positions]


def _allocation_record(table: LiveTable, i: int, reasons: dict[str, str]) -> dict[str, Any]:
    category, event, stream = Category(int(table.category[i])).label, int(table.alloc_event[i]), int(table.stream[i])
    block, requested = int(table.block_bytes[i]), int(table.requested_bytes[i])
    rule = table.rule.at(i)
    return {
        "row": str(int(table.rows[i])),
        "block_bytes": block,
        "size": format_bytes(block),
        "exact": _exact(block, requested),
        "category": category,
        "label": row_label(category) + (" (pending)" if table.is_pending[i] else ""),
        "owner": _shortened(table.owner.at(i)) or "—",
        "site": _short_site(table.site.at(i)) or "—",
        "site_whole": table.site.at(i) or None,
        "rule": rule,
        "rule_reason": reasons.get(rule, rule),
        "alloc_event": event,
        "since": "the start" if event < 0 else format_count(event),
        "stream": stream,
        "stream_name": "—" if stream < 0 else "default" if stream == 0 else hex(stream),
    }


def group_records(groups: Sequence[Group], total_bytes: int) -> list[dict[str, Any]]:
    """Some groups as rows of the table, with their share of a total."""
    return [_group_record(group, total_bytes) for group in groups]


def _group_record(group: Group, total_bytes: int) -> dict[str, Any]:
    is_pending = group.name == PENDING_FREES
    category = PENDING_FREES if is_pending else None if group.category is None else group.category.label
    share = format_fraction(group.block_bytes / total_bytes) if total_bytes and not is_pending else ""
    return {
        "row": str(group.largest_row),
        "name": group.name,
        "name_short": row_label(PENDING_FREES) if is_pending else _short_site(group.name),
        "name_whole": ROW_MEANINGS[PENDING_FREES] if is_pending else group.name,
        "category": category,
        "label": row_label(category) if category else _MIXED,
        "block_bytes": group.block_bytes,
        "size": format_bytes(group.block_bytes),
        "exact": _exact(group.block_bytes, group.requested_bytes),
        "share": share,
        "requested_bytes": group.requested_bytes,
        "requested": format_bytes(group.requested_bytes),
        "n_allocations": group.n_allocations,
        "count": format_count(group.n_allocations),
    }


def total_record(grouping: Grouping | None, label: str, n_bytes: int, requested_bytes: int, n: int) -> dict[str, Any]:
    """The row below the others: what they sum to."""
    record = {
        "row": TOTAL,
        "block_bytes": n_bytes,
        "size": format_bytes(n_bytes),
        "exact": _exact(n_bytes, requested_bytes),
        "category": "",
        "label": label,
    }
    if grouping is None:
        texts = {"owner": f"{format_count(n)} allocation{'' if n == 1 else 's'}", "site": "", "rule": ""}
        return record | texts | {"since": "", "stream_name": "", "rule_reason": None, "site_whole": None}
    record |= {"requested": format_bytes(requested_bytes), "count": format_count(n), "share": ""}
    return record | ({} if grouping is Grouping.CATEGORY else {"label": "", "name": label, "name_short": label})


def _exact(block_bytes: int, requested_bytes: int) -> str:
    return f"{format_count(block_bytes)} bytes, requested {format_count(requested_bytes)}"


def _short_site(site: str) -> str:
    """``optimizer.py:64 (step)`` of a whole path; the whole one is in the tooltip."""
    if site == NOT_RECORDED:
        return site
    function, place = split_site(site)
    return _shortened(f"{short_place(place).rsplit('/', 1)[-1]} ({function})" if place else function)


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else f"{text[: _TEXT_LIMIT // 3]}…{text[-2 * _TEXT_LIMIT // 3 :]}"
