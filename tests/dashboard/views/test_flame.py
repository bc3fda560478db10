"""The flame graph's view without a browser: focus, crumbs, filters, empty states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memscope_dashboard.narrowing import Narrowing
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import flame

from memscope.figures.flames.flame import FlameKind
from memscope.trace.container import write_container
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes
from tests.dashboard.pages import largest_path, moment_data, text_of
from tests.naive_layout import random_layout


def updated(store: TraceStore, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    values = [more.get("kind", "calls"), more.get("own", True), more.get("categories"), more.get("narrow")]
    names = ("title", "note", "chips", "crumbs", "figure", "style", "is_by_module")
    return dict(zip(names, flame.update(store, data, "light", *values), strict=True))


def test_the_first_box_is_what_is_allocated_and_names_where_it_lies(store: TraceStore) -> None:
    data = moment_data(store)
    found = updated(store, data)
    moment = Query.from_data(data).moment(store)
    assert found["figure"].data[0].values[0] == moment.allocated_bytes
    assert found["figure"].layout.meta == {
        "trace": "train.memscope",
        "device": 0,
        "kind": "calls",
        "path": [],
        "own": True,
    }
    assert format_bytes(moment.allocated_bytes) in text_of(found["title"])
    assert found["crumbs"] == []


@pytest.mark.parametrize("kind", FlameKind)
def test_a_chosen_box_comes_to_the_top_with_the_way_to_it(store: TraceStore, kind: FlameKind) -> None:
    data = moment_data(store)
    query = Query.from_data(data)
    path = largest_path(store, data, kind)
    narrow = Narrowing(kind, tuple(path[:1]), own_only=kind is FlameKind.CALLS)
    found = updated(store, data, kind=kind.value, narrow=narrow.data(query))
    assert found["figure"].layout.meta["path"] == path[:1]
    moment = query.moment(store)
    rows = narrow.rows(moment)
    assert found["figure"].data[0].values[0] == int(moment.lifetimes.allocations.block_bytes[rows].sum())
    assert narrow.label(moment.device.trace) in text_of(found["crumbs"])


def test_a_box_without_others_below_is_outlined_among_its_neighbours(store: TraceStore) -> None:
    data = moment_data(store)
    path = largest_path(store, data)
    narrow = Narrowing(FlameKind.CALLS, tuple(path), own_only=True).data(Query.from_data(data))
    icicle = updated(store, data, narrow=narrow)["figure"].data[0]
    assert sum(width > 1 for width in icicle.marker.line.width) == 1
    (chosen,) = [key for key, width in zip(icicle.customdata, icicle.marker.line.width, strict=True) if width > 1]
    assert chosen == path[-1]


def test_a_choice_made_in_the_other_tree_leaves_this_one_whole(store: TraceStore) -> None:
    data = moment_data(store)
    narrow = Narrowing(FlameKind.CALLS, tuple(largest_path(store, data)[:1]), own_only=True).data(Query.from_data(data))
    for other in ({"own": False}, {"kind": "modules"}):
        figure = updated(store, data, narrow=narrow, **other)["figure"]
        assert figure.data[0].values[0] == Query.from_data(data).moment(store).allocated_bytes


def test_categories_are_a_filter(store: TraceStore) -> None:
    data = moment_data(store)
    whole, weights = updated(store, data), updated(store, data, categories=["weights"])
    assert 0 < weights["figure"].data[0].values[0] < whole["figure"].data[0].values[0]
    assert "of weights" in text_of(weights["title"])
    assert "weights" in text_of(whole["chips"])


def test_a_recording_without_stacks_says_how_to_get_them(tmp_path: Path) -> None:
    trace = random_layout(5, 60).trace()
    bare = replace(trace, stack_id=np.full(trace.n_events, NONE_ID))
    store = TraceStore([write_container(bare, tmp_path / "bare.memscope")])
    data = moment_data(store, "bare.memscope")
    calls = updated(store, data)
    assert "_record_memory_history" in text_of(calls["crumbs"])
    assert calls["style"] == {"display": "none"}
    assert "model=model" in text_of(updated(store, data, kind="modules")["crumbs"])
    assert "Nothing is allocated" in text_of(updated(store, data | {"event": -1})["crumbs"])
