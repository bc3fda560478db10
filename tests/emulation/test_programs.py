"""Adapting what a program imports."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from memscope.emulation import programs


def test_a_module_is_adapted_when_it_is_imported_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapted_one.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[int] = []
    monkeypatch.setitem(programs._ADAPTATIONS, "adapted_one", lambda module: seen.append(module.value))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    programs.adapt_programs()
    programs.adapt_programs()
    assert sum(isinstance(finder, programs._AdaptingFinder) for finder in sys.meta_path) == 1
    assert seen == []
    module = importlib.import_module("adapted_one")
    assert seen == [1]
    assert module.__file__ == str(tmp_path / "adapted_one.py")
    del sys.modules["adapted_one"]
