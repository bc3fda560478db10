"""Files that a program on the emulated device would replace."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memscope.emulation._saving import keep_files_of_safetensors, keep_files_of_torch


def a_torch() -> Any:
    def save(obj: str, f: Any) -> None:
        Path(f).write_text(obj)

    torch = SimpleNamespace(save=save, serialization=SimpleNamespace(save=save))
    keep_files_of_torch(torch)  # type: ignore[arg-type]
    return torch


def test_a_file_that_was_there_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "good.pt"
    kept.write_text("weights")
    torch = a_torch()
    torch.save("zeros", kept)
    torch.serialization.save("zeros", f=str(kept))
    assert kept.read_text() == "weights"
    assert capsys.readouterr().err.count("good.pt is there already, and is left as it is") == 2


def test_what_the_program_wrote_itself_it_writes_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = a_torch()
    for text in ("step 1", "step 2"):
        torch.save(text, tmp_path / "last.pt")
    assert (tmp_path / "last.pt").read_text() == "step 2"
    assert not capsys.readouterr().err


def test_what_is_no_path_is_written(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        saved: list[Any] = []
        torch = SimpleNamespace(save=lambda _, f: saved.append(f), serialization=SimpleNamespace())
        keep_files_of_torch(torch)  # type: ignore[arg-type]
        torch.save("x", file)
    assert saved == [file]


def test_safetensors_are_kept_too(tmp_path: Path) -> None:
    kept = tmp_path / "model.safetensors"
    kept.write_text("weights")
    module = SimpleNamespace(save_file=lambda tensors, filename, metadata=None: Path(filename).write_text(tensors))
    keep_files_of_safetensors(module)  # type: ignore[arg-type]
    module.save_file("zeros", filename=kept)
    assert kept.read_text() == "weights"
