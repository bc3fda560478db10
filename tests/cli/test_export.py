"""``memscope export``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.cli.export import _FORMATS, _VIEWS
from memscope.export.formats import FORMATS
from memscope.export.views import VIEWS
from tests.conftest import Outcome

Run = Callable[..., Outcome]
TRAIN = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


def test_the_help_names_every_format_and_view() -> None:
    assert tuple(FORMATS) == _FORMATS
    assert tuple(VIEWS) == _VIEWS


@pytest.mark.parametrize("name", ["perfetto", "csv", "folded", "pprof", "memory_viz"])
def test_a_file_is_written_and_named(memscope: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / "out"
    outcome = memscope("export", TRAIN, "--format", name, "-o", path)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == f"memscope: wrote {path}\n"
    assert path.stat().st_size
    assert memscope("export", TRAIN, "--format", name, "-o", path).code == 1
    said = json.loads(memscope("export", TRAIN, "--format", name, "-o", path, "-f", "--json").out)
    assert (said["schema_version"], said["format"], said["file_bytes"]) == (1, name, path.stat().st_size)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--format", "perfeto"), "did you mean 'perfetto'"),
        (("--format", "csv", "--view", "event"), "did you mean 'events'"),
        (("--format", "pprof", "--view", "events"), "--view is for csv and parquet"),
        (("--format", "chrome", "--at", "3"), "is of the whole trace"),
        (("--format", "folded", "--at", "9999999"), "is not in this trace"),
        ((), "--format"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    memscope: Run, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    outcome = memscope("export", TRAIN, *options, "-o", tmp_path / "out")
    assert (outcome.code, outcome.out) == (1, "")
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_moment_with_nothing_in_use_is_said(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "out"
    outcome = memscope("export", TRAIN, "--format", "folded", "--at", "0", "-o", path)
    assert outcome.code == 0
    assert "nothing is in use after event 0" in outcome.err
    assert path.read_bytes() == b""
    assert "nothing is" not in memscope("export", TRAIN, "--format", "folded", "--at", "1", "-f", "-o", path).err
    assert path.read_bytes()


def test_the_help_says_which_bytes_and_when(memscope: Run) -> None:
    text = " ".join(memscope("export", "--help").out.split())
    assert "the peak of each device unless --at says another, in bytes as requested" in text
