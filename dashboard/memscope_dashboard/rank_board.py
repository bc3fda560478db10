"""The open traces set side by side: compared once, whatever the view asks of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from memscope.analysis import Analysis
from memscope.errors import MemscopeError
from memscope.ranks.compare import compare_ranks
from memscope.ranks.comparison import AlignedStep, RankComparison
from memscope.trace.schema import NONE_ID
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore


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
        step = next((step for step in self.comparison.steps if _holds(step, now, query.event)), None)
        use = None if step is None else step.uses[row]
        return peak if use is None else use.allocated_event


def _holds(step: AlignedStep, row: int, event: int) -> bool:
    use = step.uses[row]
    return use is not None and (use.begin <= event < use.end or event == use.allocated_event == NONE_ID)


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
