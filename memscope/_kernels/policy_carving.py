"""How the models of block allocators cut free blocks, join them and give whole segments back.

Other than the caching allocator's, their blocks may change lanes: free memory of one segment then lies in several
free sets, and only neighbours of the same lane are joined.
"""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import insert_free, is_unsplit, put_before, release_segment
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first_of_size, remove


@borrowing
def aligned(n_bytes, alignment_bytes):
    """The next multiple of the alignment, from a size on."""
    return (n_bytes + alignment_bytes - 1) // alignment_bytes * alignment_bytes


@borrowing
def detach(arrays, block):
    """Take a free block out of its lane's free set. O(log n)."""
    remove(arrays, arrays.blocks[block, at.B_LANE], at.L_FREE_ROOT, block)


@borrowing
def take_best_fit(arrays, lane, n_bytes):
    """The lane's smallest free block of at least that size, out of its set; −1 for none. O(log n)."""
    block = first_of_size(arrays, lane, n_bytes)
    if block != at.NONE:
        remove(arrays, lane, at.L_FREE_ROOT, block)
    return block


@borrowing
def cut_front(arrays, block, n_bytes):
    """Cut the front off a block that is in no set, and that is larger; the rest stays in no set. O(1)."""
    blocks = arrays.blocks
    address = blocks[block, at.B_ADDRESS]
    front = at.new_block(arrays, blocks[block, at.B_SEGMENT], address, n_bytes, at.ALLOCATED)
    blocks[front, at.B_LANE] = blocks[block, at.B_LANE]
    blocks[front, at.B_TIE] = blocks[block, at.B_TIE]
    put_before(arrays, front, block)
    blocks[block, at.B_ADDRESS] = address + n_bytes
    blocks[block, at.B_SIZE] -= n_bytes
    return front


@borrowing
def take_front(arrays, block, n_bytes):
    """The front of a block that is in no set; what is left returns to its lane's free set. O(log n)."""
    if arrays.blocks[block, at.B_SIZE] == n_bytes:
        return block
    front = cut_front(arrays, block, n_bytes)
    insert_free(arrays, block)
    return front


@borrowing
def absorb_next(arrays, block):
    """Join a block with the one after it; neither is in a set. O(1)."""
    blocks = arrays.blocks
    absorbed = blocks[block, at.B_NEXT]
    beyond = blocks[absorbed, at.B_NEXT]
    blocks[block, at.B_NEXT] = beyond
    if beyond != at.NONE:
        blocks[beyond, at.B_PREV] = block
    blocks[block, at.B_SIZE] += blocks[absorbed, at.B_SIZE]
    at.drop_block(arrays, absorbed)


@borrowing
def is_free_in(blocks, block, lane):
    """Whether there is such a block, and it is free in that lane."""
    return block != at.NONE and blocks[block, at.B_STATE] == at.FREE and blocks[block, at.B_LANE] == lane


@borrowing
def join_neighbours(arrays, block, lane):
    """Free a block that is in no set into a lane and join it with its free neighbours there. O(log n).

    Returns the block that it is part of now, which is in no set yet.
    """
    blocks = arrays.blocks
    blocks[block, at.B_STATE] = at.FREE
    blocks[block, at.B_LANE] = lane
    later = blocks[block, at.B_NEXT]
    if is_free_in(blocks, later, lane):
        detach(arrays, later)
        absorb_next(arrays, block)
    earlier = blocks[block, at.B_PREV]
    if is_free_in(blocks, earlier, lane):
        detach(arrays, earlier)
        absorb_next(arrays, earlier)
        block = earlier
    return block


@borrowing
def put_back(arrays, block, lane):
    """Free a block into a lane's free set, joined with its neighbours there. Returns what it is part of. O(log n)."""
    block = join_neighbours(arrays, block, lane)
    insert_free(arrays, block)
    return block


@borrowing
def is_unused_segment(arrays, segment):
    """Whether a row of segments is a segment that one free block is the whole of."""
    if arrays.segments[segment, at.S_IS_LIVE] != 1:
        return False
    head = arrays.segments[segment, at.S_HEAD]
    return arrays.blocks[head, at.B_STATE] == at.FREE and is_unsplit(arrays.blocks, head)


@borrowing
def unused_segment_bytes(arrays):
    """What :func:`release_unused_segments` would give back. O(segments)."""
    n_bytes = 0
    for segment in range(arrays.counters[at.C_SEGMENT_TOP]):
        if is_unused_segment(arrays, segment):
            n_bytes += arrays.segments[segment, at.S_SIZE]
    return n_bytes


@borrowing
def release_unused_segments(arrays):
    """Give every segment that is not used at all back to the driver. O(segments · log n)."""
    for segment in range(arrays.counters[at.C_SEGMENT_TOP]):
        if is_unused_segment(arrays, segment):
            release_segment(arrays, arrays.segments[segment, at.S_HEAD])
