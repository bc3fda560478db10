"""Ordered sets of blocks: one treap for each lane's free blocks and one for its unmapped ranges.

A treap, because a set must give its smallest member of at least some size, that member's neighbours, and take inserts
and removals anywhere, each in O(log n), without any memory of its own: its links are columns of the blocks. Priorities
are fixed by the row's number, so the same history always gives the same tree.

Free blocks are ordered by (size, tie, address), unmapped ranges by address.
"""

from __future__ import annotations

from memscope._kernels.caching_layout import (
    B_ADDRESS,
    B_LEFT,
    B_PRIORITY,
    B_RIGHT,
    B_SIZE,
    B_TIE,
    L_FREE_ROOT,
    NONE,
)
from memscope._kernels.compiled import borrowing


@borrowing
def is_before(blocks, a, b, root_column):
    """Whether block ``a`` stands before block ``b`` in the set of that kind."""
    if root_column == L_FREE_ROOT:
        if blocks[a, B_SIZE] != blocks[b, B_SIZE]:
            return blocks[a, B_SIZE] < blocks[b, B_SIZE]
        if blocks[a, B_TIE] != blocks[b, B_TIE]:
            return blocks[a, B_TIE] < blocks[b, B_TIE]
    return blocks[a, B_ADDRESS] < blocks[b, B_ADDRESS]


@borrowing
def _link(blocks, lanes, lane, root_column, parent, side, child):
    if parent == NONE:
        lanes[lane, root_column] = child
    else:
        blocks[parent, side] = child


@borrowing
def insert(arrays, lane, root_column, block):
    """Put a block into its set: O(log n)."""
    blocks, lanes = arrays.blocks, arrays.lanes
    parent, side = NONE, B_LEFT
    node = lanes[lane, root_column]
    while node != NONE and blocks[node, B_PRIORITY] >= blocks[block, B_PRIORITY]:
        parent = node
        side = B_LEFT if is_before(blocks, block, node, root_column) else B_RIGHT
        node = blocks[node, side]
    low, low_side = block, B_LEFT
    high, high_side = block, B_RIGHT
    while node != NONE:
        if is_before(blocks, block, node, root_column):
            blocks[high, high_side] = node
            high, high_side = node, B_LEFT
            node = blocks[node, B_LEFT]
        else:
            blocks[low, low_side] = node
            low, low_side = node, B_RIGHT
            node = blocks[node, B_RIGHT]
    blocks[low, low_side] = NONE
    blocks[high, high_side] = NONE
    _link(blocks, lanes, lane, root_column, parent, side, block)


@borrowing
def remove(arrays, lane, root_column, block):
    """Take a block out of its set: O(log n). Its key must be what it was when it was put in."""
    blocks, lanes = arrays.blocks, arrays.lanes
    parent, side = NONE, B_LEFT
    node = lanes[lane, root_column]
    while node != block and node != NONE:
        parent = node
        side = B_LEFT if is_before(blocks, block, node, root_column) else B_RIGHT
        node = blocks[node, side]
    if node == NONE:
        return False
    low, high = blocks[block, B_LEFT], blocks[block, B_RIGHT]
    while low != NONE and high != NONE:
        takes_low = blocks[low, B_PRIORITY] >= blocks[high, B_PRIORITY]
        taken = low if takes_low else high
        _link(blocks, lanes, lane, root_column, parent, side, taken)
        parent = taken
        if takes_low:
            side, low = B_RIGHT, blocks[taken, B_RIGHT]
        else:
            side, high = B_LEFT, blocks[taken, B_LEFT]
    _link(blocks, lanes, lane, root_column, parent, side, high if low == NONE else low)
    return True


@borrowing
def first_of_size(arrays, lane, size):
    """First free block of at least that size, −1 for none: O(log n)."""
    blocks = arrays.blocks
    found = NONE
    node = arrays.lanes[lane, L_FREE_ROOT]
    while node != NONE:
        if blocks[node, B_SIZE] >= size:
            found = node
            node = blocks[node, B_LEFT]
        else:
            node = blocks[node, B_RIGHT]
    return found


@borrowing
def last_below_size(arrays, lane, size):
    """Last free block smaller than that size, −1 for none: O(log n)."""
    blocks = arrays.blocks
    found = NONE
    node = arrays.lanes[lane, L_FREE_ROOT]
    while node != NONE:
        if blocks[node, B_SIZE] < size:
            found = node
            node = blocks[node, B_RIGHT]
        else:
            node = blocks[node, B_LEFT]
    return found


@borrowing
def first(arrays, lane, root_column):
    """First member of the set, −1 if it is empty: O(log n)."""
    found = NONE
    node = arrays.lanes[lane, root_column]
    while node != NONE:
        found = node
        node = arrays.blocks[node, B_LEFT]
    return found


@borrowing
def following(arrays, lane, root_column, block):
    """The member after a block (which need not be a member itself), −1 for none: O(log n)."""
    blocks = arrays.blocks
    found = NONE
    node = arrays.lanes[lane, root_column]
    while node != NONE:
        if is_before(blocks, block, node, root_column):
            found = node
            node = blocks[node, B_LEFT]
        else:
            node = blocks[node, B_RIGHT]
    return found


@borrowing
def preceding(arrays, lane, root_column, block):
    """The member before a block, −1 for none: O(log n)."""
    blocks = arrays.blocks
    found = NONE
    node = arrays.lanes[lane, root_column]
    while node != NONE:
        if is_before(blocks, node, block, root_column):
            found = node
            node = blocks[node, B_RIGHT]
        else:
            node = blocks[node, B_LEFT]
    return found
