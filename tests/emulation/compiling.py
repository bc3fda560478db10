"""Small shared libraries in place of PyTorch's and NVIDIA's, for the tests that need ones to read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from memscope.emulation.torch_build import TorchBuild

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def compile_library(folder: Path, name: str, source: str, *options: object) -> Path:
    path = folder / name
    (folder / "source.c").write_text(source)
    command = ["cc", "-shared", "-fPIC", "-nostdlib", folder / "source.c", f"-Wl,-soname,{name}", *options, "-o", path]
    subprocess.run(list(map(str, command)), check=True)
    return path


def compile_torch(folder: Path) -> TorchBuild:
    """A ``libc10_cuda.so`` that wants what PyTorch's wants: versioned, unversioned, and from the driver by its name."""
    (folder / "map").write_text("libcudart.so.13 { global: cudaMalloc; };\n")
    script = f"-Wl,--version-script,{folder / 'map'}"
    runtime = compile_library(folder, "libcudart.so.13", "int cudaMalloc(void) { return 1; }", script)
    libraries = folder / "lib"
    libraries.mkdir()
    source = (
        "int cudaMalloc(void); int cublasCreate_v2(void **); int cudnnGetConvolution(void); int puts_nothing(void);\n"
        'const char text[] = "\\0cuMemCreate\\0";\n'
        "int all(void) { return cudaMalloc() + cublasCreate_v2(0) + cudnnGetConvolution() + puts_nothing(); }\n"
    )
    compile_library(libraries, "libc10_cuda.so", source, runtime)
    return TorchBuild("2.99.0+cu130", libraries, (13, 0), 91_900)
