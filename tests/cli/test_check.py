"""``memscope check``: the JSON contract, the exit codes, what CI systems read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from memscope.trace.container import write_container
from tests.compare.runs import MiB, run_trace
from tests.conftest import Outcome
from tests.reports.check.gates import AFTER, BEFORE

Run = Callable[..., Outcome]
TRAIN = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return write_container(run_trace(BEFORE), tmp_path / "before.memscope")


@pytest.fixture
def after(tmp_path: Path) -> Path:
    return write_container(run_trace(AFTER), tmp_path / "after.memscope")


def test_json_has_the_keys_that_scripts_rely_on(memscope: Run, after: Path) -> None:
    outcome = memscope("check", after, "--max-peak", "24MiB", "--max-reserved", "1GB", "--json")
    assert outcome.code == 2
    said = json.loads(outcome.out)
    assert (said["schema_version"], said["ok"]) == (1, False)
    assert [(one["name"], one["limit_bytes"], one["actual_bytes"], one["ok"]) for one in said["limits"]] == [
        ("max-peak", 24 * MiB, 34 * MiB, False),
        ("max-reserved", 10**9, 34 * MiB, True),
    ]
    assert all({"key", "category", "a_bytes", "b_bytes", "delta_bytes"} <= set(row) for row in said["blame"])


@pytest.mark.parametrize(("limit", "code"), [("34MiB", 0), ("33MiB", 2)])
def test_the_exit_code_is_the_answer(memscope: Run, after: Path, limit: str, code: int) -> None:
    outcome = memscope("check", after, "--max-peak", limit)
    assert outcome.code == code
    assert len(outcome.err.splitlines()) == (1 if code else 0)


def test_a_shipped_run_is_held_to_its_own_baseline(memscope: Run, tmp_path: Path) -> None:
    assert memscope("baseline", TRAIN, TRAIN, "-o", tmp_path / "base.json").code == 0
    outcome = memscope("check", TRAIN, "--baseline", tmp_path / "base.json", "--tolerance", "0%")
    assert (outcome.code, outcome.err) == (0, "")


def test_a_trace_is_a_baseline_too(memscope: Run, before: Path, after: Path) -> None:
    outcome = memscope("check", after, "--baseline", before)
    assert outcome.code == 2
    assert "train.py:7 forward" in outcome.out
    assert memscope("check", before, "--baseline", after).code == 0


def test_what_cannot_be_believed_exits_with_3(memscope: Run, tmp_path: Path) -> None:
    path = write_container(run_trace(AFTER, n_events_lost=9), tmp_path / "partial.memscope")
    outcome = memscope("check", path, "--max-peak", "1GB", "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["ok"] is False
    assert "9 events lost" in outcome.err
    assert memscope("check", path, "--max-peak", "1GB", "--allow-partial").code == 0


def test_several_checks_come_from_one_file(memscope: Run, before: Path, after: Path, tmp_path: Path) -> None:
    checks = tmp_path / "checks.toml"
    checks.write_text(
        '[[check]]\nname = "one"\ntrace = "before.memscope"\nmax_peak = "24MiB"\n'
        '[[check]]\nname = "two"\ntrace = "after.memscope"\nbaseline = "before.memscope"\n'
    )
    outcome = memscope("check", "--config", checks, "--json", "--junit", tmp_path / "junit.xml")
    assert outcome.code == 2
    said = json.loads(outcome.out)
    assert [(one["name"], one["ok"]) for one in said["checks"]] == [("one", True), ("two", False)]
    suites = ET.parse(tmp_path / "junit.xml").getroot().findall("testsuite")
    assert [suite.get("failures") for suite in suites] == ["0", "2"]
    assert "two: peak allocated against the baseline" in memscope("check", "--config", checks).err


def test_github_shows_lines_of_the_checkout(memscope: Run, after: Path) -> None:
    outcome = memscope("check", after, "--max-peak", "24MiB", "--github")
    assert outcome.code == 2
    assert all(line.startswith("::error ") for line in outcome.out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("TRACE",), "there is nothing to check"),
        ((), "give a TRACE"),
        (("TRACE", "--max-peak", "lots"), "is not a size"),
        (("TRACE", "--max-peak", "1GB", "--tolerance", "1%"), "there is none"),
        (("TRACE", "--max-peak", "1GB", "--json", "--github"), "choose one of them"),
        (("TRACE", "--baseline", "nowhere.json"), "nowhere.json"),
        (("TRACE", "--config", "checks.toml"), "has its own traces"),
        (("--config", "checks.toml", "--max-peak", "1GB"), "give no others"),
        (("--config", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_bad_usage_is_one_line_and_1(memscope: Run, after: Path, arguments: tuple[str, ...], words: str) -> None:
    outcome = memscope("check", *(after if argument == "TRACE" else argument for argument in arguments))
    assert (outcome.code, outcome.out) == (1, "")
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_one_that_cannot_be_read_fails_its_check_and_the_others_are_judged(
    memscope: Run, before: Path, after: Path, tmp_path: Path
) -> None:
    checks = tmp_path / "checks.toml"
    checks.write_text(
        '[[check]]\nname = "gone"\ntrace = "gone.memscope"\nmax_peak = "24MiB"\n'
        f'[[check]]\nname = "one"\ntrace = "{before.name}"\nmax_peak = "24MB"\n'
        f'[[check]]\nname = "two"\ntrace = "{after.name}"\nmax_peak = "40MB"\n'
    )
    outcome = memscope("check", "--config", checks, "--json", "--junit", tmp_path / "junit.xml")
    assert outcome.code == 1
    said = json.loads(outcome.out)
    assert [(one["name"], one["ok"], one["exit_code"]) for one in said["checks"]] == [
        ("gone", False, 1),
        ("one", False, 2),
        ("two", True, 0),
    ]
    assert "gone.memscope" in said["checks"][0]["error"]
    suites = ET.parse(tmp_path / "junit.xml").getroot().findall("testsuite")
    assert [(suite.get("failures"), suite.get("errors")) for suite in suites] == [("0", "1"), ("1", "0"), ("0", "0")]
    text = memscope("check", "--config", checks)
    assert text.code == 1
    assert "not judged: " in text.out
    assert "(24MB)" in text.out
    assert "gone: not judged" in text.err
