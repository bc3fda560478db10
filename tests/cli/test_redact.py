"""``memscope redact``, and ``memscope import --redact``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.trace.snapshot.write import write_snapshot
from tests.conftest import Outcome

Run = Callable[..., Outcome]
TRAIN = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


def test_a_copy_is_written_and_what_was_kept_is_reported(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "shared.memscope"
    outcome = memscope("redact", TRAIN, "-o", path, "--json")
    assert outcome.code == 0
    said = json.loads(outcome.out)
    assert said["schema_version"] == 1
    assert said["n_categories_changed"] == 0
    assert "torch/optim/adam.py" in said["kept"]["files"]
    assert said["replaced"]["files"] >= 1
    assert load(path).peak().allocated_bytes == load(TRAIN).peak().allocated_bytes
    assert "traces/generate.py" not in load(path).trace.strings
    assert memscope("redact", TRAIN, "-o", path).code == 1
    text = memscope("redact", TRAIN, "-o", path, "-f", "--kept").out
    assert "every allocation has the category that it had" in text
    assert "torch/optim/adam.py" in text


def test_a_snapshot_can_be_made_and_the_key_changes_the_names(memscope: Run, tmp_path: Path) -> None:
    assert memscope("redact", TRAIN, "-o", tmp_path / "a.pickle", "--key", "mine").code == 0
    assert memscope("redact", TRAIN, "-o", tmp_path / "b.memscope").code == 0
    a, b = (load(tmp_path / name).trace.strings for name in ("a.pickle", "b.memscope"))
    assert not {t for t in a if t.startswith("file_")} & {t for t in b if t.startswith("file_")}


def test_what_is_imported_can_be_redacted_at_once(memscope: Run, tmp_path: Path) -> None:
    snapshot = write_snapshot(load(TRAIN).trace, tmp_path / "run.pickle")
    outcome = memscope("import", snapshot, "--redact")
    assert outcome.code == 0
    assert "run.pickle, redacted" in outcome.out
    assert "every allocation has the category that it had" in outcome.out
    assert memscope("redact", snapshot, "-o", tmp_path / "other.memscope").out in outcome.out
    assert "traces/generate.py" not in load(tmp_path / "run.memscope").trace.strings


@pytest.mark.parametrize(
    ("options", "words"),
    [(("-o", "x.txt"), "name it x.memscope"), (("-o", "x.memscope", "--key", "k" * 65), "64 bytes"), ((), "--output")],
)
def test_what_cannot_be_done_is_one_line(memscope: Run, options: tuple[str, ...], words: str) -> None:
    outcome = memscope("redact", TRAIN, *options)
    assert (outcome.code, outcome.out) == (1, "")
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_copy_whose_owners_kept_their_names_differs_in_nothing(memscope: Run, tmp_path: Path) -> None:
    trace = Path(__file__).parents[2] / "traces" / "tiny-out-of-memory.memscope"  # its owners' words are all public
    assert memscope("redact", trace, "-o", tmp_path / "red.memscope").code == 0
    said = json.loads(memscope("diff", trace, tmp_path / "red.memscope", "--json").out)
    assert said["delta_bytes"] == 0
    assert {row["change"] for row in said["rows"]} <= {"same", None}
