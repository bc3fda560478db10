"""The controls of the simulation: every value has one, and their defaults are a question that can be answered."""

from __future__ import annotations

from typing import Any

from memscope_dashboard.components.kv_controls import DEFAULT_MODEL, LABELS, VALUES, controls, model_options
from memscope_dashboard.kv_asked import DEFAULT_N_REQUESTS, asked_of

from memscope.serving.presets import PRESETS

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
