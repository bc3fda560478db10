"""The same answer wherever it is asked: other locales, no home, an optimizing Python, eight at once.

A locale that the machine has not is C to Python.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT / "traces" / "tiny-llama-train.memscope"
SURROUNDINGS: dict[str, tuple[dict[str, str], list[str]]] = {
    "C": ({"LC_ALL": "C"}, []),
    "C without UTF-8 mode": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, []),
    "Turkish": ({"LC_ALL": "tr_TR.UTF-8"}, []),
    "Japanese": ({"LC_ALL": "ja_JP.EUC-JP", "PYTHONUTF8": "0"}, []),
    "no home": ({"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent/cache"}, []),
    "home is a file": ({"HOME": os.devnull}, []),
    "optimized": ({}, ["-O"]),
    "without docstrings": ({}, ["-OO"]),
    "isolated from bytecode": ({"PYTHONDONTWRITEBYTECODE": "1"}, []),
}
VERBS = ("report", "frag")


def _run(verb: str, changes: dict[str, str], options: list[str]) -> tuple[int, str, str]:
    environment = {**os.environ, "PYTHONIOENCODING": "", "COLUMNS": "100", **changes}
    environment = {name: value for name, value in environment.items() if value}
    command = [sys.executable, *options, "-m", "memscope", verb, str(TRACE)]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    return ended.returncode, ended.stdout.decode("utf-8", "replace"), ended.stderr.decode("utf-8", "replace")


def _ascii(text: str) -> str:
    """A text without what an encoding may lack, and what stands in its place."""
    return re.sub(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4})|[^!-~]|[?]", "", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
@pytest.mark.parametrize("verb", VERBS)
def test_the_answer_is_the_same(verb: str, name: str) -> None:
    code, out, err = _run(verb, *SURROUNDINGS[name])
    assert (code, err) == (0, "")
    usual = _run(verb, {"PYTHONUTF8": "1"}, [])[1]
    if SURROUNDINGS[name][0].get("PYTHONUTF8") == "0":
        assert _ascii(out) == _ascii(usual)
    else:
        assert out == usual
    assert "reserved" in out


@pytest.mark.slow
def test_eight_first_starts_at_once_give_eight_answers(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPYCACHEPREFIX": str(tmp_path),
    }
    command = [sys.executable, "-m", "memscope", "report", str(TRACE)]
    runs = [
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(8)
    ]
    ended = [(*run.communicate(timeout=300), run.returncode) for run in runs]
    assert {code for _, _, code in ended} == {0}
    assert len({out for out, _, _ in ended}) == 1
    assert {err for _, err, _ in ended} == {b""}
