"""The table of allocations: every row within reach, sums that close, answers fast enough to scroll."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dash import Dash
from memscope_dashboard.live_allocations import LiveTable, live_table
from memscope_dashboard.narrowing import Narrowing
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import allocations
from memscope_dashboard.views.allocations import AllocationsAsked, rows_for

from memscope.analysis import Analysis
from memscope.attribution.grouping import Grouping
from memscope.device.device import Moment
from memscope.figures.flames.flame import FlameKind
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState
from memscope.units import format_bytes
from tests.dashboard.pages import moment_data, page_values, post, text_of

MiB = 1 << 20


def moment_of(store: TraceStore) -> Moment:
    return Query.from_data(moment_data(store)).moment(store)


def asked(by: str = "allocation", **more: Any) -> AllocationsAsked:
    return AllocationsAsked.from_controls(
        [more.get(n) for n in ("search", "categories")] + [by, more.get("narrow"), None]
    )


def request(begin: int = 0, end: int = 100, *sort: tuple[str, str]) -> dict[str, Any]:
    return {"startRow": begin, "endRow": end, "sortModel": [{"colId": name, "sort": way} for name, way in sort]}


def compute(moment: Moment, search: str | None = None, categories: tuple[str, ...] = ()) -> tuple[LiveTable, Any]:
    table = live_table(moment)
    found = allocations.compute(
        moment, table, AllocationsAsked(search, categories), Query("train.memscope", 0, moment.event)
    )
    return table, found


def test_allocations_are_found_by_owner_category_and_address(store: TraceStore) -> None:
    moment = moment_of(store)
    table, found = compute(moment)
    assert len(found.positions) == len(moment.rows)
    assert found.in_use_bytes + found.pending_bytes == moment.active_bytes
    assert found.in_use_bytes == moment.allocated_bytes
    assert np.all(np.diff(table.block_bytes) <= 0)
    _, found = compute(moment, "layers.2 weight")
    assert [table.owner.at(i) for i in found.positions] == ["model.layers.2.weight"]
    _, found = compute(moment, None, ("weights",))
    assert set(table.category[found.positions]) == {Category.WEIGHTS}
    assert found.requested_bytes == moment.ledger["weights"]
    assert found.in_use_bytes == int(table.block_bytes[found.positions].sum())
    _, found = compute(moment, hex(int(table.address[0])))
    assert 0 in found.positions


def test_every_allocation_is_within_reach(store: TraceStore) -> None:
    data = moment_data(store)
    moment = moment_of(store)
    rows: list[str] = []
    for begin in range(0, len(moment.rows), 5):
        answer = rows_for(store, data, asked(), request(begin, begin + 5))
        assert answer["rowCount"] == len(moment.rows)
        rows += [record["row"] for record in answer["rowData"]]
    assert rows == [str(row) for row in moment.rows.tolist()]


@pytest.mark.parametrize("by", ["site", "module", "category", "rule"])
def test_groups_sum_to_the_allocated_bytes_and_agree_with_the_library(store: TraceStore, by: str) -> None:
    data = moment_data(store)
    moment = moment_of(store)
    answer = rows_for(store, data, asked(by), request())
    groups = answer["rowData"]
    assert len(groups) == answer["rowCount"]
    assert sum(group["block_bytes"] for group in groups) == moment.allocated_bytes
    expected = moment.by(Grouping(by))["block_bytes"].to_dict()
    assert {group["name"]: group["block_bytes"] for group in groups} == expected
    sizes = [group["block_bytes"] for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    options = allocations.update(store, data, None, None, by, None, None)[4]
    (total,) = options["pinnedBottomRowData"]
    assert total["block_bytes"] == moment.allocated_bytes
    assert "allocated" in (total["label"] or total["name"])


def test_pending_frees_are_apart_from_the_allocated_bytes(store: TraceStore) -> None:
    analysis = store.analysis("other.memscope")
    for event in range(analysis.trace.n_events):
        moment = analysis.at(event, 0)
        pending = moment.active_bytes - moment.allocated_bytes
        if pending:
            break
    assert pending
    query = Query("other.memscope", 0, moment.event)
    groups = rows_for(store, query.data(), asked("category"), request())["rowData"]
    assert groups[-1]["name"] == "pending_frees"
    assert groups[-1]["block_bytes"] == pending
    assert sum(group["block_bytes"] for group in groups[:-1]) == moment.allocated_bytes
    note = allocations.update(store, query.data(), None, None, "allocation", None, None)[1]
    assert f"{format_bytes(pending)} in pending frees" in note


@pytest.mark.parametrize("way", ["asc", "desc"])
def test_rows_come_in_the_order_asked_for(store: TraceStore, way: str) -> None:
    data = moment_data(store)
    n = len(moment_of(store).rows)
    for column in ("alloc_event", "block_bytes", "owner"):
        rows = rows_for(store, data, asked(), request(0, n, (column, way)))["rowData"]
        values = [record[column] for record in rows]
        if column == "owner":
            values = [value.lower() for value in values if value != "—"]
        assert values == sorted(values, reverse=way == "desc")


def test_a_call_narrows_the_table_to_what_it_made(store: TraceStore) -> None:
    data, moment = moment_data(store), moment_of(store)
    query, stacks = Query.from_data(data), moment.device.trace.stacks
    row = int(moment.rows[0])
    path = tuple(stacks.frames_of(int(moment.lifetimes.allocations.stack_id[row]))[::-1].tolist())
    narrowing = Narrowing(FlameKind.CALLS, path, own_only=False)
    rows = rows_for(store, data, asked(narrow=narrowing.data(query)), request())
    assert str(row) in [record["row"] for record in rows["rowData"]]
    assert rows["rowCount"] == len(narrowing.rows(moment)) < len(moment.rows)
    shown = allocations.update(store, data, None, None, "allocation", narrowing.data(query), None)[2]
    assert narrowing.label(moment.device.trace) in text_of(shown)
    foreign = narrowing.data(query) | {"trace": "other.memscope"}
    assert rows_for(store, data, asked(narrow=foreign), request())["rowCount"] == len(moment.rows)


def test_nothing_found_is_said(store: TraceStore) -> None:
    *_, class_name = allocations.update(store, moment_data(store), "no such thing", None, "allocation", None, None)
    assert class_name == "grid-nothing"


def test_rows_are_answered_over_http(app: Dash, store: TraceStore) -> None:
    values = page_values(moment_data(store)) | {"allocations-grid.getRowsRequest": request(0, 3)}
    status, answer, _ = post(app, "allocations-grid.getRowsResponse", values)
    assert status == 200
    assert len(answer["response"]["allocations-grid"]["getRowsResponse"]["rowData"]) == 3


def many(n: int) -> Analysis:
    """As many live allocations, each in a segment of its own."""
    builder = TraceBuilder()
    frames = [builder.stacks.frame(f"f{i}", f"/home/me/{i % 20}.py", i) for i in range(200)]
    stacks = [builder.stacks.stack([frames[i % 200], frames[i // 200], frames[0]]) for i in range(2_000)]
    address = 1 << 40
    for i in range(n):
        size = (6 + i % 30) * 2 * MiB
        builder.add_event(Action.SEGMENT_ALLOC, address=address, size_bytes=size)
        builder.add_event(Action.ALLOC, address=address, size_bytes=size, stack_id=stacks[i % 2_000])
        if i % 2:
            builder.set_owner(2 * i + 1, Category.ACTIVATIONS, f"model.layers.{i % 997}.x{i % 7}")
        segment_id = builder.add_segment(address=address, size_bytes=size, is_large=True)
        builder.add_block(
            segment_id, address=address, size_bytes=size, requested_bytes=size, state=BlockState.ACTIVE_ALLOCATED
        )
        address += size + 2 * MiB
    return Analysis(builder.build(TraceMetadata(source="synthetic", alloc_conf="")))


def test_a_hundred_thousand_rows_answer_within_a_fifth_of_a_second(tmp_path: Path) -> None:
    store = TraceStore([write_container(many(100_000).trace, tmp_path / "many.memscope")])
    query = Query("many.memscope").resolved(store)
    assert query.analysis(store).device(0).attribution is not None
    rows_for(store, query.data(), asked(), request())
    seconds: dict[tuple[str, str | None], list[float]] = {}
    event = query.data()["event"]
    for by, search in [("allocation", None), ("site", None), ("allocation", "layers.3 x1")]:
        for _ in range(3):
            event -= 2
            begin = time.process_time()
            rows_for(
                store, query.data() | {"event": event}, asked(by, search=search), request(0, 100, ("owner", "asc"))
            )
            seconds.setdefault((by, search), []).append(time.process_time() - begin)
    assert max(map(min, seconds.values())) < 0.2, seconds
