"""The boundary: errors become something to read, and a click is told from a tick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import memscope_dashboard
import pytest
from memscope_dashboard.boundary import guarded, what_triggered

from memscope.errors import UsageError
from tests.dashboard.pages import text_of


@pytest.mark.parametrize(
    ("triggered", "expected"),
    [
        ([("x-tick.n_intervals", 7)], "x-tick"),
        ([("x-tick.n_intervals", 7), ("x-cancel.n_clicks", 1)], "x-cancel"),
        ([("x-cancel.n_clicks", 1), ("x-tick.n_intervals", 7)], "x-cancel"),
        ([("x-cancel.n_clicks", None)], None),
        ([("x-run.n_clicks", 0), ("subject.data", {})], "subject"),
        ([("x-run.n_clicks", 2), ("x-cancel.n_clicks", 1)], "x-cancel"),
        ([(".", None)], None),
        ([], None),
    ],
)
def test_a_click_that_comes_with_a_tick_is_a_click(triggered: list[tuple[str, Any]], expected: str | None) -> None:
    sent = [{"prop_id": prop_id, "value": value} for prop_id, value in triggered]
    assert what_triggered(sent, ("x-cancel", "x-run")) == expected


def test_the_boundary_tells_a_users_error_from_a_defect() -> None:
    def users(_: Any) -> list[Any]:
        raise UsageError("no such thing: choose another")

    def defect(_: Any) -> list[Any]:
        return [1 // 0]

    *_, panel, class_name = guarded(users, 1)(None)
    assert "no such thing: choose another" in text_of(panel)
    assert class_name == "view-panel hidden"
    *_, panel, _ = guarded(defect, 1)(None)
    assert "a defect in memscope" in text_of(panel)
    assert guarded(lambda x: [x], 1)(5) == [5, None, "view-panel"]


def test_no_callback_answers_with_a_patch() -> None:
    """Dash cannot apply a patch that arrives when its view has been left, and says so in the browser's console."""
    sources = Path(memscope_dashboard.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "Patch" in path.read_text(encoding="utf-8")] == []
