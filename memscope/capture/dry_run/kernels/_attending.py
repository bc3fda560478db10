"""What the fused attention kernels take beside their results: statistics, splits of the keys, gradients in float32.

Source: ``aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp`` (``mha_fwd``, ``mha_bwd``,
``num_splits_heuristic``) and ``mem_eff_attention/kernel_backward.h`` (``workspace_size``), read at 2.11 and checked
against its requests.
"""

from __future__ import annotations

import math
from typing import Any

from memscope.capture.dry_run.kernels._call import Call, Kernel, Scratch, Sizes, nbytes

_FLOAT = 4
_FLASH_ROWS = 64
_MAX_SPLITS = 128


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _flash_head(n: int) -> int:
    return _round_up(n, 32 if n <= 128 else 64)


def _flash_forward(call: Call) -> Scratch:
    """Few blocks of queries are not enough for the device: the keys are split, and the parts added up at the end."""
    query, key = call.args[:2]
    batch, n_heads, n_queries, head = query.shape
    if call.get("dropout_p", 0.0):
        return Scratch([[16]])
    n_swapped, n_rows = n_heads, n_queries
    if n_queries == 1 and n_heads > key.size(1) and head % 8 == 0:
        n_swapped, n_rows = key.size(1), n_heads // key.size(1)
    block = 256 if head <= 64 else 128 if head <= 128 else 64
    n_blocks = batch * n_swapped * -(-n_rows // _FLASH_ROWS)
    n = splits_of_keys(n_blocks, 2 * call.n_multiprocessors, -(-key.size(2) // block))
    if n == 1:
        return Scratch([])
    rows = n * batch * n_heads * n_queries * _FLOAT
    return Scratch([rows, rows * _flash_head(head)])


def splits_of_keys(n_blocks: int, n_multiprocessors: int, n_key_blocks: int) -> int:
    """In how many parts flash attention takes the keys: the fewest that fill the device almost as well as any."""
    if n_blocks >= 0.8 * n_multiprocessors:
        return 1
    efficiency = {}
    for n in range(1, min(_MAX_SPLITS, n_multiprocessors, n_key_blocks) + 1):
        if n == 1 or -(-n_key_blocks // n) != -(-n_key_blocks // (n - 1)):
            waves = n_blocks * n / n_multiprocessors
            efficiency[n] = waves / math.ceil(waves)
    return next((n for n, found in efficiency.items() if found >= 0.85 * max(efficiency.values())), 1)


def _flash_backward(call: Call) -> Scratch:
    """The row sums of the softmax's gradient, and the queries' gradients in float32."""
    query, key = call.get("query"), call.get("key")
    batch, n_heads, n_queries, head = query.shape
    rows = batch * n_heads * _round_up(n_queries, 128) * _FLOAT
    expanded: Sizes = []
    if key.size(1) != n_heads:
        expanded = [batch * n_heads * key.size(2) * head * query.element_size()] * 2
    made = call.get("grad_out", call.get("grad_output"))
    copied = [nbytes(part) for part in (made, call.get("out")) if not part.transpose(1, 2).is_contiguous()]
    return Scratch([rows, rows * _flash_head(head), *expanded], before=copied)


def _efficient_forward(call: Call) -> Scratch:
    """Wide heads in half precision are added up in float32 in memory."""
    query, value = call.get("query"), call.get("value")
    width = value.size(-1)
    if query.element_size() != 2 or width <= 128:
        return Scratch([])
    return Scratch([[query.size(0) * query.size(1) * query.size(2) * width * _FLOAT]])


def _efficient_backward(call: Call) -> Scratch:
    """The product of outputs and their gradients summed by rows, and the blocks' gradients in float32."""
    query, key, value = (call.get(name) for name in ("query", "key", "value"))
    batch, n_heads, n_queries, head = query.shape
    rows = batch * n_heads * n_queries * _FLOAT
    workspace = batch * n_heads * _efficient_workspace(n_queries, key.size(2), head, value.size(-1), query)
    grad = call.get("grad_out_", query)
    copied = [] if grad.transpose(1, 2).is_contiguous() else [nbytes(grad)]
    if query.element_size() == 2:
        return Scratch([rows, workspace], before=copied)
    product = batch * n_heads * n_queries * value.size(-1) * _FLOAT
    return Scratch([[product, rows], rows, workspace], before=copied)


def _efficient_workspace(n_queries: int, n_keys: int, head: int, head_of_values: int, query: Any) -> int:
    """Bytes of one head of one sequence."""
    widest, is_half = max(head, head_of_values), query.element_size() == 2
    if widest <= 64:
        rows, columns = 64, 64
    elif is_half and widest <= 128:
        rows, columns = 128, 128
    else:
        rows, columns = 128, 64
    locks = 4 * _FLOAT
    of_queries = -(-n_queries // rows) * -(-head // columns) * (rows * columns * _FLOAT + locks)
    if not is_half or widest <= 128:
        return of_queries
    keys = _round_up(n_keys, columns)
    return of_queries + keys * (_round_up(head, rows) + _round_up(head_of_values, rows)) * _FLOAT


def _softmax_backward(call: Call) -> Scratch:
    """The product of the output and its gradient."""
    return Scratch([nbytes(call.args[0])])


def _safe_softmax(call: Call) -> Scratch:
    """Which elements are hidden, and of which rows all are."""
    scores = call.args[0]
    n = scores.numel()
    return Scratch([n, n // max(scores.size(-1), 1), scores.element_size()])


KERNELS: dict[str, Kernel] = {
    "_scaled_dot_product_flash_attention": _flash_forward,
    "_scaled_dot_product_flash_attention_backward": _flash_backward,
    "_scaled_dot_product_efficient_attention": _efficient_forward,
    "_scaled_dot_product_efficient_attention_backward": _efficient_backward,
    "_safe_softmax": _safe_softmax,
    "_softmax_backward_data": _softmax_backward,
}
