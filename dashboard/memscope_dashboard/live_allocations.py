"""The allocations that are live at a moment as columns: searched, filtered, sorted and grouped on the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memscope.attribution.grouping import NOT_RECORDED, Grouping, module_groups, rule_groups
from memscope.attribution.ledger import PENDING_FREES
from memscope.attribution.sites import natural_order
from memscope.device.device import Moment
from memscope.figures.flames.flame import majority
from memscope.trace.categories import Category
from memscope.trace.tables import BoolArray, Int64Array
from memscope.units import MiB

_HEX = re.compile(r"0?x?[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class TextColumn:
    """Texts by row: int64 (rows,) codes into the distinct texts, an empty one where there is none."""

    codes: Int64Array
    texts: tuple[str, ...]

    def at(self, position: int) -> str:
        """The text of a row."""
        return self.texts[int(self.codes[position])]

    def hits(self, word: str) -> BoolArray:
        """Rows whose text has a word in lower case: bool (rows,)."""
        found: BoolArray = np.array([word in text.lower() for text in self.texts], np.bool_)[self.codes]
        return found

    def ranks(self) -> Int64Array:
        """Ranks by row in the order of the alphabet and of numbers, those without a text last: int64 (rows,)."""
        order = sorted(range(len(self.texts)), key=lambda i: (not self.texts[i], natural_order(self.texts[i]), i))
        rank = np.empty(len(self.texts), np.int64)
        rank[order] = np.arange(len(order))
        ranked: Int64Array = rank[self.codes]
        return ranked


@dataclass(frozen=True, slots=True)
class LiveTable:
    """Every allocation that is live at a moment, largest block first; columns by position, int64 unless said.

    Attributes
    ----------
    rows
        Rows of the device's allocations.
    category
        int8: :class:`~memscope.trace.categories.Category`.
    is_pending
        bool: freed, but other streams may still use it; not part of the allocated bytes.
    stream
        Raw stream handles, −1 where not recorded.
    """

    rows: Int64Array
    address: np.ndarray[tuple[int], np.dtype[np.integer]]
    block_bytes: Int64Array
    requested_bytes: Int64Array
    alloc_event: Int64Array
    stream: Int64Array
    category: np.ndarray[tuple[int], np.dtype[np.int8]]
    is_pending: BoolArray
    owner: TextColumn
    site: TextColumn
    module: TextColumn
    rule: TextColumn
    tag: TextColumn

    def __len__(self) -> int:
        return len(self.rows)

    def matching(
        self,
        search: str | None = None,
        categories: Sequence[str] | None = None,
        filters: dict[str, Any] | None = None,
        among: BoolArray | None = None,
    ) -> Int64Array:
        """Positions of the rows that fit everything asked for, in order.

        Parameters
        ----------
        search
            Words that must all be found in the owner, the line of code, the tag, the category, the rule or the address.
        categories
            Labels of the categories to keep; all if there are none.
        filters
            The grid's own model of its columns' filters; sizes are in MiB.
        among
            bool (rows,): those to look among.
        """
        keep = np.ones(len(self), np.bool_) if among is None else among.copy()
        if categories:
            keep &= np.isin(self.category, [Category[name.upper()] for name in categories])
        for word in (search or "").lower().split():
            keep &= self._hits(word)
        for name, model in (filters or {}).items():
            keep &= self._passes(name, model)
        return np.flatnonzero(keep)

    def _hits(self, word: str) -> BoolArray:
        named = np.array([word in category.label for category in Category], np.bool_)
        hits: BoolArray = self.owner.hits(word) | self.site.hits(word) | self.tag.hits(word) | self.rule.hits(word)
        hits |= named[self.category]
        if _HEX.fullmatch(word):
            hits |= np.array([word in hex(address) for address in self.address.tolist()], np.bool_)
        return hits

    def _passes(self, name: str, model: dict[str, Any]) -> BoolArray:
        kind = str(model.get("type"))
        if name in ("owner", "site", "rule"):
            column: TextColumn = getattr(self, name)
            hits = column.hits(str(model.get("filter", "")).lower())
            return ~hits if kind == "notContains" else hits
        if name not in ("block_bytes", "requested_bytes", "alloc_event"):
            return np.ones(len(self), np.bool_)
        values, unit = getattr(self, name), MiB if name.endswith("_bytes") else 1
        low, high = model.get("filter"), model.get("filterTo")
        passes = np.ones(len(self), np.bool_)
        if low is not None and kind in ("greaterThanOrEqual", "inRange"):
            passes &= values >= low * unit
        if kind in ("lessThanOrEqual", "inRange"):
            limit = low if kind == "lessThanOrEqual" else high
            passes &= values <= limit * unit if limit is not None else True
        return passes

    def sorted(self, positions: Int64Array, sort: Sequence[dict[str, Any]]) -> Int64Array:
        """Positions in the order asked for by the grid's sort model; equal ones stay largest first."""
        for rule in reversed(list(sort)):
            name, sign = str(rule["colId"]), -1 if rule.get("sort") == "desc" else 1
            if name in ("owner", "site", "rule"):
                values = getattr(self, name).ranks()
            elif name in ("block_bytes", "requested_bytes", "alloc_event", "stream", "category"):
                values = getattr(self, name).astype(np.int64)
            else:
                continue
            positions = positions[np.argsort(sign * values[positions], kind="stable")]
        return positions

    def groups(self, positions: Int64Array, grouping: Grouping) -> list[Group]:
        """Sum some rows by a grouping, largest first; pending frees are a group of their own, the last."""
        pending = self.is_pending[positions]
        in_use = positions[~pending]
        labels: TextColumn = (
            TextColumn(self.category.astype(np.int64), tuple(category.label for category in Category))
            if grouping is Grouping.CATEGORY
            else getattr(self, grouping.value)
        )
        found = _sum(self, in_use, labels.codes[in_use], labels.texts)
        found.sort(key=lambda group: -group.block_bytes)
        nothing = np.zeros(int(pending.sum()), np.int64)
        return found + _sum(self, positions[pending], nothing, (PENDING_FREES,))


@dataclass(frozen=True, slots=True)
class Group:
    """Allocations that share a line of code, module, category or rule.

    ``largest_row`` is the row of its largest allocation; ``category`` that of more than half of its block bytes, None
    where it is mixed.
    """

    name: str
    block_bytes: int
    requested_bytes: int
    n_allocations: int
    category: Category | None
    largest_row: int


def _sum(table: LiveTable, positions: Int64Array, codes: Int64Array, texts: Sequence[str]) -> list[Group]:
    distinct, first, place = np.unique(codes, return_index=True, return_inverse=True)
    by_category = np.zeros((len(distinct), len(Category)), np.int64)
    np.add.at(by_category, (place, table.category[positions]), table.block_bytes[positions])
    requested = np.zeros(len(distinct), np.int64)
    np.add.at(requested, place, table.requested_bytes[positions])
    counts = np.bincount(place, minlength=len(distinct))
    return [
        Group(
            name=texts[code] or NOT_RECORDED,
            block_bytes=int(by_category[i].sum()),
            requested_bytes=int(requested[i]),
            n_allocations=int(counts[i]),
            category=majority(by_category[i]),
            largest_row=int(table.rows[positions[first[i]]]),
        )
        for i, code in enumerate(distinct.tolist())
    ]


def live_table(moment: Moment) -> LiveTable:
    """Gather everything that is live at a moment; each distinct text is made once."""
    device, rows = moment.device, moment.rows
    trace, table, attribution = device.trace, device.allocations, device.attribution
    owner_id, stream_id = attribution.owner_id[rows], table.stream_id[rows]
    decided = attribution.rule_id[rows].astype(np.int64) * 16 + attribution.source[rows]
    handles = np.append(trace.stream_handles, -1)
    return LiveTable(
        rows=rows,
        address=trace.real_addresses(table.address[rows]),
        block_bytes=table.block_bytes[rows],
        requested_bytes=table.requested_bytes[rows],
        alloc_event=table.alloc_event[rows],
        stream=handles[stream_id],
        category=attribution.category[rows],
        is_pending=table.pending_at(moment.event)[rows],
        owner=text_column(owner_id, rows, lambda row: device.owner_of(row) or ""),
        site=text_column(table.stack_id[rows], rows, lambda row: device.site_of(row) or ""),
        module=text_column(owner_id, rows, lambda row: module_groups(trace, attribution, np.array([row]))[0]),
        tag=text_column(
            attribution.tag_id[rows], rows, lambda row: trace.shown_string(int(attribution.tag_id[row])) or ""
        ),
        rule=text_column(decided, rows, lambda row: rule_groups(attribution, np.array([row]))[0]),
    )


def text_column(ids: np.ndarray, rows: Int64Array, text_of: Callable[[int], str]) -> TextColumn:
    """One text for each distinct id, found from the first row that has it; equal texts share a code."""
    _, first, place = np.unique(ids, return_index=True, return_inverse=True)
    found = [text_of(int(rows[i])) for i in first]
    codes = {text: code for code, text in enumerate(dict.fromkeys(found))}
    by_id = np.array([codes[text] for text in found], np.int64)
    return TextColumn(by_id[place] if len(found) else np.empty(0, np.int64), tuple(codes))
