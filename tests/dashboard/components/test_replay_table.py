"""The table of replays: one row each, the recording first."""

from __future__ import annotations

from memscope_dashboard.components.replay_table import curve_positions


def test_a_curve_keeps_its_colour_whatever_is_done_first() -> None:
    names = [("caching", ""), ("caching", "max_split_size_mb:64"), ("lower-bound", None)]
    assert list(curve_positions(names).values()) == [0, 1, 0]
