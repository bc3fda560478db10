"""Attention by plain matrix products, as CUDA has it: what a dry run's tensors would have PyTorch do otherwise.

PyTorch adds the mask to the scores in place and fuses the dropout, but not for subclasses of tensors.
"""

from __future__ import annotations

from typing import Any


def math_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    dropout_p: float,
    is_causal: bool,
    *,
    scale: float | None,
    enable_gqa: bool,
) -> Any:
    """The reference attention; half precision is computed in float32 unless the program has allowed otherwise.

    Source: ``aten/src/ATen/native/transformers/attention.cpp``, ``_scaled_dot_product_attention_math``, read at 2.11.
    """
    made = query.dtype
    attn_mask = numbers_of_mask(attn_mask, made)
    if made.itemsize == 2 and not _reduces_in_half():
        query, key, value = query.float(), key.float(), value.float()  # all are kept until the end
    factor = (abs(scale) if scale is not None else float(query.size(-1)) ** -0.5) ** 0.5
    scaled = query * (-factor if scale is not None and scale < 0 else factor)
    if is_causal:
        attn_mask = numbers_of_mask(query.new_ones((query.size(-2), key.size(-2)), dtype=_bool()).tril(), query.dtype)
    if enable_gqa:
        n = query.size(-3)
        key, value = (t.repeat_interleave(n // t.size(-3), -3) if t.size(-3) != n else t for t in (key, value))
    shares = _shares(scaled, key, attn_mask, factor)
    if dropout_p > 0:
        shares = _dropout(shares, dropout_p)
    returned = shares.to(made)  # beside the output, until the call ends
    output = (shares @ value).to(made)
    del returned, query
    return output


def _shares(query: Any, key: Any, mask: Any, factor: float) -> Any:
    import torch

    scores = query @ (key.transpose(-2, -1) * factor)
    if mask is not None:
        scores.add_(mask)
    safe = getattr(torch.ops.aten, "_safe_softmax", None)
    return safe(scores, -1) if safe is not None else scores.softmax(-1)


def _dropout(shares: Any, p: float) -> Any:
    import torch

    return torch.native_dropout(shares, p, True)[0]


def _bool() -> Any:
    import torch

    return torch.bool


def _reduces_in_half() -> bool:
    import torch

    allowed = getattr(torch.backends.cuda, "fp16_bf16_reduction_math_sdp_allowed", None)
    return bool(allowed is not None and allowed())


def numbers_of_mask(mask: Any, dtype: Any) -> Any:
    """A boolean mask as what is added to scores: 0 and minus infinity; another as it is."""
    import torch

    if mask is None or mask.dtype != torch.bool:
        return mask
    kept, hidden = (torch.full((), fill, dtype=dtype, device=mask.device) for fill in (0.0, float("-inf")))
    return torch.where(mask, kept, hidden)
