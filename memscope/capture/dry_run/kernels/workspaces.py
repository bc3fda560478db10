"""What products need: copies that cuBLAS can read, and workspaces by handle and stream, which some releases keep.

A thread has handles of its own, and backward passes are run by the autograd engine's threads: a program that trains has
two workspaces of each kind that both ways need.

Source: ``aten/src/ATen/cuda/CublasHandlePool.cpp`` and ``native/cuda/Blas.cpp``, read at 2.11; histories recorded of
torch 2.11 to 2.15 on emulated devices, and of torch 2.6 on a GPU. Up to 2.13 PyTorch keeps cuBLAS's, and up to 2.12
cuBLASLt's; later it takes the latter at each such product, and leaves the former to the library.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from memscope.capture.dry_run.kernels._call import Call, Kernel, Scratch, nbytes
from memscope.capture.dry_run.kernels._convolution import is_by_products
from memscope.gpus import GpuModel

CUBLAS_LABEL = "cuBLAS workspace (modelled)"
CUBLASLT_LABEL = "cuBLASLt workspace (modelled)"
_MATMULS = frozenset(["mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot", "addbmm", "_addmm_activation"])
_KEEPS_CUBLAS_BEFORE = (2, 14)
_KEEPS_CUBLASLT_BEFORE = (2, 13)


def _is_readable(matrix: Any) -> bool:
    """Whether rows or columns lie one after the other, without overlap."""
    (n, m), (down, across) = matrix.shape[-2:], matrix.stride()[-2:]
    return bool((across == 1 and down >= max(1, m)) or (down == 1 and across >= max(1, n)) or min(n, m) == 1)


def _product(call: Call) -> Scratch:
    """Copies of the matrices that cuBLAS cannot read as they lie."""
    factors = call.args[-2:] if len(call.args) < 3 else call.args[1:3]
    return Scratch([nbytes(matrix) for matrix in factors if not _is_readable(matrix)])


KERNELS: dict[str, Kernel] = dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "_addmm_activation"), _product)


class Needed(NamedTuple):
    """Workspaces that a product makes and leaves, with their labels; and bytes that it gives back."""

    kept: tuple[tuple[int, str], ...] = ()
    given_back_bytes: int = 0


_NOTHING = Needed()


class Workspaces:
    """Remembers which handles have theirs, on which streams.

    Parameters
    ----------
    gpu
        The device, whose generation decides the sizes.
    torch_version
        The release that runs.
    """

    def __init__(self, gpu: GpuModel, torch_version: str) -> None:
        found = re.match(r"(\d+)\.(\d+)", torch_version)
        release = (int(found[1]), int(found[2])) if found else _KEEPS_CUBLAS_BEFORE
        self._gpu = gpu
        self._keeps_cublas = release < _KEEPS_CUBLAS_BEFORE
        self._keeps_cublaslt = release < _KEEPS_CUBLASLT_BEFORE
        self._having: set[tuple[Any, bool, str]] = set()

    def needed(self, kind: str, args: tuple[Any, ...], stream: Any, *, is_by_engine: bool = False) -> Needed:
        """What an operation needs on a stream: cuBLAS for every product, cuBLASLt for one with a bias.

        Convolutions without cuDNN are products of the columns, but those that go by depth.

        Parameters
        ----------
        kind, args
            The operation's base name and its arguments.
        stream
            A stream of a device, which nothing else equals.
        is_by_engine
            Whether the autograd engine runs it: in CUDA programs its thread has a handle of its own.
        """
        if kind not in _MATMULS and not is_by_products(kind, args):
            return _NOTHING
        kept = []
        if self._keeps_cublas and self._is_first(stream, is_by_engine, CUBLAS_LABEL):
            kept.append((self._gpu.cublas_workspace_bytes, CUBLAS_LABEL))
        has_bias = kind in ("addmm", "_addmm_activation") and args[0].dim() == 1
        if has_bias and self._keeps_cublaslt and self._is_first(stream, is_by_engine, CUBLASLT_LABEL):
            kept.append((self._gpu.cublaslt_workspace_bytes, CUBLASLT_LABEL))
        given_back = self._gpu.cublaslt_workspace_bytes if has_bias and not self._keeps_cublaslt else 0
        return Needed(tuple(kept), given_back)

    def _is_first(self, stream: Any, is_by_engine: bool, label: str) -> bool:
        key = (stream, is_by_engine, label)
        is_first = key not in self._having
        self._having.add(key)
        return is_first
