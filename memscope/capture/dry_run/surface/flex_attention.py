"""Flex attention in a dry run: one fused kernel where a program compiles anything, else by plain matrix products.

The operator itself traces the program's functions with modes of its own, which there cannot be beside a dry run's. On
a GPU the compiled one makes its output and two numbers a row; the eager one has the matrix of scores in memory, forward
and backward. What masks and scores are computed from is kept, and their own functions run in the eager one. So it is
with ``create_block_mask``: the whole mask, a byte for each pair of positions, is in memory only where that is eager.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from memscope.capture.patches import Patches

_CONVERT = "_convert_mask_to_block_mask"


def patch_flex_attention(patches: Patches, is_compiling: Callable[[], bool]) -> None:
    """Replace the operator that ``flex_attention`` calls.

    Parameters
    ----------
    is_compiling
        Whether the program has asked for anything to be compiled.
    """
    if find_spec("torch.nn.attention.flex_attention") is None:
        return
    from torch.nn.attention import flex_attention as public

    function = _function(is_compiling)

    def operator(
        query: Any, key: Any, value: Any, score_mod: Any, block_mask: Any, scale: float, options: Any, *others: Any
    ) -> Any:
        return function.apply(query, key, value, (score_mod, block_mask, scale, options, *others))

    if hasattr(public, "flex_attention_hop"):
        patches.set(public, "flex_attention_hop", operator)
    if hasattr(public, _CONVERT):
        patches.set(public, _CONVERT, _converted(getattr(public, _CONVERT)))


def compiled_block_mask(function: Any) -> Callable[..., Any] | None:
    """What stands for ``create_block_mask`` where that is compiled, None for any other function."""
    public = sys.modules.get("torch.nn.attention.flex_attention")
    if public is None or function is not public.create_block_mask:
        return None

    @functools.wraps(function)
    def create_block_mask(*args: Any, **options: Any) -> Any:
        if not hasattr(getattr(public, _CONVERT, None), "__wrapped__"):  # the dry run has ended
            return function(*args, **options)
        patches = Patches()
        patches.set(public, "create_mask", _unmade_mask)
        try:
            return function(*args, **options)
        finally:
            patches.undo()

    return create_block_mask


class _UnmadeMask(NamedTuple):
    """A mask that a generated kernel computes, and never has in memory."""

    shape: tuple[int, int, int, int]
    device: Any


def _unmade_mask(
    _: Any, batch: int | None, heads: int | None, n_queries: int, n_keys: int, device: Any = None
) -> _UnmadeMask:
    return _UnmadeMask((batch or 1, heads or 1, n_queries, n_keys), device)


def _converted(plain: Callable[..., Any]) -> Callable[..., Any]:
    """``_convert_mask_to_block_mask``: of a mask that is never made, which blocks of it are partly or wholly seen."""
    signature = inspect.signature(plain)

    @functools.wraps(plain)
    def converted(mask: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(mask, _UnmadeMask):
            return plain(mask, *args, **options)
        import torch

        given = signature.bind(mask, *args, **options)
        given.apply_defaults()
        *outer, n_queries, n_keys = mask.shape
        shape = (
            *outer,
            -(-n_queries // given.arguments["Q_BLOCK_SIZE"]),
            -(-n_keys // given.arguments["KV_BLOCK_SIZE"]),
        )
        partly = torch.empty(shape, dtype=torch.int8, device=mask.device)
        return partly, torch.empty_like(partly) if given.arguments["separate_full_blocks"] else None

    return converted


def _function(is_compiling: Callable[[], bool]) -> Any:
    """Made when it is used, because torch must not be imported before."""
    import torch

    class FlexAttention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any, rest: tuple[Any, ...]) -> Any:
            ctx.rest = rest
            ctx.is_fused = is_compiling()
            made = _fused(query, value) if ctx.is_fused else _dense(query, key, value, rest)
            ctx.save_for_backward(query, key, value, made[0], made[1])
            ctx.mark_non_differentiable(*made[2:])
            return made

        @staticmethod
        def backward(ctx: Any, grad_out: Any, grad_lse: Any, *_: Any) -> Any:
            query, key, value, out, lse = ctx.saved_tensors
            if not ctx.is_fused:
                return (*_dense_backward((query, key, value, out, lse), grad_out, grad_lse, ctx.rest), None)
            delta = torch.empty_like(lse)  # the sums over grad_out * out, one for each row
            grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
            del delta
            return (*grads, None)

    return FlexAttention


def _fused(query: Any, value: Any) -> tuple[Any, ...]:
    """What the generated kernel returns: the output, laid out as the query, the logarithms of sums, and maxima."""
    import torch

    shape = (*query.shape[:3], value.size(-1))
    order = sorted(range(4), key=lambda dim: (-query.stride(dim), dim))
    out = query.new_empty([shape[dim] for dim in order]).permute([order.index(dim) for dim in range(4)])
    sums, maxima = (query.new_empty(query.shape[:3], dtype=torch.float32) for _ in range(2))
    return out, sums, maxima


def _dense(query: Any, key: Any, value: Any, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    made: tuple[Any, ...] = _upstream().sdpa_dense(query, key, value, *rest)
    return made


def _dense_backward(saved: tuple[Any, ...], grad_out: Any, grad_lse: Any, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """The eager operator's gradients; the gradient of the scores is what comes in, whatever changes the scores."""
    import torch

    upstream = _upstream()
    score_mod, block_mask, scale, options, *others = rest

    none = torch.zeros(())

    def joint(_score: Any, *indices_and_gradient: Any) -> list[Any]:
        return [indices_and_gradient[4], *(none for _ in range(4)), *(none for _ in indices_and_gradient[5:])]

    given = {
        **dict(zip(("query", "key", "value", "out", "logsumexp"), saved, strict=True)),
        "grad_out": grad_out,
        "grad_logsumexp": grad_lse,
        "grad_max_scores": None,
        "fw_graph": score_mod,
        "joint_graph": joint,
        "block_mask": block_mask,
        "scale": scale,
        "kernel_options": options,
        **dict(zip(("score_mod_other_buffers", "mask_mod_other_buffers"), (*others, (), ()), strict=False)),
    }
    wanted = inspect.signature(upstream.sdpa_dense_backward).parameters
    grads = upstream.sdpa_dense_backward(**{name: value for name, value in given.items() if name in wanted})
    return tuple(grads[:3])


def _upstream() -> Any:
    """The module, whose name in its package is taken by the operator."""
    return import_module("torch._higher_order_ops.flex_attention")
