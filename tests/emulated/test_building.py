"""Building the stand-ins: once, whole, and with one line where it cannot be done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulated.conftest import PROGRAMS, Ended, run_memscope

pytestmark = pytest.mark.emulated


def _describe(cache: Path, *options: object, **environment: str) -> Ended:
    arguments = ("run", "--emulate", *options, "-f", "-o", cache.parent / "x.memscope", PROGRAMS / "describe.py")
    return run_memscope(*arguments, environment={"XDG_CACHE_HOME": str(cache), **environment})


def test_two_processes_may_build_at_once_and_the_next_builds_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    program = (
        "import sys\n"
        "from memscope.emulation.build import build_libraries\n"
        "from memscope.emulation.torch_build import find_torch_build\n"
        "print(build_libraries(find_torch_build(), lambda text: print(text, file=sys.stderr)))\n"
    )
    command = [sys.executable, "-c", program]
    environment = {"XDG_CACHE_HOME": str(cache), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    (folder,) = (cache / "memscope" / "emulation").iterdir()  # nothing half-built is left
    assert {out.strip() for out, _ in results} == {str(folder)}
    assert all("building the emulated device for torch" in err for _, err in results)
    again = _describe(cache)
    assert again.code == 0, again.err
    assert "building" not in again.err


def test_without_a_compiler_one_line_says_so(tmp_path: Path) -> None:
    ended = _describe(tmp_path / "cache", CC="no-such-compiler -O1")
    assert ended.code == 1
    assert ended.err == (
        "memscope: the emulated device is built with a C compiler, and CC names no-such-compiler, which is not there: "
        "install gcc, or set CC\n"
    )


def test_a_compiler_that_fails_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    ended = _describe(cache, CC="false")
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == "memscope: false could not build the emulated device: exit code 1"
    assert not list((cache / "memscope" / "emulation").iterdir())


def test_a_cache_folder_that_cannot_be_preloaded_from_is_refused(tmp_path: Path) -> None:
    ended = _describe(tmp_path / "with space")
    assert ended.code == 1
    assert "set XDG_CACHE_HOME to another folder" in ended.err
    assert ended.err.count("\n") == 1
