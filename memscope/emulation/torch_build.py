"""The installed PyTorch, looked at without importing it: its folder, its version, the CUDA that it was built for."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from memscope.errors import CaptureError, MissingDependencyError

_CUDA_MAJORS = (12, 13)
_ANY_CUDNN = 99_900
"""A cuDNN version that every PyTorch accepts, for installations that do not say which one they want."""
_VERSION = re.compile(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)
_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"](\d+)\.(\d+)", re.MULTILINE)
_CUDNN = re.compile(r"^nvidia-cudnn-cu\d+\s*\(?==\s*(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """One installed CUDA build of PyTorch.

    Attributes
    ----------
    version
        ``2.11.0+cu130``.
    libraries
        The folder of its shared libraries.
    cuda
        The CUDA version that it was built for, (major, minor).
    cudnn_version
        The cuDNN that it wants, as ``cudnnGetVersion`` counts.
    """

    version: str
    libraries: Path
    cuda: tuple[int, int]
    cudnn_version: int

    @property
    def cuda_number(self) -> int:
        """As ``CUDART_VERSION`` counts: 13,000 for 13.0."""
        return 1000 * self.cuda[0] + 10 * self.cuda[1]


def find_torch_build() -> TorchBuild:
    """Find the CUDA build of PyTorch that this Python has.

    Raises
    ------
    CaptureError
        If this machine cannot run the emulated device, or this PyTorch has no CUDA, or one that is too old.
    MissingDependencyError
        If there is no PyTorch.
    """
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise CaptureError(
            f"the emulated device needs Linux on x86-64, not {sys.platform} on {platform.machine()}: make a dry run"
        )
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("torch", "torch", "the emulated device")
    return read_torch_build(Path(spec.origin).parent)


def read_torch_build(folder: Path) -> TorchBuild:
    """Read what an installed PyTorch says of itself.

    Raises
    ------
    CaptureError
        If it is no CUDA build, or one for a CUDA that is not known here.
    """
    text = (folder / "version.py").read_text(encoding="utf-8")
    version, cuda = _VERSION.search(text), _CUDA.search(text)
    name = version[1] if version else "of an unknown version"
    if cuda is None or not (folder / "lib" / "libtorch_cuda.so").is_file():
        raise CaptureError(
            f"torch {name} is a build without CUDA, and the emulated device stands in for the device alone: install a "
            "CUDA build of torch (it needs no GPU), or make a dry run"
        )
    major, minor = int(cuda[1]), int(cuda[2])
    if major not in _CUDA_MAJORS:
        raise CaptureError(f"torch {name} is for CUDA {major}.{minor}; the emulated device knows CUDA 12 and 13")
    return TorchBuild(name, folder / "lib", (major, minor), _cudnn_version())


def _cudnn_version() -> int:
    """The cuDNN that torch's distribution requires; PyTorch checks at start that it got one at least as new."""
    try:
        requirements = metadata.requires("torch") or []
    except metadata.PackageNotFoundError:
        return _ANY_CUDNN
    found = next((match for line in requirements if (match := _CUDNN.match(line))), None)
    if found is None:
        return _ANY_CUDNN
    return 10_000 * int(found[1]) + 100 * int(found[2]) + int(found[3])
