"""Compiling the stand-ins, for a PyTorch of one small library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from memscope.emulation.build import build_libraries
from memscope.emulation.launch import LINKED, PRELOADED
from memscope.emulation.torch_build import TorchBuild
from memscope.errors import CaptureError
from tests.emulation.compiling import compile_torch, needs_compiler

NOWHERE = TorchBuild("2.99.0+cu130", Path("nowhere"), (13, 0), 91_900)


@needs_compiler
def test_the_stand_ins_are_built_once_and_load_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    build, said = compile_torch(tmp_path), list[str]()
    folder = build_libraries(build, said.append)
    assert folder.parent == tmp_path / "cache" / "memscope" / "emulation"
    building, built = said
    assert building == "building the emulated device for torch 2.99.0+cu130, once (some seconds)…"
    assert built.endswith(f"in {folder}")
    libraries = (folder / PRELOADED).read_text().splitlines()
    assert [Path(path).name for path in libraries] == [
        "cudart.emulated.so",
        "cuda.emulated.so",
        "nvidia-ml.emulated.so",
    ]
    loading = f"import ctypes\nfor path in {libraries}: ctypes.CDLL(path, ctypes.RTLD_GLOBAL)\n"
    program = loading + (
        "print(hasattr(ctypes.CDLL(None), 'fakecuda_is_emulated'), hasattr(ctypes.CDLL(None), 'cuMemCreate'))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "True True\n"

    linked = folder / LINKED / "libcuda.so.1"
    assert linked.resolve() == (folder / "cuda.emulated.so").resolve()
    asked = "print(*(hasattr(ctypes.CDLL({!r}), name) for name in ('cuModuleLoadData', 'cuLaunchKernelEx')))"
    program = f"{loading}{asked.format(str(linked))}"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "True True\n"

    said.clear()
    assert build_libraries(build, said.append) == folder
    assert said == []
    (build.libraries / "libtorch_of_another_size.so").write_bytes((build.libraries / "libc10_cuda.so").read_bytes())
    assert build_libraries(build, said.append) != folder


def test_the_compiler_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    with pytest.raises(CaptureError, match="CC names no-such-compiler, which is not there"):
        build_libraries(NOWHERE, print)


@needs_compiler
def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", "false")
    with pytest.raises(CaptureError, match=r"^false could not build the emulated device: exit code 1$"):
        build_libraries(compile_torch(tmp_path), print)
    assert not list((tmp_path / "cache" / "memscope" / "emulation").iterdir())


@pytest.mark.parametrize("name", ["with space", "with:colon"])
def test_a_folder_that_cannot_be_preloaded_from_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    with pytest.raises(CaptureError, match="set XDG_CACHE_HOME to another folder"):
        build_libraries(NOWHERE, print)
