"""The comparison's head: which moments are compared, what the address says, and what stands there without a second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from memscope_dashboard.app import create_app
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import compare
from memscope_dashboard.views.compare import address_fields

from memscope.errors import UsageError
from tests.dashboard.conftest import TRACES, WAIT_S
from tests.dashboard.pages import moment_data, page_values, post, subject_of, text_of

TRAIN, GENERATE, OOM = "tiny-llama-train.memscope", "tiny-gpt2-generate.memscope", "tiny-out-of-memory.memscope"
NOTHING: dict[str, Any] = dict.fromkeys(("a", "at_a", "b", "at_b"))


@pytest.fixture(scope="module")
def three() -> Iterator[TraceStore]:
    store = TraceStore([TRACES / name for name in (TRAIN, GENERATE, OOM)])
    yield store
    store.close(WAIT_S)


@pytest.fixture(scope="module")
def one() -> Iterator[TraceStore]:
    store = TraceStore([TRACES / TRAIN])
    yield store
    store.close(WAIT_S)


def subject(store: TraceStore, trace_id: str = TRAIN) -> dict[str, Any]:
    return subject_of(moment_data(store, trace_id))


def shown(store: TraceStore, values: dict[str, Any], trigger: str | None = None, **more: Any) -> dict[str, Any]:
    """What the view shows once the comparison is done."""
    found = compare.update(store, trigger, subject(store), values, **more)
    while not found["compare-tick.disabled"]:
        found = compare.update(store, "compare-tick", subject(store), values | sides(found), **more)
    return found


def sides(found: dict[str, Any]) -> dict[str, Any]:
    names = ("a", "at_a", "b", "at_b")
    return {name: found[f"compare-{name.replace('_', '-')}.value"] for name in names}


def test_two_open_traces_are_compared_at_their_peaks(three: TraceStore) -> None:
    found = shown(three, NOTHING)
    assert text_of(found["compare-title.children"]).startswith(
        "Tiny-gpt2-generate.memscope holds"
    ) or "holds" in text_of(found["compare-title.children"])
    assert sides(found) == {"a": TRAIN, "at_a": "peak", "b": GENERATE, "at_b": "peak"}
    assert found["compare-pair.data"] == {"a": TRAIN, "at_a": "peak", "b": GENERATE, "at_b": "peak", "device": 0}
    assert found["compare-panels.className"] == "panel-stack"
    assert found["compare-alone.children"] is None
    assert len(found["compare-tiles.children"]) == 4
    assert "GPT2" in text_of(found["compare-facts.children"]) or found["compare-facts.style"] == {}
    assert [choice["value"] for choice in found["compare-at-a.data"]] == ["peak", "step:0", "step:1", "step:2"]


def test_one_open_trace_says_how_to_open_a_second_and_offers_two_steps(one: TraceStore) -> None:
    found = compare.update(one, None, subject(one), NOTHING)
    assert found["compare-title.children"].startswith("One trace is open")
    assert "memscope dash before.memscope after.memscope" in text_of(found["compare-alone.children"])
    assert found["compare-steps.children"] == "Compare step 0 and step 2 of this run"
    assert found["compare-panels.className"] == "panel-stack hidden"
    assert found["compare-pair.data"] is None
    grown = shown(one, sides(found), "compare-steps")
    assert sides(grown) == {"a": TRAIN, "at_a": "step:0", "b": TRAIN, "at_b": "step:2"}
    assert text_of(grown["compare-title.children"]).startswith("Allocated memory grew by 30.3 MiB between event 394")


def test_the_address_says_what_is_compared_and_which_row_and_box(three: TraceStore) -> None:
    search = f"?trace={TRAIN}&a={OOM}&b={TRAIN}&at_b=step%3A1&by=site&pic=module&own=no&row=3&focus=2&show=bogus"
    found = shown(three, NOTHING, search=search)
    assert sides(found) == {"a": OOM, "at_a": "peak", "b": TRAIN, "at_b": "step:1"}
    assert found["compare-pair.data"]["row"] == 3
    assert found["compare-pair.data"]["focus"] == 2
    first = compare.update(three, None, subject(three), NOTHING, search)
    assert first["compare-by.value"] == "site"
    assert first["compare-pic.value"] == "module"
    assert first["compare-own.checked"] is False
    assert "compare-show.value" not in first
    assert address_fields(search)["at_b"] == "step:1"


def test_a_pair_that_is_shown_already_is_not_drawn_again(three: TraceStore) -> None:
    found = shown(three, NOTHING)
    again = compare.update(three, "compare-at-a", subject(three), sides(found), seen=found["compare-pair.data"])
    assert "compare-pair.data" not in again
    assert text_of(again["compare-title.children"]) == text_of(found["compare-title.children"])


def test_sides_are_swapped_taken_from_the_strip_and_begin_at_the_peak_of_another_trace(three: TraceStore) -> None:
    values = {"a": TRAIN, "at_a": "step:1", "b": OOM, "at_b": "peak"}
    assert sides(shown(three, values, "compare-swap")) == {"a": OOM, "at_a": "peak", "b": TRAIN, "at_b": "step:1"}
    here = shown(three, values, "compare-here-b", moment={"trace": GENERATE, "device": 0, "event": 50})
    assert sides(here) == values | {"b": GENERATE, "at_b": "event:50"}
    assert here["compare-at-b.data"][-1] == {"value": "event:50", "label": "event 50"}
    assert sides(shown(three, values | {"a": GENERATE}, "compare-a")) == values | {"a": GENERATE, "at_a": "peak"}


def test_what_cannot_be_compared_says_why_and_leaves_the_controls(three: TraceStore) -> None:
    found = shown(three, NOTHING, search="?at_a=step:77")
    assert "has no step '77'" in text_of(found["compare-alone.children"])
    assert found["compare-panels.className"] == "panel-stack hidden"
    assert found["compare-a.data"][0]["value"] == TRAIN
    with pytest.raises(UsageError, match="no trace is called"):
        compare.update(three, None, subject(three), NOTHING, search="?a=../../etc/passwd")


def test_the_head_is_small(three: TraceStore) -> None:
    app = create_app(three)
    shown(three, NOTHING)
    status, answer, n_bytes = post(app, "compare-title.children", page_values(moment_data(three, TRAIN)))
    assert status == 200
    assert n_bytes < 20_000
    assert answer["response"]["compare-problem"]["children"] is None
