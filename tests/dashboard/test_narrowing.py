"""A call or a module that the allocations are narrowed to: what the browser may send for one."""

from __future__ import annotations

from memscope_dashboard.narrowing import Narrowing
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from tests.dashboard.pages import moment_data


def test_a_path_that_the_trace_does_not_have_narrows_nothing(store: TraceStore) -> None:
    data = moment_data(store)
    query = Query.from_data(data)
    trace = query.analysis(store).trace
    for path in ([10**9], [-7], []):
        assert Narrowing.from_data({**data, "kind": "calls", "path": path, "own": True}, query, trace) is None
