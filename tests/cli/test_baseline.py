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
