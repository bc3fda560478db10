"""The simulation of serving: its controls, the budget, the managers' table, progress and notes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from memscope_dashboard.components.kv import (
    DEFAULT_MODEL,
    LABELS,
    VALUES,
    budget_table,
    controls,
    job_label,
    manager_rows,
    model_options,
    notes,
    progress_words,
)
from memscope_dashboard.jobs import Jobs, Progress, State
from memscope_dashboard.kv_board import DEFAULT_N_REQUESTS, KvBoard, KvState, ServingOutcome, asked_of

from memscope.serving.presets import PRESETS
from memscope.units import format_bytes
from tests.dashboard.pages import text_of


@pytest.fixture(scope="module")
def state() -> KvState:
    """Two managers of which nothing is done."""
    asked, _ = asked_of({"model": "llama-3-8b", "gpu": "L4-24GB", "managers": ["paged", "max-length"], "n": 4})
    assert asked is not None
    return KvBoard(Jobs()).state(asked)


def test_the_budget_ends_with_what_is_left_for_the_cache(state: KvState) -> None:
    words = text_of(budget_table(state.plan))
    assert words.startswith(f"device{format_bytes(state.plan.budget.total_bytes)}")
    *_, rest = state.plan.budget.rows
    assert rest.bytes is not None
    assert f"= KV cache{format_bytes(rest.bytes)}" in words


def test_rows_say_what_is_still_to_come_and_what_could_not_be_made(state: KvState) -> None:
    refused = ServingOutcome("max-length", None, None, None, problem="no room for one request")
    rows = manager_rows(replace(state, outcomes=(refused, None)))
    assert (
        [row["row"] for row in rows]
        == ["max-length", "paged (16)"]
        == [job_label(job.manager, job.options.block_size, job.options.page_bytes) for job in state.plan.jobs]
    )
    assert [row["peak_text"] for row in rows] == ["—", "…"]
    assert [row["peak"] for row in rows] == [None, None]
    assert "max-length: no room for one request" in text_of(notes(replace(state, outcomes=(refused, None))))


@pytest.mark.parametrize(
    ("running", "at", "words"),
    [
        ("waiting", "", "0 of 2 managers; waits for another simulation to end"),
        ("running", "paged", "paged: 3 of 8 requests served"),
        ("cancelled", "", "Cancelled: 0 of 2 managers done."),
        ("failed", "", "Failed after 0 of 2 managers: broke"),
        ("done", "", ""),
    ],
)
def test_progress_is_said_in_words(state: KvState, running: State, at: str, words: str) -> None:
    progress = Progress(running, 3, 8, "broke" if running == "failed" else "")
    assert progress_words(replace(state, running=progress, at=at)) == words


PARTS: dict[str, Any] = {part.id: part for part in controls()._traverse() if isinstance(getattr(part, "id", None), str)}


def test_every_value_has_a_control_and_every_label_a_value() -> None:
    assert {f"kv-{name}" for name in VALUES if name != "requests-file"} <= set(PARTS)
    assert set(LABELS) <= set(VALUES)


def test_the_defaults_are_a_question_that_can_be_answered() -> None:
    values = {name: getattr(PARTS.get(f"kv-{name}"), "value", None) for name in VALUES}
    asked, errors = asked_of(values)
    assert errors == {}
    assert asked is not None
    assert (asked.model, asked.requests.made.n_requests) == (DEFAULT_MODEL, DEFAULT_N_REQUESTS)


def test_models_that_were_sent_stand_below_the_presets() -> None:
    options = model_options({"sent:1": "tiny"})
    assert [option["value"] for option in options] == [*PRESETS, "sent:1"]
    assert options[-1]["label"] == "tiny (sent)"
