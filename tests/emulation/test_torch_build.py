"""What is read of an installed PyTorch, without importing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.emulation import torch_build
from memscope.errors import CaptureError


def _installed(folder: Path, version: str, cuda: str) -> Path:
    (folder / "lib").mkdir()
    (folder / "version.py").write_text(
        f"from typing import Optional\n__all__ = ['__version__', 'cuda']\n__version__ = '{version}'\n"
        f"cuda: Optional[str] = {cuda}\n"
    )
    (folder / "lib" / "libtorch_cuda.so").touch()
    return folder


def test_the_version_and_its_cuda_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["filelock", 'nvidia-cudnn-cu13==9.19.0.56; platform_system == "Linux"']
    monkeypatch.setattr(torch_build.metadata, "requires", lambda _: requirements)
    build = torch_build.read_torch_build(_installed(tmp_path, "2.11.0+cu130", "'13.0'"))
    assert (build.version, build.cuda, build.cuda_number) == ("2.11.0+cu130", (13, 0), 13_000)
    assert build.cudnn_version == 91_900
    assert build.libraries == tmp_path / "lib"


def test_a_build_without_cuda_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        CaptureError, match=r"torch 2\.13\.0\+cpu is a build without CUDA.*install a CUDA build of torch"
    ):
        torch_build.read_torch_build(_installed(tmp_path, "2.13.0+cpu", "None"))


def test_an_old_cuda_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"for CUDA 11\.8; the emulated device knows CUDA 12 and 13"):
        torch_build.read_torch_build(_installed(tmp_path, "2.4.0+cu118", "'11.8'"))


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "aarch64")])
def test_other_machines_are_refused(system: str, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build.sys, "platform", system)
    monkeypatch.setattr(torch_build.platform, "machine", lambda: machine)
    with pytest.raises(CaptureError, match=f"needs Linux on x86-64, not {system} on {machine}: make a dry run"):
        torch_build.find_torch_build()
