"""The same answer wherever it is asked: other locales, no home, an optimizing Python, eight at once.

A locale that the machine has not is C to Python.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
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


def _nobody() -> dict[str, int]:
    """As whom to run where an installation shall be read-only: who is not root already is nobody else."""
    if os.name == "nt":
        pytest.skip("permissions of another kind")
    if os.geteuid():
        return {}
    nobody = {"user": 65534, "group": 65534}
    try:
        subprocess.run([sys.executable, "-c", "import numpy"], cwd="/", check=True, capture_output=True, **nobody)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this Python is root's alone")
    return nobody


@pytest.mark.slow
def test_an_installation_that_cannot_be_written_to_answers_and_stays_as_it_is() -> None:
    nobody = _nobody()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "memscope", folder / "memscope", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(TRACE, folder)
        before = sorted(folder.rglob("*"))
        for path in (folder, *before):
            path.chmod(0o555 if path.is_dir() else 0o444)
        environment = {**os.environ, "HOME": "/nonexistent", "PYTHONPATH": name}
        command = [sys.executable, "-m", "memscope", "report", TRACE.name]
        ended = subprocess.run(command, env=environment, cwd=name, capture_output=True, check=False, **nobody)
        command = [sys.executable, "-m", "memscope", "import", TRACE.name, "-o", "out.memscope"]
        refused = subprocess.run(command, env=environment, cwd=name, capture_output=True, check=False, **nobody)
        after = sorted(folder.rglob("*"))
        for path in (folder, *before):
            path.chmod(0o755)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"reserved" in ended.stdout
    assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1)
    assert after == before


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\nfrom memscope.cli.main import main\nmain()"
READING = (
    *("report", "report --json", "peak", "oom", "frag", "verify", "replay", "tune", "whatif --all", "kv"),
    *("export --format folded -o stacks.txt", "slice --events 0:20 -o part.memscope", "import -f -o copy.memscope"),
    *("redact -o shared.memscope", "baseline -o base.json", "check --max-peak 10GiB"),
)


@pytest.mark.slow
@pytest.mark.parametrize("line", READING)
def test_every_verb_that_reads_does_without_torch(tmp_path: Path, line: str) -> None:
    verb, *options = line.split()
    command = [sys.executable, "-c", WITHOUT_TORCH, verb, str(TRACE), *options]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"(memscope: wrote \S+\n)?", ended.stderr)


def test_recording_without_torch_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('ran')\n")
    command = [sys.executable, "-c", WITHOUT_TORCH, "run", "--dry-run", "train.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "recording needs torch, which is not installed" in ended.stderr
