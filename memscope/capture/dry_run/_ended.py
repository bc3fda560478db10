"""Tensors of a dry run that is over: what they are can be read, and whatever else is done with them is refused.

Without their mode, PyTorch's C++ would look for the driver that they speak of, and end the process.
"""

from __future__ import annotations

import gc
from functools import lru_cache
from typing import Any

from memscope.errors import CaptureError

_READABLE = frozenset(
    [
        *("__get__", "__len__", "__hash__", "size", "dim", "ndimension", "numel", "nelement", "stride"),
        *("storage_offset", "element_size", "is_contiguous", "is_floating_point", "is_complex", "untyped_storage"),
    ]
)
_MESSAGE = "this tensor belongs to a dry run that has ended: it has no values, and nothing can be computed with it"


def end_tensors(fake_mode: Any) -> None:
    """Make every tensor that is left of a dry run one of a dry run that is over. Linear in all objects."""
    from torch._subclasses.fake_tensor import FakeTensor

    for tensor in [each for each in gc.get_objects() if type(each) is FakeTensor and each.fake_mode is fake_mode]:
        tensor.__class__ = _ended_class()


@lru_cache(maxsize=1)
def _ended_class() -> type:
    """Made when it is used, because torch must not be imported before."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    class EndedTensor(FakeTensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.__name__ in _READABLE:
                with torch._C.DisableTorchFunctionSubclass():
                    return func(*args, **(kwargs or {}))
            raise CaptureError(_MESSAGE)

        @classmethod
        def __torch_dispatch__(  # type: ignore[override]
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.prim.device.default:
                return args[0].fake_device
            raise CaptureError(_MESSAGE)

        def __repr__(self, *, tensor_contents: Any = None) -> Any:  # type: ignore[override]
            return f"EndedTensor(shape={tuple(self.shape)}, dtype={self.dtype}, of a dry run that has ended)"

    return EndedTensor
