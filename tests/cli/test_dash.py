"""``memscope run --dash``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

Run = Callable[..., Outcome]


SCRIPT = """
import os, signal, sys
import torch
signal.signal(signal.SIGINT, lambda *_: None)
kept = torch.zeros(1 << 20, device="cuda")
os.chdir("/")
sys.exit(3)
"""


@pytest.mark.skipif(os.name == "nt", reason="ends the server by SIGINT")
def test_the_recording_is_shown_until_interrupted_whatever_the_script_did(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "memscope", "run", "--dry-run", "--gpu", "16GiB", "--dash", "train.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        address = None
        for line in process.stderr:
            lines.append(line)
            found = re.search(r"http://\S+", line)
            if found:
                address = found.group()
                break
        assert address is not None, "".join(lines)
        assert any("wrote train.memscope" in line for line in lines)
        with urllib.request.urlopen(f"{address}_dash-layout", timeout=20) as response:
            assert "train.memscope" in json.dumps(json.load(response))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 3
    assert (tmp_path / "train.memscope").is_file()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "each rank makes its own"),
        ({"MEMSCOPE_TRIGGER": "signal"}, "MEMSCOPE_TRIGGER may make several"),
    ],
)
def test_several_recordings_are_refused_before_the_script_runs(
    memscope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit('it ran')")
    done = memscope("run", "--dry-run", "--dash", "-o", tmp_path / "x.memscope", script)
    assert done.code == 1
    assert reason in done.err
    assert "memscope dash" in done.err
    assert "it ran" not in done.err
