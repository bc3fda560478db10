"""What kernels allocate beside the tensors that they return, by operation; and some of what they return.

The tables of the subjects' modules say it; what is in none takes nothing that is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run.kernels import (
    _attending,
    _convolution,
    _embedding,
    _indexing,
    _losses,
    _reducing,
    _sorting,
    recurrent,
    workspaces,
)
from memscope.capture.dry_run.kernels._call import PRODUCT, Call, Kernel, Scratch

_KERNELS: dict[str, Kernel] = {
    **_attending.KERNELS,
    **_convolution.KERNELS,
    **_embedding.KERNELS,
    **_indexing.KERNELS,
    **_losses.KERNELS,
    **_reducing.KERNELS,
    **_sorting.KERNELS,
    **workspaces.KERNELS,
}


def _nothing(_: tuple[Any, ...]) -> None:
    """What writes into its arguments returns nothing."""


SHAPES: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    **recurrent.SHAPES,
    **_losses.SHAPES,
    **dict.fromkeys(("_fused_sgd_", "_fused_adagrad_"), _nothing),
}
"""The results of operations that PyTorch has no rule of shapes for, from their arguments."""


def scratch_of(kind: str, call: Call) -> Scratch | None:
    """What a call of an operation takes beside its result; None where nothing.

    Parameters
    ----------
    kind
        The operation's base name, ``sum`` of ``aten::sum.dim_IntList``.
    call
        The call, with its result.
    """
    kernel = _KERNELS.get(kind)
    return None if kernel is None else kernel(call)


__all__ = ["PRODUCT", "SHAPES", "Call", "Scratch", "scratch_of"]
