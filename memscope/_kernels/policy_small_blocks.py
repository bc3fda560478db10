"""Requests that share segments: best fit by (size, address), split to the byte, merged with both neighbours."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import insert_free, merge_neighbours, put_before
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first_of_size, remove


@borrowing
def rounded_up(n_bytes, multiple):
    """The least multiple that holds that many bytes; a request of none takes one."""
    return (max(n_bytes, 1) + multiple - 1) // multiple * multiple


@borrowing
def take_best_fit(arrays, lane, size):
    """The smallest free block of at least that size, out of its set; −1 for none. O(log n)."""
    block = first_of_size(arrays, lane, size)
    if block != at.NONE:
        remove(arrays, lane, at.L_FREE_ROOT, block)
    return block


@borrowing
def split_front(arrays, block, size):
    """The front of a block that is in no set; what is left over becomes a free block. O(log n)."""
    blocks = arrays.blocks
    rest = blocks[block, at.B_SIZE] - size
    if rest == 0:
        return block
    address = blocks[block, at.B_ADDRESS]
    given = at.new_block(arrays, blocks[block, at.B_SEGMENT], address, size, at.ALLOCATED)
    put_before(arrays, given, block)
    blocks[block, at.B_ADDRESS] = address + size
    blocks[block, at.B_SIZE] = rest
    insert_free(arrays, block)
    return given


@borrowing
def put_back(arrays, block):
    """Merge a block that is free, and in no set, with its neighbours, and keep it for later requests. O(log n)."""
    merge_neighbours(arrays, block)
    insert_free(arrays, block)
