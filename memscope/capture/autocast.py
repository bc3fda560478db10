"""``torch.autocast("cuda")`` in a dry run: the casts that PyTorch's C++ would make if it were told of a CUDA device.

Source: ``aten/src/ATen/autocast_mode.cpp`` and its lists of operations, as documented for 2.13.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

_LOWER = frozenset(
    [
        *("__matmul__", "__rmatmul__", "addbmm", "addmm", "addmv", "addr", "baddbmm", "bilinear", "bmm"),
        *("chain_matmul", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
        *("conv_transpose3d", "einsum", "gru_cell", "linear", "lstm_cell", "matmul", "mm", "multi_dot", "mv"),
        *("prelu", "rnn_relu_cell", "rnn_tanh_cell", "scaled_dot_product_attention"),
    ]
)
_FLOAT = frozenset(
    [
        *("__pow__", "__rpow__", "acos", "asin", "binary_cross_entropy_with_logits", "cdist", "cosh"),
        *("cosine_embedding_loss", "cosine_similarity", "cross_entropy", "dist", "erfinv", "exp", "expm1"),
        *("group_norm", "hinge_embedding_loss", "kl_div", "l1_loss", "layer_norm", "log", "log10", "log1p"),
        *("log2", "margin_ranking_loss", "mse_loss", "multilabel_margin_loss", "multi_margin_loss", "nll_loss"),
        *("norm", "poisson_nll_loss", "pow", "reciprocal", "renorm", "rsqrt", "sinh", "smooth_l1_loss"),
        *("soft_margin_loss", "softplus", "tan", "triplet_margin_loss"),
    ]
)
_FLOAT_RESULT = frozenset(["cumprod", "cumsum", "log_softmax", "prod", "softmax", "softmin", "sum"])
"""These are told to compute in float32; their input is not copied first."""


class Autocast:
    """Applies autocast's rules to the calls of torch functions on device tensors."""

    def __init__(self, is_device_tensor: Callable[[object], bool]) -> None:
        import torch

        self._is_device_tensor = is_device_tensor
        self._is_enabled = torch.is_autocast_enabled
        self._plain_clear = torch.clear_autocast_cache
        self._casts: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def clear(self) -> None:
        """Forget the parameters' copies, as the end of the outermost autocast block does."""
        self._casts.clear()
        self._plain_clear()

    def arguments(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with the casts that the function calls for; as they are where autocast is off."""
        if not self._is_enabled("cuda"):
            return args, kwargs
        import torch

        name = getattr(func, "__name__", "")
        if name in _LOWER:
            dtype = torch.get_autocast_dtype("cuda")
        elif name in _FLOAT:
            dtype = torch.float32
        elif name in _FLOAT_RESULT and self._wants_float(args) and kwargs.get("dtype") is None:
            return args, {**kwargs, "dtype": torch.float32}
        else:
            return args, kwargs
        with torch.autocast("cuda", enabled=False):
            cast = tuple(self._cast(value, dtype) for value in args)
            return cast, {key: self._cast(value, dtype) for key, value in kwargs.items()}

    def _wants_float(self, args: tuple[Any, ...]) -> bool:
        return bool(args) and self._is_device_tensor(args[0]) and args[0].dtype.itemsize == 2

    def _cast(self, value: Any, dtype: Any) -> Any:
        import torch

        if isinstance(value, tuple | list):
            return type(value)(self._cast(part, dtype) for part in value)
        if not self._is_device_tensor(value) or not value.is_floating_point() or value.dtype in (dtype, torch.float64):
            return value
        is_kept = (
            dtype != torch.float32
            and value.dtype == torch.float32
            and value.is_leaf
            and value.requires_grad
            and torch.is_autocast_cache_enabled()
        )
        if not is_kept:
            return value.to(dtype)
        known = self._casts.get(id(value))
        if known is None or known[0]() is not value:
            known = self._casts[id(value)] = weakref.ref(value), value.to(dtype)
        return known[1]
