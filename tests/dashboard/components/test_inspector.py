"""The inspector: what it says of an allocation, and of a call without one."""

from __future__ import annotations

from memscope_dashboard.components.inspector import inspect, inspect_choice, pin_data
from memscope_dashboard.narrowing import Narrowing
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.analysis import Analysis
from memscope.figures.flames.flame import FlameKind
from memscope.units import format_bytes
from tests.attribution.scripted import with_old_workspace
from tests.dashboard.pages import largest_path, moment_data, text_of


def test_the_inspector_shows_the_call_until_an_allocation_is_pinned(store: TraceStore) -> None:
    data = moment_data(store)
    query = Query.from_data(data)
    narrowing = Narrowing(FlameKind.CALLS, tuple(largest_path(store, data)), own_only=True)
    moment = query.moment(store)
    rows = narrowing.rows(moment)
    words = text_of(inspect_choice(store, query, None, narrowing.data(query)))
    assert narrowing.label(moment.device.trace) in words
    assert format_bytes(int(moment.lifetimes.allocations.block_bytes[rows].sum())) in words
    pinned = text_of(inspect_choice(store, query, pin_data(data, int(rows[0])), narrowing.data(query)))
    assert "Lifetime" in pinned
    assert "Nothing is pinned" in text_of(inspect_choice(store, query, None, None))


def test_the_inspector_says_what_the_table_has(store: TraceStore) -> None:
    moment = store.analysis("train.memscope").peak(0)
    row = int(moment.rows[0])
    words = text_of(inspect(moment, row))
    live = moment.allocations().iloc[0]
    assert format_bytes(live["block_bytes"]) in words
    assert live["owner"] in words
    assert hex(live["address"]) in words
    assert "live at this moment" in words
    assert "train.py:7" in words


def test_the_inspector_keeps_a_pin_that_is_not_live(store: TraceStore) -> None:
    moment = store.analysis("train.memscope").at(0, 0)
    last = len(moment.lifetimes.allocations) - 1
    assert "not live at this moment" in text_of(inspect(moment, last))
    assert "Nothing is pinned" in text_of(inspect(moment, 10**6))


def test_the_inspector_says_how_sure_an_inference_is_and_why() -> None:
    moment = Analysis(with_old_workspace()).peak()
    words = text_of(inspect(moment, int(moment.rows[0])))
    assert "inferred from sizes and lives" in words
    assert "99 %" in words
    assert "cuBLAS asks for exactly 8,519,680 bytes" in words
