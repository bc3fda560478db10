"""The what-if view without a browser: the numbers of ``memscope whatif --json``, what the address says, what fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from dash.exceptions import PreventUpdate
from memscope_dashboard.app import create_app
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import whatif as view
from memscope_dashboard.views.whatif import asked_of_address, board_of, card_looks, checked

from memscope.cli.main import cli
from memscope.units import format_bytes
from tests.dashboard.conftest import TRACES, WAIT_S
from tests.dashboard.pages import FITTING, OUT_OF_MEMORY, moment_data, page_values, post, text_of

SUBJECT = {"trace": FITTING, "device": 0}


@pytest.fixture(scope="module")
def two() -> Iterator[TraceStore]:
    store = TraceStore([TRACES / FITTING, TRACES / OUT_OF_MEMORY])
    yield store
    store.close(WAIT_S)


def truth_of(trace: str, *options: str) -> dict[str, Any]:
    found = CliRunner().invoke(cli, ["whatif", str(TRACES / trace), *options, "--json"])
    assert found.exit_code == 0, found.output
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def finished(store: TraceStore, subject: dict[str, Any] = SUBJECT, **controls: Any) -> dict[str, Any]:
    """What the view shows of a page that is opened once all is known."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        shown = view.update(store, "subject", subject, "light", **controls)
        if shown["whatif-tick.disabled"]:
            return shown
        time.sleep(0.02)
    raise AssertionError(shown["whatif-progress.children"])


def test_every_technique_is_there_as_the_command_line_has_it(two: TraceStore) -> None:
    truth = truth_of(FITTING, "--all")
    shown = finished(two)
    table = text_of(shown["whatif-table.children"])
    for result in truth["results"]:
        assert result["technique"] in table
        assert format_bytes(result["peak_reserved_bytes"]) in table
    best = truth["results"][0]
    title = text_of(shown["whatif-title.children"])
    assert f"{best['technique']} saves most, {format_bytes(best['saved_bytes'])} of" in title
    n_saving = sum(result["saved_bytes"] > 0 for result in truth["results"])
    assert title.startswith(f"{n_saving} techniques")
    assert format_bytes(truth["baseline"]["peak_reserved_bytes"]) in text_of(shown["whatif-note.children"])
    assert shown["whatif-together.className"].endswith("hidden")


def test_what_the_address_applies_is_what_the_command_line_applies(two: TraceStore) -> None:
    names = ["checkpoint:every=1", "optimizer:8bit"]
    truth = truth_of(FITTING, "--apply", names[0], "--apply", names[1])["together"]
    search = "?apply=checkpoint%3Aevery%3D1+optimizer%3A8bit&gpu=T4-16GB&measure=allocated"
    shown = finished(two, search=search)
    assert shown["whatif-applied.value"] == names
    assert shown["whatif-gpu.value"] == "T4-16GB"
    assert shown["whatif-measure.value"] == "allocated"
    assert shown["whatif-asked.data"] == {"apply": " ".join(names), "gpu": "T4-16GB", "measure": "allocated"}
    words = text_of(shown["whatif-tiles.children"])
    assert format_bytes(truth["saved_bytes"]) in words
    assert format_bytes(truth["saved_allocated_bytes"]) in words
    figure = shown["whatif-graph.figure"]
    peak = f"{truth['peak_allocated_bytes']:,} bytes"
    assert any(text.endswith(peak) for text in figure.data[1].customdata)
    assert all(how in text_of(shown["whatif-recipe.children"]) for how in truth["how"])
    plan = truth_of(FITTING, "--fit", "T4-16GB")
    assert plan["fits"]
    assert "Fits T4-16GB" in text_of(shown["whatif-plan.children"])


def test_an_address_is_read_with_care() -> None:
    assert asked_of_address("?apply=a+b+a&gpu=nonsense&measure=x") == (["a", "b"], "", "reserved")
    assert asked_of_address(None) == ([], "", "reserved")
    names, problem = checked(["micro-batch:2", "nonsense", "micro-batch:2 ", "micro-batch:4", " "])
    assert names == ("micro-batch:2",)
    assert problem is not None
    assert "there is no technique 'nonsense'" in problem
    assert "ask for one of them" in problem
    assert checked(None) == ((), None)


def test_what_does_not_apply_says_so_and_the_rest_stands(two: TraceStore) -> None:
    shown = finished(two, search="?apply=kv%3Afp8")
    assert "no key/value cache was seen" in shown["whatif-progress.children"]
    assert shown["whatif-together.className"].endswith("hidden")
    assert "micro-batch:2" in text_of(shown["whatif-cards.children"])
    assert shown["whatif-resume.style"] == {}


def test_a_run_that_failed_says_what_its_numbers_are_of(two: TraceStore) -> None:
    shown = finished(two, {"trace": OUT_OF_MEMORY, "device": 0})
    note = text_of(shown["whatif-note.children"])
    assert "had the request for 64.0 MiB not failed" in note
    assert "Memory ran out in this recording" in note


def test_a_page_that_shows_all_already_is_not_drawn_again(two: TraceStore) -> None:
    shown = finished(two)
    again = view.update(two, "whatif-tick", SUBJECT, "light", seen=shown["whatif-seen.data"])
    assert "whatif-cards.children" not in again
    assert again["whatif-tick.disabled"]
    dark = view.update(two, "scheme", SUBJECT, "dark", seen=shown["whatif-seen.data"])
    assert "whatif-title.children" in dark
    assert "whatif-cards.children" not in dark  # a button that was used keeps the focus
    other = view.update(two, "subject", {"trace": OUT_OF_MEMORY, "device": 0}, "dark", seen=shown["whatif-seen.data"])
    assert "whatif-cards.children" in other
    assert card_looks(["a", "b"], ["b"])[2] == ["false", "true"]
    assert card_looks([], None) == [[], [], [], []]
    with pytest.raises(PreventUpdate):
        view.update(two, None, None, "light")


def test_what_is_cancelled_says_so_and_is_taken_up_again() -> None:
    store = TraceStore([TRACES / FITTING])
    board_of(store, view.Query(FITTING, 0))
    view.update(store, "subject", SUBJECT, "light")
    shown = view.update(store, "whatif-cancel", SUBJECT, "light", seen="")
    assert shown["whatif-tick.disabled"] or shown["whatif-cancel.style"] == {}
    assert finished(store)["whatif-table.children"] is not None
    store.close(WAIT_S)


def test_the_answer_is_small_and_buttons_put_techniques_in(two: TraceStore) -> None:
    finished(two, search="?apply=micro-batch%3A2")
    app = create_app(two)
    values = page_values(moment_data(two, FITTING)) | {"url.search": "?apply=micro-batch%3A2"}
    status, answer, n_bytes = post(app, "whatif-title.children", values)
    assert status == 200
    assert n_bytes < 300_000
    assert answer["response"]["whatif-applied"]["value"] == ["micro-batch:2"]
