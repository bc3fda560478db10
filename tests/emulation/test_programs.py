"""Adapting what a program imports."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memscope.emulation import launch, programs


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


def _adapted_torch(monkeypatch: pytest.MonkeyPatch, *, has_triton: bool) -> Any:
    monkeypatch.setattr(programs, "follow_values", lambda _: None)
    monkeypatch.setattr(programs, "keep_files_of_torch", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: (has_triton and name == "triton") or None)
    monkeypatch.setattr(launch, "_NOTED", {})
    asked: list[Any] = []
    torch: Any = SimpleNamespace(
        backends=SimpleNamespace(
            cudnn=SimpleNamespace(enabled=True), cuda=SimpleNamespace(enable_cudnn_sdp=lambda on: asked.append(on))
        ),
        compile=lambda model=None, **options: ("compiled", model, options),
    )
    programs._ADAPTATIONS["torch"](torch)
    assert torch.backends.cudnn.enabled is False
    assert asked == [False]
    return torch


def test_torch_does_without_cudnn_and_without_triton_without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = _adapted_torch(monkeypatch, has_triton=False)
    assert torch.compile("model", backend="eager") == ("compiled", "model", {"backend": "eager"})
    assert launch._NOTED == {}
    assert torch.compile("model") == "model"
    assert torch.compile(mode="max-autotune")("model") == "model"
    assert list(launch._NOTED) == [launch.RAN_EAGERLY]


def test_torch_compiles_where_triton_is(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = _adapted_torch(monkeypatch, has_triton=True)
    assert torch.compile("model", mode="default") == ("compiled", "model", {"mode": "default"})
    assert launch._NOTED == {}


def test_generation_ends_by_its_length_and_only_on_the_device() -> None:
    class MaxLengthCriteria:
        max_length = 3

        def __call__(self, input_ids: Any) -> str:
            return "read from the device"

    class GenerationMixin:
        def _has_unfinished_sequences(self) -> bool:
            return True

    programs._ADAPTATIONS["transformers.generation.utils"](
        SimpleNamespace(MaxLengthCriteria=MaxLengthCriteria, GenerationMixin=GenerationMixin)  # type: ignore[arg-type]
    )
    criterion, loop = MaxLengthCriteria(), GenerationMixin()

    def goes_on(length: int, *, is_cuda: bool) -> bool:
        assert criterion(SimpleNamespace(shape=(1, length), is_cuda=is_cuda)) == "read from the device"
        return loop._has_unfinished_sequences()

    assert goes_on(2, is_cuda=True)
    assert not goes_on(3, is_cuda=True)
    assert goes_on(3, is_cuda=False)
    assert loop._has_unfinished_sequences()
