"""Sorts, selections, scans and permutations: the copies of keys and indices that CUDA's kernels make.

Source: ``aten/src/ATen/native/cuda/Sort.cpp``, ``Sort.cu``, ``TensorTopK.cu``, ``Sorting.cpp``, ``Unique.cu`` and
``Randperm.cu``, read at 2.11.
"""

from __future__ import annotations

import math
from typing import Any

from memscope.capture.dry_run.kernels._call import Call, Kernel, Scratch, Sizes
from memscope.capture.dry_run.kernels._cub import bits_of, permutation_bits, radix_bytes, scan_bytes

_INDEX = 8
_SORTED_IN_BLOCK = 4096
_ALONE = 1_000_000
"""A row of so many is sorted by itself."""
_FEW_ROWS = 128
_MULTIBLOCK_ROWS = ((20, 20_000), (40, 10_000), (80, 8_000), (199, 5_000), (799, 3_000), (4_000, 800), (None, 400))
"""Up to so many rows, several blocks work on each from this length on."""
_SELECT_BLOCK = 256
_SELECTING_BLOCKS_OF_AN_SM = 6
_SELECT_SCAN_BYTES = 1279


def sorting(n_rows: int, n_columns: int, itemsize: int, n_multiprocessors: int) -> Sizes:
    """What sorting rows takes beside the sorted values and their indices."""
    if n_columns <= _SORTED_IN_BLOCK:
        return [n_columns * _INDEX]
    n = n_rows * n_columns
    if n_rows == 1 or n_columns >= _ALONE:
        one = radix_bytes(n_columns, itemsize, _INDEX, n_multiprocessors)
        return [n_columns * _INDEX, *([one] for _ in range(n_rows))]
    if n_rows < _FEW_ROWS:
        whole = radix_bytes(n, itemsize, _INDEX, n_multiprocessors)
        rows = radix_bytes(n, _INDEX, _INDEX, n_multiprocessors, bits_of(n_rows))
        return [n * _INDEX, n * _INDEX, [n * itemsize, [whole]], [rows]]
    return [n * _INDEX, [_segmented_bytes(n, itemsize)]]


def _segmented_bytes(n: int, itemsize: int) -> int:
    """Second copies of keys and indices."""
    return sum(-(-n * size // 256) * 256 for size in (itemsize, _INDEX)) + 255


def _rows(call: Call) -> tuple[int, int]:
    """Rows and columns of a call along a dimension."""
    tensor = call.args[0]
    n_columns = tensor.shape[call.get("dim", -1)] if tensor.dim() else 1
    return tensor.numel() // max(n_columns, 1), n_columns


def _sort(call: Call) -> Scratch:
    tensor = call.args[0]
    if not tensor.dim() or not tensor.numel():
        return Scratch([])
    return Scratch(sorting(*_rows(call), tensor.element_size(), call.n_multiprocessors))


def _topk(call: Call) -> Scratch:
    """The k largest: where several blocks work on a row, their counts of digits."""
    tensor = call.args[0]
    if not tensor.dim() or not tensor.numel():
        return Scratch([])
    n_rows, n_columns = _rows(call)
    k = call.get("k")
    selected = _selecting(n_rows, n_columns, tensor.element_size(), call.n_multiprocessors)
    return Scratch([*selected, *_ordering(n_rows, k, tensor, call)])


def _selecting(n_rows: int, n_columns: int, itemsize: int, n_multiprocessors: int) -> Sizes:
    least = next(length for rows, length in _MULTIBLOCK_ROWS if rows is None or n_rows <= rows)
    if n_columns < least:
        return []
    n_threads = n_multiprocessors * _SELECTING_BLOCKS_OF_AN_SM * _SELECT_BLOCK
    n_items = max(4, min(-(-n_rows * n_columns // n_threads), 64))
    n_blocks = n_rows * -(-n_columns // (n_items * _SELECT_BLOCK))
    of_digits = [n_blocks * _SELECT_BLOCK * 2, n_rows * _SELECT_BLOCK * 4]
    held = [n_rows * itemsize, n_rows * 8, n_rows * 8, *of_digits, n_blocks * 4, n_blocks * 4]
    return [[*held, [_SELECT_SCAN_BYTES], [_SELECT_SCAN_BYTES]]]


def _ordering(n_rows: int, k: int, tensor: Any, call: Call) -> Sizes:
    """The found are put in order: in a block up to 4,096, else sorted, and gathered again."""
    if k <= _SORTED_IN_BLOCK or not call.get("sorted", True):
        return []
    n, itemsize = n_rows * k, tensor.element_size()
    order = sorting(n_rows, k, itemsize, call.n_multiprocessors)
    return [[n * _INDEX, n * itemsize, order, [n * _INDEX]]]


def _scan(call: Call) -> Scratch:
    """A scan of a whole tensor is CUB's; one of rows needs nothing."""
    tensor = call.args[0]
    if not tensor.dim() or tensor.shape[call.get("dim")] != tensor.numel() or tensor.numel() < 2:
        return Scratch([])
    return Scratch([scan_bytes(tensor.numel(), call.results[0].element_size())])


def _median(call: Call) -> Scratch:
    """The median of all numbers is found by sorting them; that of rows by selection."""
    tensor = call.args[0]
    if len(call.results) == 2 or not tensor.numel():
        return Scratch([])
    n, itemsize = tensor.numel(), tensor.element_size()
    return Scratch(
        [], before=[n * itemsize, [n * _INDEX, [*sorting(1, n, itemsize, call.n_multiprocessors)]], tensor.dim() and 1]
    )


def _unique(call: Call) -> Scratch:
    """Values are sorted, and with them their places where the inverse is asked for."""
    tensor = call.args[0]
    n, itemsize = tensor.numel(), tensor.element_size()
    with_places = bool(call.get("return_inverse", False))
    values = _INDEX if with_places else 0
    sort = radix_bytes(n, itemsize, values, call.n_multiprocessors)
    if not with_places:
        return Scratch([], before=[n * itemsize, [sort]])
    return Scratch([], before=[n * itemsize, n * _INDEX, [n * _INDEX, [sort]], [n * _INDEX, n * _INDEX]])


def _randperm(call: Call) -> Scratch:
    """Random keys are sorted together with the numbers."""
    n, n_bits = call.args[0], permutation_bits(max(call.args[0], 2))
    itemsize = 8 if n_bits > 32 else 4
    values = call.results[0].element_size()
    if n < 2:
        return Scratch([])
    sort = radix_bytes(n, itemsize, values, call.n_multiprocessors, n_bits)
    return Scratch([[8], n * values, n * itemsize, n * itemsize, [sort]])


def _multinomial(call: Call) -> Scratch:
    """Drawing is an argmax over noise; drawing again and again goes by sums of shares."""
    shares, n_draws = call.args[0], call.get("num_samples")
    n, itemsize = shares.numel(), shares.element_size()
    if not call.get("replacement", False) or n_draws == 1:
        found: Sizes = []
        if n_draws > 1:
            n_columns = shares.shape[-1]
            n_rows = n // n_columns
            found = [n_rows * n_draws * itemsize, *_selecting(n_rows, n_columns, itemsize, call.n_multiprocessors)]
        return Scratch([n * itemsize, *found])
    n_rows = math.prod(shares.shape[:-1])
    scan = [scan_bytes(n, itemsize)] if n_rows == 1 else []
    return Scratch([n * itemsize, n * itemsize, n * itemsize, scan])


KERNELS: dict[str, Kernel] = {
    **dict.fromkeys(("sort",), _sort),
    **dict.fromkeys(("cumsum", "cumprod", "logcumsumexp"), _scan),
    **dict.fromkeys(("median", "nanmedian"), _median),
    **dict.fromkeys(("_unique2", "_unique"), _unique),
    "topk": _topk,
    "randperm": _randperm,
    "multinomial": _multinomial,
}
