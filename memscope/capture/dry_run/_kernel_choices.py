"""What CUDA would choose where PyTorch's C++ chooses by asking the device: attention kernels, and autocast's casts."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run.kernels.attention import math_attention, numbers_of_mask

_FLASH_SDPA_MAX_HEAD = 256


def sdpa(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Scaled dot-product attention as CUDA has it: flash, else memory-efficient, else by plain matrix products.

    Flash takes half precision without a mask; the memory-efficient kernel takes any float type and a mask. Neither
    makes the attention matrix. Where a head dimension is not a multiple of 8, inputs are padded as upstream does.

    Source: ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` and ``attention.cpp``, behaviour at 2.13.
    """
    import torch

    aten = torch.ops.aten
    if not _sdpa_fits_fused(query, key, value):
        return math_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    n_head = query.size(-1)
    if attn_mask is None and _sdpa_fits_flash(query):
        padded = [_pad_sdpa_head(tensor) for tensor in (query, key, value)]
        scale = scale if scale is not None else n_head**-0.5
        out = aten._scaled_dot_product_flash_attention(*padded, dropout_p, is_causal, False, scale=scale)[0]
        return out[..., :n_head] if out.size(-1) != n_head else out
    if _sdpa_fits_efficient(query, key, enable_gqa):
        needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
        bias = _sdpa_bias(attn_mask, query)
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, needs_grad, dropout_p, is_causal, scale=scale
        )[0]
    return math_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)


def _sdpa_fits_fused(query: Any, key: Any, value: Any) -> bool:
    return bool(
        query.dim() == key.dim() == value.dim() == 4
        and query.size(-1) == key.size(-1)
        and query.dtype == key.dtype == value.dtype
        and min(query.size(-2), key.size(-2)) > 0
    )


def _sdpa_fits_flash(query: Any) -> bool:
    import torch

    return (
        torch.backends.cuda.flash_sdp_enabled()
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.size(-1) <= _FLASH_SDPA_MAX_HEAD
        and torch.cuda.get_device_capability() >= (8, 0)
    )


def _sdpa_fits_efficient(query: Any, key: Any, enable_gqa: bool) -> bool:
    import torch

    if not torch.backends.cuda.mem_efficient_sdp_enabled() or (enable_gqa and query.size(1) != key.size(1)):
        return False
    alignment = 4 if query.dtype == torch.float32 else 8
    return query.size(-1) % alignment == 0 and query.dtype in (torch.float16, torch.bfloat16, torch.float32)


def _pad_sdpa_head(tensor: Any) -> Any:
    import torch

    missing = -tensor.size(-1) % 8
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor


def _sdpa_bias(mask: Any, query: Any) -> Any:
    """A boolean mask becomes numbers; its last dimension is aligned to 8 elements, as upstream pads it."""
    import torch

    if mask is None:
        return None
    mask = numbers_of_mask(mask, query.dtype)
    n_keys = mask.size(-1)
    if n_keys % 8:
        mask = torch.nn.functional.pad(mask, (0, -n_keys % 8))[..., :n_keys]
    return mask.expand(query.size(0), query.size(1), query.size(-2), n_keys)


def linear(tensor: Any, weight: Any, bias: Any = None) -> Any:
    """A linear layer of a tensor of several dimensions that is not contiguous: a product, and the bias added in place.

    Of subclasses of tensors PyTorch adds it out of place. Source: ``aten/src/ATen/native/Linear.cpp``, read at 2.11.
    """
    if bias is None or tensor.dim() <= 2 or tensor.is_contiguous():
        return None
    return (tensor @ weight.t()).add_(bias)


def dropout(tensor: Any, p: float, train: bool) -> Any:
    """Dropout as on CUDA: one fused kernel whose mask is one byte for each element.

    Source: ``aten/src/ATen/native/Dropout.cpp``, ``is_fused_kernel_acceptable``.
    """
    import torch

    if train and 0 < p < 1 and tensor.numel() > 0:
        return torch.native_dropout(tensor, p, train)[0]
    return None


def rms_norm(tensor: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """RMS norm as on CUDA: one fused kernel."""
    import torch

    if not hasattr(torch.ops.aten, "_fused_rms_norm"):
        return None
    return torch.ops.aten._fused_rms_norm(tensor, list(normalized_shape), weight, eps)[0]


def cross_entropy(
    logits: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Cross entropy of half-precision logits under autocast: CUDA's lists have its second part alone.

    The logarithms are made in the precision of the logits, and copied to float32 for the loss. Source:
    ``aten/src/ATen/autocast_mode.h`` and ``native/LossNLL.cpp``, behaviour at 2.13.
    """
    import torch

    is_plain = not label_smoothing and size_average is None and reduce is None and not target.is_floating_point()
    if not torch.is_autocast_enabled("cuda") or logits.dtype.itemsize != 2 or not is_plain:
        return None
    logarithms = torch.log_softmax(logits, 1 if logits.dim() > 1 else 0, dtype=logits.dtype)
    return torch.nn.functional.nll_loss(logarithms, target, weight, ignore_index=ignore_index, reduction=reduction)


_LOWER = frozenset(
    [
        *("__matmul__", "__rmatmul__", "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm"),
        *("chain_matmul", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
        *("conv_transpose3d", "einsum", "gru_cell", "linear", "lstm_cell", "matmul", "mm", "multi_dot", "mv"),
        *("prelu", "rnn_relu_cell", "rnn_tanh_cell", "scaled_dot_product_attention"),
        *("gru", "lstm", "rnn_relu", "rnn_tanh", "linalg_multi_dot", "linalg_vecdot"),
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
_FLOAT_OF_SOME_RELEASES = {
    "huber_loss": "huber_loss",
    "interpolate": "upsample_nearest2d",
    "logsumexp": "logsumexp",
    "normalize": "linalg_vector_norm",
    "pdist": "pdist",
    "upsample": "upsample_nearest2d",
}
"""Functions in float32 where the release's dispatcher has a rule of CUDA's autocast for the operation that they are."""
_FLOAT_RESULT = frozenset(
    [
        "cumprod",
        "cumsum",
        "linalg_vector_norm",
        "linalg_matrix_norm",
        "log_softmax",
        "prod",
        "softmax",
        "softmin",
        "sum",
    ]
)
"""These are told to compute in float32; their input is not copied first."""


class Autocast:
    """Applies autocast's rules to the calls of torch functions on device tensors."""

    def __init__(self, is_device_tensor: Callable[[object], bool]) -> None:
        import torch

        self._is_device_tensor = is_device_tensor
        self._is_enabled = torch.is_autocast_enabled
        has_rule = torch._C._dispatch_has_kernel_for_dispatch_key
        added = (name for name, op in _FLOAT_OF_SOME_RELEASES.items() if has_rule(f"aten::{op}", "AutocastCUDA"))
        self._float = _FLOAT.union(added)
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
        elif name in self._float:
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
