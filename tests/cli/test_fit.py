"""``memscope fit``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome

Run = Callable[..., Outcome]


def test_the_most_that_fits_is_said_with_every_run(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "takes.py"
    path.write_text("import sys, torch\nx = torch.empty(int(sys.argv[1][2:]) * 9 << 20, device='cuda')\n")
    answer = memscope("fit", "--vary", "n=", "--gpu", "600MiB", "--from", "2", path)
    assert answer.code == 0, answer.err
    assert "n 2 is the most that fits 600MiB, of which PyTorch can have 88.0 MiB: 3 runs out of memory" in answer.out
    rows = [line.split()[0] for line in answer.out.splitlines() if line.endswith(("fits", "memory"))]
    assert rows[:2] == ["2", "3"]


def test_without_a_script_there_is_nothing_to_run(memscope: Run) -> None:
    answer = memscope("fit", "--vary", "--n")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "memscope: nothing to run: name a script, or a module with -m\n"
