"""The objects of ``memscope check --json`` and ``memscope baseline --json``."""

from __future__ import annotations

from memscope.compare.baseline import baseline_of
from memscope.reports.check.json import baseline_json, check_json
from tests.compare.runs import MiB, run
from tests.reports.check.gates import AFTER, BEFORE, grown, kept, passed, unjudged, untold


def test_one_check_is_its_own_object() -> None:
    said = check_json([passed()])
    assert said["ok"] is False
    assert said["limits"] == [
        {"name": "max-peak", "device": 0, "limit_bytes": 24 * MiB, "actual_bytes": 34 * MiB, "ok": False}
    ]
    assert sum(row["b_bytes"] for row in said["blame"]) == 34 * MiB
    assert said["blame_against"] == "nothing"
    assert check_json([grown()])["blame_against"] == "baseline"
    assert check_json([kept()])["blame"] == []
    assert check_json([untold()])["untrusted"]


def test_several_are_a_list_and_one_word() -> None:
    said = check_json([kept(), passed()])
    assert said["ok"] is False
    assert [one["ok"] for one in said["checks"]] == [True, False]
    assert [one["exit_code"] for one in said["checks"]] == [0, 2]


def test_a_baseline_has_its_noise() -> None:
    said = baseline_json(baseline_of([run(BEFORE), run(AFTER)]))
    assert said["peak_allocated"]["noise_bytes"] == 10 * MiB
    assert said["n_runs"] == 2


def test_rows_without_a_difference_are_not_listed() -> None:
    assert [row["delta_bytes"] for row in check_json([grown()])["blame"]] == [8 * MiB, 2 * MiB]
    assert all(row["b_bytes"] for row in check_json([passed()])["blame"])


def test_a_check_that_cannot_be_made_says_why() -> None:
    said = check_json([kept(), unjudged()])
    assert said["ok"] is False
    assert [(one["exit_code"], one["error"] is None) for one in said["checks"]] == [(0, True), (1, False)]
    assert set(said["checks"][0]) == set(said["checks"][1])
    assert "gone.memscope" in said["checks"][1]["error"]
