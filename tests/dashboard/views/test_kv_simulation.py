"""The KV-cache view's simulation without a browser: what it asks, what it shows on the way, what it says at the end."""

from __future__ import annotations

import gzip
import json
import threading
import time
from typing import Any

import pytest
from dash.exceptions import PreventUpdate
from memscope_dashboard import kv_board
from memscope_dashboard.components.kv import LABELS, VALUES
from memscope_dashboard.kv_board import KvBoard, asked_of
from memscope_dashboard.kv_uploads import UPLOAD_PREFIX
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import kv_simulation as view
from plotly.utils import PlotlyJSONEncoder

from memscope.serving.result import KvResult
from memscope.serving.simulate import simulate
from memscope.units import format_bytes
from memscope.words.serving import budget_finding, serving_finding
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.pages import PLAIN, sent, text_of

SUBJECT = {"trace": "train.memscope", "device": 0}


TWO = {"model": "llama-3-8b", "gpu": "L4-24GB", "capacity": "20GiB", "managers": ["paged", "max-length"], "n": 40}
"""Little memory, so that it decides; few requests, so that it is fast."""


def show(store: TraceStore, trigger: str | None = None, **given: Any) -> dict[str, Any]:
    page = {name: given.pop(name) for name in ("selected", "seen", "ran") if name in given}
    return view.update(store, trigger, SUBJECT, "light", TWO | given, **page)


def finished(store: TraceStore, **given: Any) -> dict[str, Any]:
    """What the view shows once nothing goes on any more."""
    end = time.monotonic() + WAIT_S
    shown: dict[str, Any] = {}
    while time.monotonic() < end:
        shown = show(store, **given)
        if shown["kv-tick.disabled"]:
            return shown
        time.sleep(0.02)
    raise AssertionError(shown["kv-progress.children"])


def ran(store: TraceStore, **given: Any) -> dict[str, Any]:
    show(store, "kv-run", **given)
    return finished(store, **given)


def results_of(store: TraceStore, **given: Any) -> list[KvResult]:
    """The same question asked of the library."""
    asked, errors = asked_of(TWO | given)
    assert asked is not None, errors
    return [simulate(job) for job in view.board_of(store).plan(asked).jobs]


class Gate:
    """Lets replays through one at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Semaphore(0)
        self.calls: list[tuple[str, int]] = []

        def gated(job: Any, on_done: Any) -> KvResult:
            self.calls.append((job.manager, job.options.block_size))
            assert self.open.acquire(timeout=WAIT_S)
            on_done(0, len(job.requests))
            return simulate(job, on_done)

        monkeypatch.setattr(kv_board, "simulate", gated)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def test_before_a_run_the_budget_is_there_line_by_line(board_store: TraceStore) -> None:
    shown = show(board_store)
    asked, _ = asked_of(TWO)
    assert asked is not None
    plan = view.board_of(board_store).plan(asked)
    assert text_of(shown["kv-title.children"]) == budget_finding(plan)
    words = text_of(shown["kv-budget.children"])
    for row in plan.budget.rows:
        assert row.name in words
        assert (row.bytes is None) or (row.source in words and format_bytes(row.bytes) in words)
    assert "not measured" in words
    assert "hidden" in shown["kv-results.className"]
    assert shown["kv-run.disabled"] is False
    assert shown["kv-tick.disabled"] is True


def test_a_run_says_what_the_library_says(board_store: TraceStore) -> None:
    shown = ran(board_store)
    results = results_of(board_store)
    assert text_of(shown["kv-title.children"]) == serving_finding(results)
    rows = {row["row"]: row for row in shown["kv-grid.rowData"]}
    assert list(rows) == ["max-length", "paged (16)"]
    for result, row in zip(results, rows.values(), strict=True):
        assert row["tokens"] == result.kv_token_share_frac
        assert row["peak"] == result.peak_concurrent_requests
        assert row["preempted"] == result.n_preemptions
        assert row["context"] == result.longest_context_tokens
        assert row["rate"] == result.requests_per_s
        parts = [row[name] for name in ("tokens", "reservation", "internal", "external")]
        assert sum(parts) == pytest.approx(1)
    assert shown["kv-grid.selectedRows"] == {"ids": ["paged (16)"]}
    assert shown["kv-time-title.children"] == "paged (16): memory over time"
    assert "exact in the model" in text_of(shown["kv-notes.children"])
    assert "estimates" in text_of(shown["kv-notes.children"])
    assert shown["kv-run.disabled"] is True
    assert len(json.dumps([shown["kv-time.figure"], shown["kv-shares.figure"]], cls=PlotlyJSONEncoder)) < 500_000


def test_the_row_selected_is_the_one_whose_memory_is_drawn(board_store: TraceStore) -> None:
    ran(board_store)
    shown = show(board_store, "kv-grid", selected=[{"row": "max-length"}])
    assert shown["kv-time-title.children"] == "max-length: memory over time"
    assert "max-length" in shown["kv-time-picture.aria-label"]
    with pytest.raises(PreventUpdate):
        show(board_store, "kv-grid", selected=[{"row": "max-length"}], seen=shown["kv-seen.data"])


def test_progress_is_shown_and_a_run_can_be_cancelled_and_taken_up(board_store: TraceStore, gate: Gate) -> None:
    first = show(board_store, "kv-run")
    assert first["kv-tick.disabled"] is False
    assert first["kv-cancel.style"] == {}
    assert first["kv-run.disabled"] is True
    gate.open.release()
    end = time.monotonic() + WAIT_S
    while len(gate.calls) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    shown = show(board_store)
    assert text_of(shown["kv-title.children"]).startswith("After 1 of 2 replays: ")
    assert shown["kv-meter.value"] == pytest.approx(50)
    assert [row["tokens_text"] for row in shown["kv-grid.rowData"]][1] == "…"
    show(board_store, "kv-cancel")
    gate.open.release()
    shown = finished(board_store)
    assert shown["kv-progress.children"] == "Cancelled: 1 of 2 managers done."
    assert shown["kv-run.children"] == "Run the rest"
    gate.open.release(5)
    shown = ran(board_store)
    assert shown["kv-run.children"] == "Run"
    assert [name for name, _ in gate.calls] == ["max-length", "paged", "paged"]


def test_what_was_simulated_is_not_simulated_again(board_store: TraceStore, gate: Gate) -> None:
    gate.open.release(100)
    ran(board_store)
    ran(board_store, **{"block-sizes": ["32", "16"]})
    assert gate.calls[2:] == [("paged", 32)]
    shown = show(board_store)
    assert shown["kv-run.disabled"] is True
    ran(board_store, rate=3)
    assert len(gate.calls) == 5


def test_other_controls_keep_the_old_answer_in_sight_and_say_so(board_store: TraceStore) -> None:
    before = ran(board_store)
    shown = show(board_store, n=41, ran=before["kv-ran.data"])
    assert "stale" in shown["kv-results.className"]
    assert "run before" in shown["kv-progress.children"]
    assert shown["kv-grid.rowData"] == before["kv-grid.rowData"]
    assert "leaves" in text_of(shown["kv-title.children"])
    assert shown["kv-run.disabled"] is False
    assert "stale" not in show(board_store, ran=before["kv-ran.data"])["kv-results.className"]


def test_several_block_sizes_are_drawn_as_a_sweep(board_store: TraceStore) -> None:
    assert ran(board_store)["kv-sweep-panel.style"] == {"display": "none"}
    shown = ran(board_store, **{"block-sizes": ["16", "64", "256"]})
    assert shown["kv-sweep-panel.style"] == {}
    share, peak = shown["kv-sweep.figure"].data
    assert list(share.x) == ["16", "64", "256"]
    swept = [r for r in results_of(board_store, **{"block-sizes": ["16", "64", "256"]}) if r.manager == "paged"]
    assert list(peak.y) == [result.peak_concurrent_requests for result in swept]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"capacity": "24 parsecs"}, "GPU memory: '24 parsecs' is not a size"),
        ({"n": 0}, "How many: a number from 1"),
        ({"n": 2.5}, "How many: a whole number"),
        ({"n": "x"}, "How many: a number from 1"),
        ({"n": 50_000, "lengths": "long-prompt"}, "How many: a number from 1 to 6,250"),
        ({"rate": -1}, "Per second: a number from"),
        ({"shared": 101}, "Shared prefix: a number from 0 to 100"),
        ({"block-sizes": ["16", "many"]}, "Block sizes: 'many' is not a number of tokens"),
        ({"preemption": "swap"}, "Swap space: swapping needs some"),
        ({"capacity": "0"}, "GPU memory: more than 0 is needed"),
        ({"capacity": "16GiB"}, "Nothing is left for keys and values"),
        ({"tensor-parallel": 3}, "8 key/value heads cannot be spread over 3 GPUs"),
        ({"model": "/etc/passwd"}, "There is no model '/etc/passwd'"),
        ({"managers": ["paged-prefix"], "block-sizes": ["24"]}, None),
    ],
)
def test_what_cannot_be_is_one_line_at_the_run_button(
    board_store: TraceStore, given: dict[str, Any], words: str | None
) -> None:
    shown = show(board_store, "kv-run", **given)
    if words is None:
        assert "a block size must divide" in text_of(finished(board_store, **given)["kv-notes.children"])
        return
    assert words in shown["kv-refusal.children"]
    assert "\n" not in shown["kv-refusal.children"]
    assert "--" not in shown["kv-refusal.children"]
    assert shown["kv-run.disabled"] is True
    marked = [name for name in LABELS if shown[f"kv-{name}.error"]]
    assert len(marked) == (1 if words.split(":")[0] in LABELS.values() else 0)
    assert view.board_of(board_store)._job is None


def test_requests_that_fit_nowhere_are_said_in_the_notes(board_store: TraceStore) -> None:
    shown = ran(board_store, **{"max-length": 4})
    assert "none of 40 requests fits" in text_of(shown["kv-notes.children"])
    assert text_of(shown["kv-title.children"]) == "No request could be served"
    assert [row["tokens_text"] for row in shown["kv-grid.rowData"]] == ["—", "—"]


def test_a_defect_ends_the_run_with_a_message(
    board_store: TraceStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(job: Any, on_done: Any) -> KvResult:
        raise IndexError("off by one")

    monkeypatch.setattr(kv_board, "simulate", breaks)
    shown = ran(board_store)
    assert "IndexError: off by one" in shown["kv-progress.children"]
    assert shown["kv-run.disabled"] is False
    assert "off by one" in caplog.text


def test_a_tick_without_news_changes_nothing(board_store: TraceStore) -> None:
    shown = ran(board_store)
    with pytest.raises(PreventUpdate):
        show(board_store, "kv-tick", seen=shown["kv-seen.data"], ran=shown["kv-ran.data"])


def test_a_configuration_that_was_sent_can_be_chosen(board_store: TraceStore) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 100,
        "_name_or_path": "tiny",
    }
    id_, problem, contents = view.send_config(board_store, sent(json.dumps(config).encode()), "config.json")
    assert id_.startswith(UPLOAD_PREFIX)
    assert not problem
    assert contents is None
    shown = show(board_store, model=id_)
    assert {"value": id_, "label": "tiny (sent)"} in shown["kv-model.data"]
    assert "tiny on L4-24GB" in text_of(shown["kv-title.children"])
    _, problem, _ = view.send_config(board_store, sent(b'{"hidden_size": "x"}'), "../../broken.json")
    assert "broken.json" in problem
    assert "/" not in problem
    with pytest.raises(PreventUpdate):
        view.send_config(board_store, None, None)


def test_requests_that_were_sent_are_served(board_store: TraceStore) -> None:
    asked = {"lengths": "file"}
    assert "Choose a file" in show(board_store, **asked)["kv-progress.children"]
    id_, problem, _ = view.send_requests(board_store, sent(gzip.compress(PLAIN)), "three.csv.gz")
    assert not problem
    shown = ran(board_store, **asked, **{"requests-file": id_, "first": 2})
    assert "2 requests from three.csv (plain CSV)" in shown["kv-note.children"]
    assert shown["kv-made.style"] == {"display": "none"}
    assert text_of(shown["kv-requests-upload.children"]) == "three.csv.gz"
    _, problem, _ = view.send_requests(board_store, sent(PLAIN + b"2,x,5\n"), "bad.csv")
    assert problem == "bad.csv: row 5: 'x' is not a number of tokens from 1"
    gone = show(board_store, **asked, **{"requests-file": f"{UPLOAD_PREFIX}0:old.csv"})
    assert "old.csv is not kept any longer: choose the file again" in gone["kv-refusal.children"]


def test_what_is_missing_is_asked_for_by_the_name_of_its_control(board_store: TraceStore) -> None:
    config = {"model_type": "odd", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8}
    model, problem, _ = view.send_config(board_store, sent(json.dumps(config).encode()), "config.json")
    assert not problem
    refusal = show(board_store, model=model)["kv-refusal.children"]
    assert "model type 'odd' are not known: give the weight size (known:" in refusal


def test_every_control_with_a_value_is_in_the_layout() -> None:
    part = view.layout()
    ids = {one.id for one in part._traverse() if isinstance(getattr(one, "id", None), str)}
    assert {f"kv-{name}" for name in VALUES} <= ids
    assert {name.rsplit(".", 1)[0] for name in view.OUTPUTS} <= ids


def test_two_pages_share_a_board_and_the_later_run_takes_the_place_of_the_earlier(
    board_store: TraceStore, gate: Gate
) -> None:
    show(board_store, "kv-run")
    show(board_store, "kv-run", n=41)
    gate.open.release(10)
    assert finished(board_store, n=41)["kv-progress.children"] == ""
    assert finished(board_store)["kv-run.disabled"] is False
    board = view.board_of(board_store)
    assert isinstance(board, KvBoard)
    assert board is view.board_of(board_store)
