"""``memscope run``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.folder import part_of, write_recording
from tests.conftest import Outcome

Run = Callable[..., Outcome]


def test_run_says_that_an_earlier_recording_was_cut_off(memscope: Run, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print('ran')\n")
    out = tmp_path / "run.memscope"
    folder = part_of(out)
    folder.mkdir()
    write_recording(folder, 2**22 + 1, TraceMetadata(source="cuda"))  # no process has this number
    outcome = memscope("run", "--dry-run", "-o", out, script)
    assert outcome.code == 1
    assert "cut off" in outcome.err
    assert "-f" in outcome.err
    assert outcome.err.count("\n") == 1
    assert "ran" not in outcome.out
    assert folder.is_dir()
