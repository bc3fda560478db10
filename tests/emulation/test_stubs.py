"""What PyTorch's libraries want of NVIDIA's, and the C that stands in for it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from memscope.emulation._stubs import DRIVER, RUNTIME, StandIn, Wanted, file_name_of, find_stand_ins, read_wants
from memscope.emulation.torch_build import TorchBuild
from memscope.errors import InputFileError
from tests.emulation.compiling import compile_library, compile_torch, needs_compiler

BUILD = TorchBuild("2.99.0+cu130", Path("nowhere"), (13, 0), 91_900)


@needs_compiler
def test_wanted_symbols_come_with_their_version_and_library(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("OTHER_2 { global: other; };\n")
    script = f"-Wl,--version-script,{tmp_path / 'map'}"
    other = compile_library(tmp_path, "libother.so.7", "int other(void) { return 1; }", script)
    source = "int other(void); int anyones(void); int own(void) { return other() + anyones(); }"
    wants = read_wants(compile_library(tmp_path, "libown.so", source, other))
    assert wants.libraries == ("libother.so.7",)
    assert set(wants.symbols) == {Wanted("other", "OTHER_2", "libother.so.7"), Wanted("anyones", "", "")}


@needs_compiler
def test_a_library_that_wants_nothing_is_read(tmp_path: Path) -> None:
    wants = read_wants(compile_library(tmp_path, "libalone.so", "int own(void) { return 1; }"))
    assert (wants.libraries, wants.symbols) == ((), ())


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + b"\xff" * 80, b"\x7fELF\x01\x01" + bytes(80), b"\x7fELF\x02\x02"],
    ids=["empty", "script", "nonsense", "32-bit", "cut short"],
)
def test_what_is_no_library_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "libnot.so"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"libnot\.so"):
        read_wants(path)


@needs_compiler
def test_each_symbol_goes_to_the_library_that_it_is_wanted_from(tmp_path: Path) -> None:
    stand_ins = find_stand_ins(compile_torch(tmp_path))
    # cuBLAS and cuDNN are wanted by name alone, and no library says which of their versions.
    assert stand_ins.keys() == {RUNTIME, DRIVER}
    assert stand_ins[RUNTIME] == StandIn("libcudart.so.13", {"cudaMalloc": "libcudart.so.13"})
    assert stand_ins[DRIVER] == StandIn("libcuda.so.1", {"cuMemCreate": ""})


def test_a_stand_in_has_a_file_name_unlike_its_soname() -> None:
    assert StandIn("libcudart.so.13").file_name == file_name_of("libcudart.so.13") == "cudart.emulated.so"


def test_the_symbol_map_has_each_version_and_the_runtime_exports_its_own() -> None:
    stand_in = StandIn("libx.so.1", {"b": "V1", "a": "V1", "c": "V2"})
    assert stand_in.symbol_map(is_runtime=False) == "V1 { global: a; b; };\nV2 { global: c; };\n"
    assert "global: a; cuda*; __cuda*; fakecuda_*; cu[A-Z]*; local: *; };" in StandIn(
        "libcudart.so.13", {"a": "libcudart.so.13"}
    ).symbol_map(is_runtime=True)
    assert StandIn("liby.so", {"a": ""}).symbol_map(is_runtime=False) == "{ global: *; };\n"


def test_a_stub_succeeds_creates_or_answers() -> None:
    names = ["cusolverDnCreate", "cublasSgemm_v2", "cudnnGetVersion", "cuMemCreate"]
    source = StandIn("libx.so", dict.fromkeys(names, "")).source(frozenset({"cuMemCreate"}), BUILD)
    assert 'int cusolverDnCreate(void **handle) { say("cusolverDnCreate"); *handle = dummy; return 0; }' in source
    assert 'int cublasSgemm_v2() { say("cublasSgemm_v2"); return 0; }' in source
    assert "size_t cudnnGetVersion(void) { return 91900; }" in source
    assert "cuMemCreate" not in source


@needs_compiler
def test_no_two_cublas_handles_are_equal(tmp_path: Path) -> None:
    names = ["cublasCreate_v2", "cublasDestroy_v2"]
    library = ctypes.CDLL(
        str(
            compile_library(
                tmp_path, "libx.so", StandIn("libx.so", dict.fromkeys(names, "")).source(frozenset(), BUILD)
            )
        )
    )
    handles = [ctypes.c_void_p() for _ in range(3)]
    assert [library.cublasCreate_v2(ctypes.byref(handle)) for handle in handles] == [0, 0, 0]
    assert len({handle.value for handle in handles} - {None}) == 3
    assert [library.cublasDestroy_v2(handle) for handle in handles] == [0, 0, 0]
