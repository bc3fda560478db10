"""The fragmentation view: the library's numbers, pins that can be pinned, and what is not measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import fragmentation
from memscope_dashboard.views.fragmentation import allocation_of, pin_rows

from memscope.trace.container import write_container
from memscope.units import format_bytes
from memscope.words.headlines import fragmentation_finding
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.pages import text_of
from tests.training_trace import training_trace


@pytest.fixture
def data(store: TraceStore) -> dict[str, Any]:
    """A moment at which live blocks hold free memory."""
    return Query("train.memscope", 0, 60).data()


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> TraceStore:
    """A recording without segment events."""
    trace = training_trace()
    trace = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, has_segment_events=False))
    path: Path = write_container(trace, tmp_path_factory.mktemp("blind") / "blind.memscope")
    store = TraceStore([path])
    store.close(WAIT_S)
    return store


def test_the_view_shows_the_moments_numbers(store: TraceStore, data: dict[str, Any]) -> None:
    title, _, tiles, chips, holes_title, *_ = fragmentation.update(store, data, "light", "event")
    moment = Query.from_data(data).moment(store)
    assert text_of(title) == fragmentation_finding(moment)
    assert format_bytes(moment.ledger["free_pinned"]) in text_of(tiles)
    assert format_bytes(moment.active_bytes) in text_of(chips)
    overall = moment.fragmentation.overall
    assert holes_title.startswith(f"{overall.n_free_blocks} free blocks, {format_bytes(overall.free_bytes)}")


def test_the_worst_moments_are_linked(store: TraceStore, data: dict[str, Any]) -> None:
    tiles = fragmentation.update(store, data, "light", "event")[2]
    links = [part.href for tile in tiles for part in tile._traverse() if getattr(part, "href", None)]
    summary = store.analysis("train.memscope").device(0).fragmentation_over_time
    assert summary is not None
    wanted = (summary.worst[0].event, summary.lowest_utilisation_event, summary.smallest_largest_request_event)
    assert links == [f"/fragmentation{Query('train.memscope', 0, event).search()}" for event in wanted]


def test_each_pin_is_a_row_whose_click_pins_its_largest_block(store: TraceStore, data: dict[str, Any]) -> None:
    moment = Query.from_data(data).moment(store)
    rows, n_all = pin_rows(moment)
    pins = moment.pins(10**6)
    assert n_all == len(rows) == len(pins) > 0
    assert len({row["row"] for row in rows}) == len(rows)
    for row, pin in zip(rows, pins, strict=True):
        assert row["held"] == pin.held_bytes
        assert row["returned"] == pin.returned_bytes
        assert f"at {pin.segment_address:#x}" in row["segment_exact"]
        assert allocation_of(row["row"]) == pin.allocation_ids[0]


def test_pins_beyond_the_limit_are_counted(store: TraceStore, data: dict[str, Any]) -> None:
    moment = Query.from_data(data).moment(store)
    rows, n_all = pin_rows(moment, 1)
    assert len(rows) == 1 < n_all
    assert f"The 1 of {n_all} that hold most" in fragmentation.pin_note(moment, 1, n_all)


def test_the_moments_line_and_the_zoom_are_those_of_the_timeline(store: TraceStore, data: dict[str, Any]) -> None:
    subject = {"trace": "train.memscope", "device": 0}
    window = {"axis": "event", **subject, "low": 10.0, "high": 20.0}
    whole, hidden = fragmentation.draw(store, subject, "dark", "event", None, data)
    zoomed, shown = fragmentation.draw(store, subject, "dark", "event", window, data)
    assert whole.layout.shapes[0].x0 == 60
    assert list(zoomed.layout.xaxis.range) == [10, 20]
    assert hidden == {"visibility": "hidden"}
    assert shown == {"visibility": "visible"}


def test_what_was_not_measured_is_said_everywhere(blind: TraceStore) -> None:
    data = Query("blind.memscope").resolved(blind).data()
    title, _, tiles, chips, holes_title, legend, _, rows, note, _ = fragmentation.update(blind, data, "light", "event")
    assert "not measured" in text_of(title)
    assert text_of(tiles).count("not measured") == 4
    assert "not measured" in holes_title
    assert "Not measured" in note
    assert rows == chips == legend == []
    figure = fragmentation.draw(blind, {"trace": "blind.memscope", "device": 0}, "light", "event", None, data)[0]
    assert "not measured" in figure.layout.annotations[0].text
