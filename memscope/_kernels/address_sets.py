"""Free blocks by address, for allocators that take the first one that fits: a treap that knows the largest size below.

A second tree over blocks that are in a free set as well. A free block waits for no stream and its age is of no use to
these allocators, so that its links and the largest size below it lie in the columns of those: no column is added to
what the caching allocator moves. The path of a change is kept in scratch memory, to correct the sizes upwards.

Priorities are those of the free sets: fixed by the row's number. Every operation is O(log n).
"""

from __future__ import annotations

from memscope._kernels.caching_layout import (
    B_ADDRESS,
    B_GC_BASE,
    B_PENDING_NEXT,
    B_PENDING_PREV,
    B_PRIORITY,
    B_SIZE,
    L_ADDRESS_ROOT,
    NONE,
)
from memscope._kernels.compiled import borrowing

LEFT = B_PENDING_PREV
RIGHT = B_PENDING_NEXT
LARGEST = B_GC_BASE

PATH_ROWS = 512
"""Length of the scratch array: a treap of a thousand million blocks is not a third as deep."""


@borrowing
def _link(arrays, lane, parent, side, child):
    if parent == NONE:
        arrays.lanes[lane, L_ADDRESS_ROOT] = child
    else:
        arrays.blocks[parent, side] = child


@borrowing
def _correct(blocks, path, n_path):
    """Set the largest sizes along a path that was changed, from its end."""
    for i in range(n_path - 1, -1, -1):
        node = path[i]
        largest = blocks[node, B_SIZE]
        if blocks[node, LEFT] != NONE:
            largest = max(largest, blocks[blocks[node, LEFT], LARGEST])
        if blocks[node, RIGHT] != NONE:
            largest = max(largest, blocks[blocks[node, RIGHT], LARGEST])
        blocks[node, LARGEST] = largest


@borrowing
def insert_by_address(arrays, path, lane, block):
    """Put a block into its lane's tree; ``path`` is scratch, int64 (PATH_ROWS,)."""
    blocks = arrays.blocks
    address = blocks[block, B_ADDRESS]
    n_path, parent, side = 0, NONE, LEFT
    node = arrays.lanes[lane, L_ADDRESS_ROOT]
    while node != NONE and blocks[node, B_PRIORITY] >= blocks[block, B_PRIORITY]:
        path[n_path] = node
        n_path += 1
        parent = node
        side = LEFT if address < blocks[node, B_ADDRESS] else RIGHT
        node = blocks[node, side]
    path[n_path] = block
    n_path += 1
    low, low_side = block, LEFT
    high, high_side = block, RIGHT
    while node != NONE:
        path[n_path] = node
        n_path += 1
        if address < blocks[node, B_ADDRESS]:
            blocks[high, high_side] = node
            high, high_side = node, LEFT
            node = blocks[node, LEFT]
        else:
            blocks[low, low_side] = node
            low, low_side = node, RIGHT
            node = blocks[node, RIGHT]
    blocks[low, low_side] = NONE
    blocks[high, high_side] = NONE
    _link(arrays, lane, parent, side, block)
    _correct(blocks, path, n_path)


@borrowing
def remove_by_address(arrays, path, lane, block):
    """Take a block out of its lane's tree; its address must be what it was when it was put in."""
    blocks = arrays.blocks
    address = blocks[block, B_ADDRESS]
    n_path, parent, side = 0, NONE, LEFT
    node = arrays.lanes[lane, L_ADDRESS_ROOT]
    while node != block:
        path[n_path] = node
        n_path += 1
        parent = node
        side = LEFT if address < blocks[node, B_ADDRESS] else RIGHT
        node = blocks[node, side]
    low, high = blocks[block, LEFT], blocks[block, RIGHT]
    while low != NONE and high != NONE:
        takes_low = blocks[low, B_PRIORITY] >= blocks[high, B_PRIORITY]
        taken = low if takes_low else high
        path[n_path] = taken
        n_path += 1
        _link(arrays, lane, parent, side, taken)
        parent = taken
        if takes_low:
            side, low = RIGHT, blocks[taken, RIGHT]
        else:
            side, high = LEFT, blocks[taken, LEFT]
    _link(arrays, lane, parent, side, high if low == NONE else low)
    _correct(blocks, path, n_path)


@borrowing
def first_fit(arrays, lane, n_bytes):
    """The free block of at least that size at the lowest address, −1 for none."""
    blocks = arrays.blocks
    node = arrays.lanes[lane, L_ADDRESS_ROOT]
    if node == NONE or blocks[node, LARGEST] < n_bytes:
        return NONE
    while True:
        left = blocks[node, LEFT]
        if left != NONE and blocks[left, LARGEST] >= n_bytes:
            node = left
        elif blocks[node, B_SIZE] >= n_bytes:
            return node
        else:
            node = blocks[node, RIGHT]


@borrowing
def last_below(arrays, lane, address):
    """The free block at the highest address below that one, −1 for none."""
    blocks = arrays.blocks
    found = NONE
    node = arrays.lanes[lane, L_ADDRESS_ROOT]
    while node != NONE:
        if blocks[node, B_ADDRESS] < address:
            found = node
            node = blocks[node, RIGHT]
        else:
            node = blocks[node, LEFT]
    return found


@borrowing
def first_from(arrays, lane, address):
    """The free block at the lowest address from that one on, −1 for none."""
    blocks = arrays.blocks
    found = NONE
    node = arrays.lanes[lane, L_ADDRESS_ROOT]
    while node != NONE:
        if blocks[node, B_ADDRESS] >= address:
            found = node
            node = blocks[node, LEFT]
        else:
            node = blocks[node, RIGHT]
    return found
