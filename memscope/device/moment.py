"""One device of a trace after one event: who is live, what is free, and the ledger."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from memscope.attribution import grouping as groups
from memscope.attribution.call_tree import CallTree, ModuleTree, call_tree, module_tree
from memscope.attribution.grouping import NOT_RECORDED, Grouping, sum_groups
from memscope.attribution.ledger import Coverage, Ledger, coverage_at, ledger_at
from memscope.fragmentation.metrics import Fragmentation, measure_fragmentation
from memscope.fragmentation.pins import Holder, Pin, find_pins, holders_of
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.segments import large_segment_bytes
from memscope.lifetimes.state import AllocatorState
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array

if TYPE_CHECKING:
    import pandas as pd

    from memscope.analysis import Analysis


class Moment:
    """One device after one event: who is live, what is free, and the ledger."""

    def __init__(self, analysis: Analysis, lifetimes: DeviceLifetimes, event: int) -> None:
        self.analysis = analysis
        self.lifetimes = lifetimes
        self.device = lifetimes.device
        self.event = event

    def __repr__(self) -> str:
        return f"<Moment after event {self.event:,} of device {self.device}>"

    def _series_at(self, name: str) -> int | None:
        usage = self.lifetimes.usage
        series = getattr(usage, name)
        return None if series is None else int(series[usage.index_of(self.event) if self.event != NONE_ID else 0])

    @property
    def allocated_bytes(self) -> int:
        """Bytes of blocks in use."""
        return self._series_at("allocated_bytes") or 0

    @property
    def active_bytes(self) -> int:
        """Bytes of blocks in use or pending."""
        return self._series_at("active_bytes") or 0

    @property
    def reserved_bytes(self) -> int | None:
        """Bytes of segments, None where they were not recorded."""
        return self._series_at("reserved_bytes")

    @property
    def time_ns(self) -> int | None:
        """When the event happened, None where that was not recorded."""
        if self.event == NONE_ID:
            return None
        time_ns = int(self.analysis.trace.time_ns[self.event])
        return None if time_ns == NONE_ID else time_ns

    @cached_property
    def state(self) -> AllocatorState:
        """The exact segments and blocks."""
        return self.lifetimes.state_at(self.event)

    @cached_property
    def ledger(self) -> Ledger:
        """The bytes, row by row."""
        return ledger_at(self.lifetimes, self.analysis.attribution(self.device), self.event)

    @cached_property
    def coverage(self) -> Coverage:
        """How much of what is in use has a category."""
        return coverage_at(self.lifetimes, self.analysis.attribution(self.device), self.event)

    @cached_property
    def fragmentation(self) -> Fragmentation:
        """Fragmentation of the state."""
        return measure_fragmentation(self.analysis.trace, self.state)

    def pins(self, limit: int = 20) -> tuple[Pin, ...]:
        """The sets of blocks that hold most free bytes hostage."""
        handle = large_segment_bytes(self.analysis.trace.metadata.alloc_conf)
        return find_pins(self.state, limit, large_handle_bytes=handle)

    def holders(self, pin: Pin, limit: int = 5) -> tuple[Holder, ...]:
        """Who holds the largest blocks of a pin, how old they are, and the steps that they were born in."""
        rows, steps = pin.allocation_ids[:limit], self.analysis.steps(self.device)
        return holders_of(self.lifetimes, self.analysis.attribution(self.device), rows, self.event, steps)

    @cached_property
    def rows(self) -> Int64Array:
        """Rows of the allocations in use or pending, largest block first."""
        table = self.lifetimes.allocations
        rows = np.flatnonzero(table.active_at(self.event))
        return rows[np.argsort(-table.block_bytes[rows], kind="stable")]

    def allocations(self) -> pd.DataFrame:
        """Every allocation in use or pending, largest first, one row each.

        Columns: ``address requested_bytes block_bytes category source owner site stream alloc_event is_pending``;
        ``owner`` and ``site`` are None where not known.
        """
        import pandas as pd

        trace, table = self.analysis.trace, self.lifetimes.allocations
        attribution, rows = self.analysis.attribution(self.device), self.rows
        return pd.DataFrame(
            {
                "address": table.address[rows],
                "requested_bytes": table.requested_bytes[rows],
                "block_bytes": table.block_bytes[rows],
                "category": [Category(c).label for c in attribution.category[rows]],
                "source": [CategorySource(s).label for s in attribution.source[rows]],
                "owner": [trace.string(int(i)) for i in attribution.owner_id[rows]],
                "site": self._sites(rows),
                "stream": [None if s < 0 else int(trace.stream_handles[s]) for s in table.stream_id[rows]],
                "alloc_event": table.alloc_event[rows],
                "is_pending": table.pending_at(self.event)[rows],
            }
        )

    def _sites(self, rows: Int64Array) -> list[str | None]:
        """The line of code of each row; each distinct stack is looked up once."""
        stack_ids = self.lifetimes.allocations.stack_id[rows]
        distinct, first, position = np.unique(stack_ids, return_index=True, return_inverse=True)
        texts = [self.site_of(int(rows[i])) for i in first[: len(distinct)]]
        return [texts[i] for i in position]

    def site_of(self, row: int) -> str | None:
        """The user's line of code that made an allocation, None where no stack was recorded."""
        stack_id = int(self.lifetimes.allocations.stack_id[row])
        if stack_id == NONE_ID:
            return None
        frame_id = int(self.analysis.site_frame_of_stack[stack_id])
        return None if frame_id == NONE_ID else str(self.analysis.trace.frame(frame_id))

    def by_category(self) -> pd.DataFrame:
        """Bytes and count in use by category, in stacking order, empty ones left out."""
        return self._grouped(Grouping.CATEGORY).sort_index(key=_category_order)

    def by_site(self) -> pd.DataFrame:
        """Bytes and count in use by the user's line of code, largest first."""
        return self.by(Grouping.SITE)

    def by_module(self) -> pd.DataFrame:
        """Bytes and count in use by the module in the owner's name, largest first."""
        return self.by(Grouping.MODULE)

    def by(self, grouping: Grouping | str) -> pd.DataFrame:
        """Bytes and count in use by category, site, module, step, tag or rule, largest first.

        Columns: ``requested_bytes block_bytes n_allocations``, all int64. Categories come in stacking order. A step is
        the one that the allocation was made in.

        Raises
        ------
        UsageError
            If the steps of the program cannot be told.
        """
        if Grouping(grouping) is Grouping.CATEGORY:
            return self.by_category()
        return self._grouped(Grouping(grouping)).sort_values("requested_bytes", ascending=False, kind="stable")

    def unknown_sites(self, limit: int) -> pd.DataFrame:
        """The lines of code whose allocations in use have no category, largest first; columns as in :meth:`by`."""
        rows = self.in_use_rows
        unknown = rows[self.analysis.attribution(self.device).category[rows] == Category.UNKNOWN]
        found = sum_groups(self.lifetimes.allocations, unknown, self._labels(Grouping.SITE, unknown), "site")
        return found.sort_values("requested_bytes", ascending=False, kind="stable").head(limit)

    def call_tree(self) -> CallTree:
        """The calls that made what is in use, outermost first."""
        return call_tree(self.analysis.trace, self.lifetimes.allocations, self.in_use_rows)

    def module_tree(self) -> ModuleTree:
        """The modules that own what is in use."""
        attribution = self.analysis.attribution(self.device)
        return module_tree(self.analysis.trace, self.lifetimes.allocations, attribution, self.in_use_rows)

    @cached_property
    def in_use_rows(self) -> Int64Array:
        """Rows of the allocations in use, largest block first: their blocks are the allocated bytes."""
        return self.rows[~self.lifetimes.allocations.pending_at(self.event)[self.rows]]

    def _grouped(self, grouping: Grouping) -> pd.DataFrame:
        rows = self.in_use_rows
        return sum_groups(self.lifetimes.allocations, rows, self._labels(grouping, rows), grouping.value)

    def _labels(self, grouping: Grouping, rows: Int64Array) -> list[str]:
        """The group of each allocation."""
        trace, attribution = self.analysis.trace, self.analysis.attribution(self.device)
        if grouping is Grouping.SITE:
            return [site or NOT_RECORDED for site in self._sites(rows)]
        if grouping is Grouping.MODULE:
            return groups.module_groups(trace, attribution, rows)
        if grouping is Grouping.TAG:
            return groups.tag_groups(trace, attribution, rows)
        if grouping is Grouping.RULE:
            return groups.rule_groups(attribution, rows)
        if grouping is Grouping.STEP:
            steps = self.analysis.steps(self.device)
            return groups.step_groups(self.lifetimes.allocations, steps, rows, self.analysis.name)
        return groups.category_groups(attribution, rows)


def _category_order(index: pd.Index[str]) -> pd.Index[int]:
    import pandas as pd

    return pd.Index([Category[label.upper()] for label in index])
