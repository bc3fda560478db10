"""The traces that a dashboard shows: loaded when first asked for, and only the last few kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, RLock
from typing import Any, TypeVar

from memscope.analysis import Analysis, load
from memscope.attribution.rule_file import rules_with
from memscope.errors import UsageError
from memscope.export.reading import Span, load_span
from memscope.recently_used import RecentlyUsed
from memscope_dashboard.jobs import Jobs

Result = TypeVar("Result")

_N_RECENT = 12
"""Results about single moments that are kept."""


class TraceStore:
    """Trace ids and the analyses behind them. The browser holds ids; arrays stay here.

    An id is the file's name, numbered where two files share one, so that addresses can be read and shared; a path never
    comes from the browser.

    Parameters
    ----------
    paths
        The trace files, in the order of the switcher.
    n_kept
        Traces kept in memory; the one used longest ago goes first.
    rules
        A TOML file of the user's own category rules, checked now.
    span
        The part of each trace that is shown; the whole if not given.

    Raises
    ------
    UsageError
        If there is no trace.
    InputFileError
        If the rules cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        n_kept: int = 4,
        *,
        rules: str | Path | None = None,
        span: Span | None = None,
    ) -> None:
        if not paths:
            raise UsageError("the dashboard needs at least one trace")
        self._paths: dict[str, Path] = {}
        for path in map(Path, paths):
            self._paths[self._free_id(path.name)] = path
        self._rules = rules_with(rules)
        self._span = span
        self._analyses: RecentlyUsed[str, Analysis] = RecentlyUsed(n_kept, self._forget_results)
        self._results: dict[str, dict[Any, Any]] = {}
        self._locks = {trace_id: RLock() for trace_id in self._paths}
        self._result_locks = {trace_id: RLock() for trace_id in self._paths}
        self._guard = Lock()
        self._recent: RecentlyUsed[Any, Any] = RecentlyUsed(_N_RECENT)
        self._recent_lock = RLock()
        self._shared: dict[Any, Any] = {}
        self._shared_lock = RLock()
        self.jobs = Jobs()

    def _free_id(self, name: str) -> str:
        number, trace_id = 1, name
        while trace_id in self._paths:
            number += 1
            trace_id = f"{name} ({number})"
        return trace_id

    @property
    def trace_ids(self) -> tuple[str, ...]:
        """Ids of all traces, in order."""
        return tuple(self._paths)

    @property
    def loaded_ids(self) -> tuple[str, ...]:
        """Ids of the traces in memory, the one used longest ago first."""
        return tuple(self._analyses)

    def analysis(self, trace_id: str) -> Analysis:
        """The analysis of a trace, loaded if need be.

        Raises
        ------
        UsageError
            If no trace has this id.
        InputFileError, ContradictionError
            If the file cannot be read, or contradicts itself.
        """
        found = self.open(trace_id)
        found.require_consistent()
        return found

    def open(self, trace_id: str) -> Analysis:
        """Like :meth:`analysis`, but a trace that contradicts itself is given out too."""
        if trace_id not in self._paths:
            raise UsageError(f"no trace is called {trace_id!r}; choose one in the switcher at the top")
        with self._locks[trace_id]:
            with self._guard:
                found = self._analyses.get(trace_id)
            if found is None:
                # Loaded without the guard, so that other traces can be asked for meanwhile.
                found = self._load(self._paths[trace_id])
                with self._guard:
                    self._analyses.put(trace_id, found)
        return found

    def _load(self, path: Path) -> Analysis:
        if self._span is None:
            return load(path, rules=self._rules)
        return load_span(path, self._span, self._rules)

    def _forget_results(self, trace_id: str, _analysis: Analysis) -> None:
        for result in self._results.pop(trace_id, {}).values():
            if hasattr(result, "close"):
                result.close()

    def close(self, timeout_s: float = 5.0) -> None:
        """Cancel the work that goes on in the background, and wait that long for its end."""
        self.jobs.close(timeout_s)

    def remembered(self, trace_id: str, key: Any, compute: Callable[[Analysis], Result]) -> Result:
        """A result that belongs to a trace, computed once while that trace is kept."""
        analysis = self.analysis(trace_id)
        with self._result_locks[trace_id]:
            results = self._results.setdefault(trace_id, {})
            if key not in results:
                results[key] = compute(analysis)
            result: Result = results[key]
        return result

    def recent(self, key: Any, compute: Callable[[], Result]) -> Result:
        """A result about one moment, kept while it is among the last few that were asked for."""
        with self._recent_lock:
            result: Result = self._recent.get_or_make(key, compute)
        return result

    def remembered_for_all(self, key: Any, compute: Callable[[], Result]) -> Result:
        """A result about all traces together, computed once; an error is not kept."""
        with self._shared_lock:
            if key not in self._shared:
                self._shared[key] = compute()
            result: Result = self._shared[key]
        return result
