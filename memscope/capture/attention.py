"""The kernels that CUDA would choose where PyTorch's C++ chooses by asking the device."""

from __future__ import annotations

from typing import Any

_FLASH_MAX_HEAD = 256


def scaled_dot_product_attention(
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
    """Attention as CUDA dispatches it: flash, else memory-efficient, else by plain matrix products.

    Flash takes half precision without a mask; the memory-efficient kernel takes any float type and a mask. Neither
    makes the attention matrix. Where a head dimension is not a multiple of 8, inputs are padded as upstream does.

    Source: ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` and ``attention.cpp``, behaviour at 2.13.
    """
    import torch

    aten = torch.ops.aten
    if not _fits_fused(query, key, value):
        return aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
    n_head = query.size(-1)
    if attn_mask is None and _fits_flash(query):
        padded = [_pad_head(tensor) for tensor in (query, key, value)]
        scale = scale if scale is not None else n_head**-0.5
        out = aten._scaled_dot_product_flash_attention(*padded, dropout_p, is_causal, False, scale=scale)[0]
        return out[..., :n_head] if out.size(-1) != n_head else out
    if _fits_efficient(query, key, attn_mask, enable_gqa):
        needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
        bias = _float_mask(attn_mask, query)
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, needs_grad, dropout_p, is_causal, scale=scale
        )[0]
    return aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]


def _fits_fused(query: Any, key: Any, value: Any) -> bool:
    return bool(
        query.dim() == key.dim() == value.dim() == 4
        and query.size(-1) == key.size(-1)
        and query.dtype == key.dtype == value.dtype
        and min(query.size(-2), key.size(-2)) > 0
    )


def _fits_flash(query: Any) -> bool:
    import torch

    return (
        torch.backends.cuda.flash_sdp_enabled()
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.size(-1) <= _FLASH_MAX_HEAD
        and torch.cuda.get_device_capability() >= (8, 0)
    )


def _fits_efficient(query: Any, key: Any, attn_mask: Any, enable_gqa: bool) -> bool:
    import torch

    if not torch.backends.cuda.mem_efficient_sdp_enabled() or (enable_gqa and query.size(1) != key.size(1)):
        return False
    alignment = 4 if query.dtype == torch.float32 else 8
    if query.size(-1) % alignment or query.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return False
    return not (attn_mask is not None and attn_mask.requires_grad)


def _pad_head(tensor: Any) -> Any:
    import torch

    missing = -tensor.size(-1) % 8
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor


def _float_mask(mask: Any, query: Any) -> Any:
    """A boolean mask becomes numbers; its last dimension is aligned to 16 elements, as upstream pads it."""
    import torch

    if mask is None:
        return None
    if mask.dtype == torch.bool:
        kept, hidden = (torch.full((), fill, dtype=query.dtype, device=mask.device) for fill in (0.0, float("-inf")))
        mask = torch.where(mask, kept, hidden)
    n_keys = mask.size(-1)
    if n_keys % 16:
        mask = torch.nn.functional.pad(mask, (0, -n_keys % 16))[..., :n_keys]
    return mask.expand(query.size(0), query.size(1), query.size(-2), n_keys)


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
