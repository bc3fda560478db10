"""``memscope baseline``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from memscope.compare.baseline import read_baseline
from tests.conftest import Outcome

Run = Callable[..., Outcome]
TRAIN = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


def test_a_baseline_is_written_and_shown(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    outcome = memscope("baseline", TRAIN, TRAIN, TRAIN, "-o", path, "--json")
    assert outcome.code == 0
    said = json.loads(outcome.out)
    assert (said["schema_version"], said["n_runs"], said["peak_allocated"]["noise_bytes"]) == (1, 3, 0)
    assert read_baseline(path).peak_allocated.highest_bytes == said["peak_allocated"]["highest_bytes"]
    assert memscope("baseline", TRAIN, "-o", path).code == 1
    assert "Baseline of 1 run" in memscope("baseline", TRAIN, "-o", path, "-f").out


def test_what_cannot_be_read_is_named(memscope: Run, tmp_path: Path) -> None:
    outcome = memscope("baseline", tmp_path / "nowhere.memscope", "-o", tmp_path / "base.json")
    assert outcome.code == 1
    assert "nowhere.memscope" in outcome.err
    assert not (tmp_path / "base.json").exists()


def test_runs_of_different_programs_are_doubted_on_stderr(memscope: Run, tmp_path: Path) -> None:
    outcome = memscope("baseline", TRAIN, TRAIN.with_name("tiny-gpt2-generate.memscope"), "-o", tmp_path / "base.json")
    assert outcome.code == 0
    assert "may not be runs of one configuration" in outcome.err
    assert "their peaks lie far apart" in outcome.err
    assert "lower median" in outcome.out
    same = memscope("baseline", TRAIN, TRAIN, TRAIN, "-o", tmp_path / "same.json")
    assert "configuration" not in same.err
    assert "lower median" not in same.out
