"""The report of a recorded cache: its moment, and how its tokens are known."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from memscope.analysis import Analysis
from memscope.reports.kv_cache import lens_json, lens_report, print_lens
from memscope.words.kv_cache import layer_runs
from tests.kv_cache.serving_program import Program, generate
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    program = Program()
    program.drop(generate(program, prompt=40, n_new=3))
    program.malloc(1 << 20, "vllm").is_told = False
    return program.analysis()


def text_of(analysis: Analysis, *reports: object) -> str:
    console = Console(file=io.StringIO(), width=140)
    print_lens(analysis, reports, console)  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_moment_is_the_caches_peak_unless_another_is_asked_for(analysis: Analysis) -> None:
    peak, end = (
        lens_report(analysis.opinions(0).kv_lens),
        lens_report(analysis.opinions(0).kv_lens, event=analysis.device(0).lifetimes.last_event),
    )
    assert peak is not None
    assert end is not None
    assert peak.event == peak.lens.peak_event
    assert end.total.block_bytes == end.total.untold_bytes == 1 << 20
    assert peak.total.block_bytes > end.total.block_bytes
    done: list[tuple[int, int]] = []
    assert lens_report(analysis.opinions(0).kv_lens, on_done=lambda n, n_all: done.append((n, n_all))) is not None
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_how_many_tokens_are_held_says_how_it_is_known(analysis: Analysis) -> None:
    peak = lens_report(analysis.opinions(0).kv_lens)
    assert peak is not None
    assert peak.held_tokens() == (84, "as the program's own cache counted them after its last pass")
    end = lens_report(analysis.opinions(0).kv_lens, event=analysis.device(0).lifetimes.last_event, token_bytes=1024)
    assert end is not None
    assert end.held_tokens() == (None, "only the owner of these tensors knows")
    (pool,) = end.lens.pools_at(end.event)
    assert end.room_tokens(pool) == 1024
    assert "room for 1,024 tokens" in text_of(analysis, end)


def test_text_and_object_have_the_same_device(analysis: Analysis) -> None:
    report = lens_report(analysis.opinions(0).kv_lens)
    assert report is not None
    (device,) = lens_json(analysis, [report])["devices"]
    assert device["growth"]["n_copies"] == report.lens.cost.n_copies == 18
    assert [one["name"] for one in device["growth"]["replays"]] == [one.name for one in report.replay.alternatives]  # type: ignore[union-attr]
    text = text_of(analysis, report)
    assert "It grows by copying: 18 copies moved" in text
    assert all(name in text for name, _, _ in layer_runs(report.lens.by_layer(report.event)))


def test_without_a_cache_there_is_no_report() -> None:
    analysis = Analysis(training_trace())
    assert lens_report(analysis.opinions(0).kv_lens) is None
    assert lens_json(analysis, [])["devices"] == []
    assert "No key/value cache is known of in this trace." in text_of(analysis)
