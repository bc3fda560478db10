"""``memscope slice``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.analysis import load
from tests.conftest import Outcome

Run = Callable[..., Outcome]
TRAIN = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


def test_steps_are_cut_out(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "part.memscope"
    outcome = memscope("slice", TRAIN, "--steps", "1:2", "-o", path)
    assert outcome.code == 0
    steps = load(path).device().steps
    assert steps is not None
    assert steps.labels == ("1", "2")
    assert "events of 2,854" in outcome.out
    said = json.loads(memscope("slice", TRAIN, "--steps", "1:2", "-o", path, "-f", "--json").out)
    assert (said["schema_version"], said["n_events"]) == (1, load(path).trace.n_events)
    (part,) = said["parts"]
    assert part["last_event"] - part["first_event"] + 1 == said["n_events"]
    assert memscope("verify", path).code in (0, 3)
    assert memscope("slice", TRAIN, "--steps", "1:2", "-o", path).code == 1


def test_events_are_cut_out_as_a_snapshot(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "part.pickle"
    assert memscope("slice", TRAIN, "--events", "100:299", "-o", path).code == 0
    assert load(path).trace.n_events == 200
    assert memscope("report", path).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give --steps 3:5 or --events"),
        (("--steps", "0:1", "--events", "0:1"), "one of them"),
        (("--steps", "0"), "is not two steps"),
        (("--events", "5"), "is no range of events"),
        (("--events", "5:1"), "are not in"),
        (("--steps", "0:8"), "has no step '8'"),
    ],
)
def test_what_cannot_be_cut_is_one_line(memscope: Run, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    outcome = memscope("slice", TRAIN, *options, "-o", tmp_path / "part.memscope")
    assert (outcome.code, outcome.out) == (1, "")
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_the_name_says_what_to_write(memscope: Run, tmp_path: Path) -> None:
    outcome = memscope("slice", TRAIN, "--events", "0:9", "-o", tmp_path / "part.txt")
    assert outcome.code == 1
    assert "name it part.memscope or part.pickle" in outcome.err
