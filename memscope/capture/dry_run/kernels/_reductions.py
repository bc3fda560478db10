"""The memory of a reduction whose outputs several blocks share: partial results, and a semaphore for each.

How many blocks share an output is decided on the host from shapes, strides and the device's properties alone.

Source: ``aten/src/ATen/native/cuda/Reduce.cuh`` (``setReduceConfig``, ``gpu_reduce_kernel``) and
``aten/src/ATen/TensorIterator.cpp`` (``reorder_dimensions``, ``coalesce_dimensions``, ``split``), read at 2.11.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

_WARP = 32
_THREADS_OF_AN_SM = 2048
_MAX_THREADS = 512
_MIN_VALUES_OF_A_THREAD = 16
_MAX_VALUES_OF_A_THREAD = 256
_MAX_INDEX = (1 << 31) - 1
_LEAST_VECTORIZED = 128


@dataclass(frozen=True, slots=True)
class Reduction:
    """What a reducing kernel is compiled for.

    Attributes
    ----------
    itemsize
        Bytes of an element of the input.
    partial_bytes
        Bytes of what a thread accumulates.
    out_itemsize
        Bytes of an element of the result.
    input_vector
        Elements that a thread loads at once along a contiguous reduced dimension.
    accumulates_apart
        Whether the result's type is too narrow to accumulate in where a reduction is cut in parts.
    """

    itemsize: int
    partial_bytes: int
    out_itemsize: int
    input_vector: int = 4
    accumulates_apart: bool = False


@dataclass(frozen=True, slots=True)
class _Loop:
    """The dimensions of a reduction, innermost first, those that it reduces before the rest; strides in bytes."""

    shape: tuple[int, ...]
    out_strides: tuple[int, ...]
    in_strides: tuple[int, ...]
    offset: int = 0

    @property
    def n_reduced(self) -> int:
        return sum(stride == 0 for stride in self.out_strides)

    @property
    def n_outputs(self) -> int:
        return math.prod(n for n, stride in zip(self.shape, self.out_strides, strict=True) if stride)

    @property
    def fits_32_bits(self) -> bool:
        ends = (
            sum((n - 1) * stride for n, stride in zip(self.shape, strides, strict=True))
            for strides in (self.out_strides, self.in_strides)
        )
        return math.prod(self.shape) <= _MAX_INDEX and all(end < _MAX_INDEX for end in ends)


def reduction_bytes(
    kernel: Reduction,
    shape: Sequence[int],
    strides: Sequence[int],
    reduced: Sequence[int],
    n_multiprocessors: int,
    *,
    offset: int = 0,
) -> list[int | list[int]]:
    """What a reduction of a tensor asks the allocator for.

    Parameters
    ----------
    kernel
        What reduces.
    shape, strides, offset
        The input's, in elements.
    reduced
        The dimensions that are reduced.
    n_multiprocessors
        Of the device.

    Returns
    -------
    list
        Sizes of what is held until the end, and a list for each part that is done after the other.
    """
    if not math.prod(shape):
        return []
    loop = _ordered(kernel, shape, strides, reduced, offset * kernel.itemsize)
    if loop.fits_32_bits:
        return list(_of_loop(kernel, loop, n_multiprocessors))
    held: list[int | list[int]] = [loop.n_outputs * kernel.partial_bytes] if kernel.accumulates_apart else []
    return [*held, *(_of_loop(kernel, part, n_multiprocessors) for part in _parts(loop))]


def _ordered(
    kernel: Reduction, shape: Sequence[int], strides: Sequence[int], reduced: Sequence[int], offset: int
) -> _Loop:
    """The loop over a tensor as the iterator orders it."""
    out_strides, stride = [0] * len(shape), kernel.out_itemsize
    for dim in range(len(shape) - 1, -1, -1):
        if dim not in reduced:
            out_strides[dim] = stride
            stride *= shape[dim]
    in_strides = [stride * kernel.itemsize for stride in strides]
    order = _order(shape, out_strides, in_strides)
    by_dim = [[column[dim] for dim in order] for column in (shape, out_strides, in_strides)]
    return _coalesced(by_dim[0], by_dim[1], by_dim[2], offset)


def _order(shape: Sequence[int], out_strides: Sequence[int], in_strides: Sequence[int]) -> list[int]:
    """Reduced dimensions first, then by stride: an insertion sort, because ties stay as they are."""
    order = list(range(len(shape)))[::-1]
    for i in range(1, len(shape)):
        moving = i
        for before in range(i - 1, -1, -1):
            decided = _compare(order[before], order[moving], shape, out_strides, in_strides)
            if decided > 0:
                order[before], order[moving] = order[moving], order[before]
                moving = before
            elif decided < 0:
                break
    return order


def _compare(a: int, b: int, shape: Sequence[int], out_strides: Sequence[int], in_strides: Sequence[int]) -> int:
    if (out_strides[a] == 0) != (out_strides[b] == 0):
        return 1 if out_strides[b] == 0 else -1
    for strides in (out_strides, in_strides):
        if strides[a] == 0 or strides[b] == 0:
            continue
        if strides[a] != strides[b]:
            return -1 if strides[a] < strides[b] else 1
        if shape[a] > shape[b]:
            return 1
    return 0


def _coalesced(shape: list[int], out_strides: list[int], in_strides: list[int], offset: int) -> _Loop:
    """Neighbouring dimensions that are one in memory made one."""
    last = 0
    for dim in range(1, len(shape)):
        is_one = shape[last] == 1 or shape[dim] == 1
        if is_one or all(shape[last] * strides[last] == strides[dim] for strides in (out_strides, in_strides)):
            if shape[last] == 1:
                out_strides[last], in_strides[last] = out_strides[dim], in_strides[dim]
            shape[last] *= shape[dim]
        else:
            last += 1
            shape[last], out_strides[last], in_strides[last] = shape[dim], out_strides[dim], in_strides[dim]
    n = min(last + 1, len(shape))
    return _Loop(tuple(shape[:n]), tuple(out_strides[:n]), tuple(in_strides[:n]), offset)


def _parts(loop: _Loop) -> Iterator[_Loop]:
    """A loop in parts that can be indexed by 32 bits: halves along the dimension of the widest extent."""
    if loop.fits_32_bits:
        yield loop
        return
    widest, dim = -1, -1
    for at in range(len(loop.shape) - 1, -1, -1):
        extent = (loop.shape[at] - 1) * max(loop.out_strides[at], loop.in_strides[at])
        if extent > widest:
            widest, dim = extent, at
    half = loop.shape[dim] // 2
    yield from _parts(_narrowed(loop, dim, 0, half))
    yield from _parts(_narrowed(loop, dim, half, loop.shape[dim] - half))


def _narrowed(loop: _Loop, dim: int, start: int, n: int) -> _Loop:
    shape = (*loop.shape[:dim], n, *loop.shape[dim + 1 :])
    return replace(loop, shape=shape, offset=loop.offset + start * loop.in_strides[dim])


def _of_loop(kernel: Reduction, loop: _Loop, n_multiprocessors: int) -> list[int]:
    """The partial results' bytes and the semaphores'; empty where one block makes each output."""
    n_outputs = loop.n_outputs
    n_inputs = math.prod(loop.shape) // n_outputs
    n_dims, n_reduced = len(loop.shape), loop.n_reduced
    along_input = n_dims == n_reduced or loop.in_strides[0] < loop.in_strides[n_reduced]
    across, down = (n_inputs, n_outputs) if along_input else (n_outputs, n_inputs)
    fastest = loop.in_strides[0 if along_input else n_reduced] if n_dims else kernel.itemsize
    vector = 1
    if fastest == kernel.itemsize:
        if along_input and across >= _LEAST_VECTORIZED and n_reduced == 1:
            across //= kernel.input_vector
        elif not along_input:
            vector = _output_vector(kernel, loop)
            across //= vector
    width, height = _block(across, down, _MAX_THREADS // vector)
    step_input, step_output = (width, 1) if along_input else (1, width)
    splits_warps = _ceil(n_inputs, step_input) >= min(height * 16, _MAX_VALUES_OF_A_THREAD)
    if splits_warps:
        step_input *= height
    else:
        step_output *= height
    n_values, grid = _ceil(n_inputs, step_input), _ceil(n_outputs // vector, step_output)
    n_most = n_multiprocessors * (_THREADS_OF_AN_SM // (width * height))
    if not splits_warps or n_values < _MAX_VALUES_OF_A_THREAD or grid > n_most:
        return []
    n_blocks = max(
        min(_ceil(n_most, grid), _ceil(n_values, _MIN_VALUES_OF_A_THREAD)), _ceil(n_values, _MAX_VALUES_OF_A_THREAD)
    )
    if n_blocks <= 1:
        return []
    partial = kernel.partial_bytes * n_outputs * n_blocks
    return [partial if along_input else partial * width * vector, 4 * grid]


def _output_vector(kernel: Reduction, loop: _Loop) -> int:
    """How many neighbouring outputs a thread makes: what divides the address, the extent and all other strides."""
    at = loop.n_reduced
    divided = [loop.offset // kernel.itemsize, loop.shape[at]]
    divided += [stride // kernel.itemsize for dim, stride in enumerate(loop.in_strides) if dim != at]
    return math.gcd(4, *divided)


def _block(across: int, down: int, n_most: int) -> tuple[int, int]:
    """Width and height of a block of threads."""
    width_most, height_most = (_power_below(n) if n < n_most else n_most for n in (across, down))
    width = min(width_most, _WARP)
    height = min(height_most, n_most // width)
    return min(width_most, n_most // height), height


def _power_below(n: int) -> int:
    return 1 << max(n.bit_length() - 1, 0)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
