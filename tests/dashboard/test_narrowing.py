"""A call or a module that the allocations are narrowed to: what the browser may send for one."""

from __future__ import annotations

from memscope_dashboard.narrowing import Narrowing
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.figures.flames.flame import FlameKind
from tests.dashboard.pages import largest_path, moment_data


def test_a_path_that_the_trace_does_not_have_narrows_nothing(store: TraceStore) -> None:
    data = moment_data(store)
    query = Query.from_data(data)
    trace = query.analysis(store).trace
    for path in ([10**9], [-7], []):
        assert Narrowing.from_data({**data, "kind": "calls", "path": path, "own": True}, query, trace) is None


def test_a_path_comes_back_from_the_browser_and_holds_what_its_tree_says(store: TraceStore) -> None:
    data = moment_data(store)
    query = Query.from_data(data)
    moment = query.moment(store)
    for kind in FlameKind:
        path = tuple(largest_path(store, data, kind)[:1])
        narrowing = Narrowing(kind, path, own_only=kind is FlameKind.CALLS)
        assert Narrowing.from_data(narrowing.data(query), query, moment.device.trace) == narrowing
        rows = narrowing.rows(moment)
        assert 0 < len(rows) <= len(moment.in_use_rows)
        assert narrowing.among(moment, moment.in_use_rows).sum() == len(rows)
