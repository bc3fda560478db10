"""What a rule is, one line of the table that tells categories without identities, and which allocations it fits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from memscope.attribution._tags import used_ids
from memscope.attribution.phases.lives import Life, LifeTable
from memscope.attribution.phases.phases import Phase, PhaseRuns, find_phases
from memscope.lifetimes.device import DeviceLifetimes
from memscope.names import searchable
from memscope.trace.categories import Category
from memscope.trace.frames import FramePattern, StackSearch
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array, Int64Array
from memscope.trace.trace import Trace


@dataclass(frozen=True)
class Rule:
    """One line of the table. Everything that it names must hold.

    Attributes
    ----------
    name, reason
        What it is called, and why this means the category.
    category
        What an allocation that it fits is.
    frames
        Patterns of which every one must be found somewhere in the stack. Without any, a stack is not needed.
    phases
        Phases of which one must have been under way; none means any.
    lives
        What must hold of the allocation's life.
    sizes_bytes
        Requested bytes of which one must have been asked for; none means any. For libraries that always ask for the
        same.
    tags
        Patterns of which one must be found in the user's tag; none means any allocation, tagged or not.
    is_users
        Whether the user wrote it.
    called_by
        What must call, directly, a frame that fits the first of ``frames``; None asks for nothing.
    """

    name: str
    category: Category
    reason: str
    frames: tuple[FramePattern, ...] = field(default=())
    phases: tuple[Phase, ...] = ()
    lives: tuple[Life, ...] = ()
    sizes_bytes: tuple[int, ...] = ()
    tags: tuple[str, ...] = ()
    is_users: bool = False
    called_by: FramePattern | None = None


def match_rows(
    lifetimes: DeviceLifetimes,
    rules: Sequence[Rule],
    tag_id: Int32Array | None = None,
    search: StackSearch | None = None,
    runs: PhaseRuns | None = None,
) -> Int32Array:
    """First rule that fits each allocation: int32 (rows,), positions in ``rules``, −1 for none.

    ``tag_id`` has the user's tag on each, a text's id in the trace's strings.
    """
    table = lifetimes.allocations
    search = search or StackSearch(lifetimes.trace)
    runs = runs or find_phases(lifetimes, search)
    lives = LifeTable(lifetimes, runs)
    rule_id = np.full(len(table), NONE_ID, np.int32)
    for position, rule in enumerate(rules):
        rows = _fitting(lifetimes, rule, np.flatnonzero(rule_id == NONE_ID), tag_id, search, runs)
        for life in rule.lives:
            if len(rows):
                rows = rows[lives.rows(life)[rows]]
        rule_id[rows] = position
    return rule_id


def match_unseen(
    lifetimes: DeviceLifetimes, rules: Sequence[Rule], rows: Int64Array, search: StackSearch, runs: PhaseRuns
) -> Int32Array:
    """First rule that each of some rows would fit if it had been there from the start to the end: int32, −1 for none.

    That is for rows of whose lives nothing was seen; other lives are not supposed.
    """
    rule_id = np.full(len(lifetimes.allocations), NONE_ID, np.int32)
    rows = rows[LifeTable(lifetimes, runs).unseen[rows]]
    for position, rule in enumerate(rules):
        if rule.frames and rule.lives == (Life.SETUP,):
            open_rows = rows[rule_id[rows] == NONE_ID]
            rule_id[_fitting(lifetimes, rule, open_rows, None, search, runs)] = position
    return rule_id


def _fitting(
    lifetimes: DeviceLifetimes,
    rule: Rule,
    rows: Int64Array,
    tag_id: Int32Array | None,
    search: StackSearch,
    runs: PhaseRuns,
) -> Int64Array:
    """Which of some rows fit all that a rule names but lives."""
    table, trace = lifetimes.allocations, lifetimes.trace
    if rule.frames:
        rows = rows[table.stack_id[rows] != NONE_ID]
        rows = rows[_stack_hits(trace, rule, search)[table.stack_id[rows]]]
    if rule.phases:
        rows = rows[np.isin(runs.row_phase[rows], rule.phases)]
    if rule.tags:
        rows = rows[_is_tagged(trace, rule, rows, tag_id)]
    if rule.sizes_bytes:
        rows = rows[np.isin(table.requested_bytes[rows], rule.sizes_bytes)]
    return rows


def _stack_hits(trace: Trace, rule: Rule, search: StackSearch) -> BoolArray:
    """Which stacks have every frame that a rule asks for, called as it asks: bool (stacks,)."""
    hit = np.ones(len(trace.stacks), np.bool_)
    for pattern in rule.frames:
        hit &= search.stacks(pattern)
    if rule.called_by is not None:
        hit &= search.calls(rule.frames[0], rule.called_by)
    return hit


def _is_tagged(trace: Trace, rule: Rule, rows: Int64Array, tag_id: Int32Array | None) -> BoolArray:
    """Which allocations have a tag that a rule asks for: bool (rows,)."""
    if tag_id is None:
        return np.zeros(len(rows), np.bool_)
    patterns = [re.compile(tag) for tag in rule.tags]
    hits = np.zeros(len(trace.strings) + 1, np.bool_)
    for i in used_ids(trace, tag_id):
        text = searchable(trace.strings[i])
        hits[i] = any(pattern.search(text) for pattern in patterns)
    found: BoolArray = hits[tag_id[rows]]
    return found
