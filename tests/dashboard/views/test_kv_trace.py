"""The key/value cache of the open trace in the dashboard: the library's numbers, and replays in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import kv_trace
from memscope_dashboard.views.kv_trace import KvLensBoard, caches_table, growth_table

from memscope.trace.container import write_container
from memscope.units import format_bytes
from memscope.words.kv_cache import cache_finding, growth_verdict
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.pages import text_of


@pytest.fixture
def data(serving: TraceStore) -> dict[str, Any]:
    analysis = serving.analysis("serving.memscope")
    return Query("serving.memscope", 0, analysis.opinions(0).kv_lens.peak_event).data()


def test_the_view_shows_the_lens_at_the_moment(serving: TraceStore, data: dict[str, Any]) -> None:
    title, _, chips, layers, figure, caches, pools, shown = kv_trace.update(serving, data, "light", "event", "layer")
    lens = serving.analysis("serving.memscope").opinions(0).kv_lens
    total = lens.total_at(data["event"])
    assert text_of(title) == cache_finding(lens, data["event"])
    assert format_bytes(total.token_bytes) in text_of(chips)
    assert layers.startswith("4 layers")
    assert len(figure.layout.yaxis.ticktext) == 4
    assert "DynamicLayer × 4" in text_of(caches)
    assert pools == []
    assert shown == "panel-stack"


def test_caches_can_be_drawn_in_place_of_layers(serving: TraceStore, data: dict[str, Any]) -> None:
    end = data | {"event": serving.analysis("serving.memscope").device(0).lifetimes.last_event}
    layers, figure = kv_trace.update(serving, end, "dark", "time", "cache")[3:5]
    assert layers == "1 cache at this moment"
    assert list(figure.layout.yaxis.ticktext) == ["cache 2"]


def test_a_trace_without_a_cache_says_how_one_would_be_known(serving: TraceStore) -> None:
    query = Query("train.memscope", 0, 5)
    title, note, *_, shown = kv_trace.update(serving, query.data(), "light", "event", "layer")
    assert title == "No key/value cache is known of in this trace"
    assert "register_kv_cache" in note
    assert shown == "panel-stack hidden"
    assert kv_trace.update_growth(serving, query.data())[2] is True


def test_an_engines_pool_is_named(serving: TraceStore) -> None:
    title, *_, caches, pools, _ = kv_trace.update(
        serving, Query("pool.memscope", 0, 1).data(), "light", "event", "layer"
    )
    assert "only its owner knows" in text_of(title)
    assert "was not recorded" in text_of(caches)
    assert text_of(pools).startswith("the engine's: 1.0 GiB in 1 tensor.")


def test_what_growing_cost_is_replayed_in_the_background_once(serving: TraceStore, data: dict[str, Any]) -> None:
    analysis = serving.analysis("serving.memscope")
    board = KvLensBoard(analysis.opinions(0).kv_lens, serving.jobs)
    assert board.wait(WAIT_S).state == "done"
    replay = board.replay
    assert replay is not None
    again = board.begin()
    assert (again.state, board.replay) == ("done", replay)
    subject = {"trace": "serving.memscope", "device": 0}
    title, table, is_done = kv_trace.update_growth(serving, subject)
    while not is_done:
        title, table, is_done = kv_trace.update_growth(serving, subject)
    assert growth_verdict(replay) in text_of(title)
    for one in replay.alternatives:
        assert format_bytes(one.result.peak_reserved_bytes) in text_of(table)
    assert text_of(growth_table(analysis.opinions(0).kv_lens, None)).startswith("Old tensors")


def test_many_caches_are_cut_short(monkeypatch: pytest.MonkeyPatch, serving: TraceStore) -> None:
    monkeypatch.setattr("memscope_dashboard.views.kv_trace.N_CACHES", 1)
    assert "1 smaller ones are not shown" in text_of(
        caches_table(serving.analysis("serving.memscope").opinions(0).kv_lens)
    )


def test_the_picture_over_the_run_is_wired(serving: TraceStore, data: dict[str, Any]) -> None:
    subject = {"trace": "serving.memscope", "device": 0}
    figure, style = kv_trace.draw(serving, subject, "light", "event", None, data)
    assert {trace.name for trace in figure.data} >= {"tokens", "stale", "tokens held"}
    assert style == {"visibility": "hidden"}


def test_files_are_small(serving: TraceStore, tmp_path: Path) -> None:
    """A length for each token and a description for each layer cost little."""
    trace = serving.analysis("serving.memscope").trace
    file = write_container(trace, tmp_path / "again.memscope")
    assert file.stat().st_size / trace.n_events < 40
