"""The reader of shared libraries, beside what the compiler was told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from memscope.emulation.elf import Wanted, read_wants
from memscope.errors import InputFileError

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def _library(folder: Path, name: str, source: str, *options: object) -> Path:
    path = folder / name
    (folder / "source.c").write_text(source)
    command = ["cc", "-shared", "-fPIC", "-nostdlib", folder / "source.c", f"-Wl,-soname,{name}", *options, "-o", path]
    subprocess.run(list(map(str, command)), check=True)
    return path


@needs_compiler
def test_wanted_symbols_come_with_their_version_and_library(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("OTHER_2 { global: other; };\n")
    script = f"-Wl,--version-script,{tmp_path / 'map'}"
    other = _library(tmp_path, "libother.so.7", "int other(void) { return 1; }", script)
    source = "int other(void); int anyones(void); int own(void) { return other() + anyones(); }"
    wants = read_wants(_library(tmp_path, "libown.so", source, other))
    assert wants.libraries == ("libother.so.7",)
    assert set(wants.symbols) == {Wanted("other", "OTHER_2", "libother.so.7"), Wanted("anyones", "", "")}


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + b"\xff" * 80], ids=["empty", "script", "nonsense"]
)
def test_what_is_no_library_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "libnot.so"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"libnot\.so"):
        read_wants(path)
