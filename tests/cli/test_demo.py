"""``memscope demo``."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.cli import demo
from memscope.errors import InputFileError, MemscopeError
from tests.conftest import Outcome

Run = Callable[..., Outcome]


def test_the_demo_finds_its_scripts() -> None:
    folder = demo.examples_folder()
    assert (folder / "train_llama.py").is_file()
    assert (folder / "generate_gpt2.py").is_file()


def test_the_demo_says_if_its_scripts_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "a" / "b" / "demo.py"))
    with pytest.raises(InputFileError, match="not part of this installation"):
        demo.examples_folder()


def test_the_demo_stops_at_the_first_failure(memscope: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))
    folder = tmp_path / "which is made" / "out"
    outcome = memscope("demo", "--no-serve", "-o", folder)
    assert outcome.code == MemscopeError.exit_code
    assert outcome.err == "memscope: memscope run ended with exit code 7\n"
    assert "$ memscope run --dry-run --gpu H100-80GB" in outcome.out
    assert os.listdir(folder) == []  # noqa: PTH208
