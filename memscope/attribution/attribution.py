"""The category and the owner of every allocation, and what decided it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscope.attribution.rules import RULES, Rule, match_stacks
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int8Array, Int32Array, Int64Array, frozen_array


@dataclass(frozen=True, slots=True)
class Attribution:
    """Aligned with the rows of a device's :class:`~memscope.lifetimes.tables.AllocationTable`.

    Attributes
    ----------
    category
        int8 (rows,): :class:`~memscope.trace.categories.Category`.
    source
        int8 (rows,): :class:`~memscope.trace.categories.CategorySource`, what decided.
    owner_id
        int32 (rows,): the owner's name in the trace's strings, −1 where none is known.
    rule_id
        int32 (rows,): the rule that decided, −1 where none did.
    """

    category: Int8Array
    source: Int8Array
    owner_id: Int32Array
    rule_id: Int32Array

    def __post_init__(self) -> None:
        for name, dtype in (("category", np.int8), ("source", np.int8), ("owner_id", np.int32), ("rule_id", np.int32)):
            object.__setattr__(self, name, frozen_array(getattr(self, name), dtype))


def attribute(lifetimes: DeviceLifetimes, rules: Sequence[Rule] = RULES) -> Attribution:
    """Decide every allocation's category: by identity, then the user's tag, then the rules; the rest is unknown."""
    table, trace = lifetimes.allocations, lifetimes.trace
    n = len(table)
    category = np.full(n, Category.UNKNOWN, np.int8)
    source = np.full(n, CategorySource.NONE, np.int8)
    owner_id = np.full(n, NONE_ID, np.int32)
    rule_of_stack = match_stacks(trace, rules)
    has_stack = table.stack_id != NONE_ID
    rule_id = np.full(n, NONE_ID, np.int32)
    rule_id[has_stack] = rule_of_stack[table.stack_id[has_stack]]
    for position, rule in enumerate(rules):
        rows = np.flatnonzero(rule_id == position)
        category[rows] = rule.category
        source[rows] = CategorySource.RULE
        if rule.if_short_lived is not None:
            short = _dies_within_run(lifetimes, rule_id, position, rows)
            category[rows[short]] = rule.if_short_lived
            source[rows[short]] = CategorySource.LIFETIME
    owned, owner = _owned_rows(lifetimes)
    owners = trace.owners
    category[owned] = owners.category[owner]
    owner_id[owned] = owners.label_id[owner]
    source[owned] = np.where(owners.tagged[owner], CategorySource.USER, CategorySource.IDENTITY)
    rule_id[owned] = NONE_ID
    untold = category == Category.UNKNOWN
    source[untold] = CategorySource.NONE
    return Attribution(category, source, owner_id, rule_id)


def _owned_rows(lifetimes: DeviceLifetimes) -> tuple[Int64Array, Int64Array]:
    """Rows whose owner was recorded, and the owner of each (positions in the trace's owners)."""
    table, owners = lifetimes.allocations, lifetimes.trace.owners
    if not len(owners):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    predates = table.alloc_event == NONE_ID
    position = np.searchsorted(owners.alloc_event, table.alloc_event)
    inside = (position < len(owners)) & ~predates
    found = np.zeros(len(table), np.bool_)
    found[inside] = owners.alloc_event[position[inside]] == table.alloc_event[inside]
    here = np.flatnonzero((owners.alloc_event == NONE_ID) & (owners.device == lifetimes.device))
    old = np.flatnonzero(predates)
    if len(here) and len(old):
        at = np.minimum(np.searchsorted(owners.address[here], table.address[old]), len(here) - 1)
        matches = owners.address[here[at]] == table.address[old]
        found[old[matches]] = True
        position[old[matches]] = here[at[matches]]
    return np.flatnonzero(found), position[found]


def _dies_within_run(lifetimes: DeviceLifetimes, rule_id: Int32Array, position: int, rows: Int64Array) -> BoolArray:
    """Which rows of a rule die before the first later alloc of another rule: bool (rows,).

    Allocs without a rule do not end a run. Rows that predate the events have no run and count as long-lived.
    """
    table = lifetimes.allocations
    others = table.alloc_event[(rule_id != position) & (rule_id != NONE_ID) & (table.alloc_event != NONE_ID)]
    born, died = table.alloc_event[rows], table.free_event[rows]
    following = np.searchsorted(others, born)
    run_end = np.full(len(rows), np.iinfo(np.int64).max)
    ends = following < len(others)
    run_end[ends] = others[following[ends]]
    short: BoolArray = (born != NONE_ID) & (died != NONE_ID) & (died < run_end)
    return short
