"""What happens to single blocks: split, merge, free, and the driver's memory below them."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_rules import SMALL_BYTES, SMALL_SEGMENT_BYTES, should_split
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import insert, remove


@borrowing
def insert_free(arrays, block):
    """Put a block into its lane's free set and start its age for garbage collection."""
    blocks = arrays.blocks
    blocks[block, at.B_STATE] = at.FREE
    blocks[block, at.B_GC_BASE] = arrays.counters[at.C_GC_CALLS]
    insert(arrays, blocks[block, at.B_LANE], at.L_FREE_ROOT, block)


@borrowing
def insert_unmapped(arrays, block):
    """Put a range without memory into its lane's set of them."""
    arrays.blocks[block, at.B_STATE] = at.UNMAPPED
    insert(arrays, arrays.blocks[block, at.B_LANE], at.L_UNMAPPED_ROOT, block)


@borrowing
def put_before(arrays, block, later):
    """Link a new block in just before another one of its segment."""
    blocks = arrays.blocks
    earlier = blocks[later, at.B_PREV]
    blocks[block, at.B_PREV] = earlier
    blocks[block, at.B_NEXT] = later
    blocks[later, at.B_PREV] = block
    if earlier == at.NONE:
        arrays.segments[blocks[block, at.B_SEGMENT], at.S_HEAD] = block
    else:
        blocks[earlier, at.B_NEXT] = block


@borrowing
def put_after(arrays, block, earlier):
    """Link a new block in just after another one of its segment."""
    blocks = arrays.blocks
    later = blocks[earlier, at.B_NEXT]
    blocks[block, at.B_PREV] = earlier
    blocks[block, at.B_NEXT] = later
    blocks[earlier, at.B_NEXT] = block
    if later != at.NONE:
        blocks[later, at.B_PREV] = block


@borrowing
def _absorb(arrays, block, other, is_left):
    """Merge a neighbour into a block that is in no set; only like merges with like. O(log n)."""
    blocks = arrays.blocks
    if other == at.NONE:
        return
    state = blocks[other, at.B_STATE]
    if state != blocks[block, at.B_STATE] or (state != at.FREE and state != at.UNMAPPED):
        return
    column = at.L_FREE_ROOT if state == at.FREE else at.L_UNMAPPED_ROOT
    remove(arrays, blocks[other, at.B_LANE], column, other)
    if is_left:
        blocks[block, at.B_ADDRESS] = blocks[other, at.B_ADDRESS]
        beyond = blocks[other, at.B_PREV]
        blocks[block, at.B_PREV] = beyond
        if beyond == at.NONE:
            arrays.segments[blocks[block, at.B_SEGMENT], at.S_HEAD] = block
        else:
            blocks[beyond, at.B_NEXT] = block
    else:
        beyond = blocks[other, at.B_NEXT]
        blocks[block, at.B_NEXT] = beyond
        if beyond != at.NONE:
            blocks[beyond, at.B_PREV] = block
    blocks[block, at.B_SIZE] += blocks[other, at.B_SIZE]
    at.drop_block(arrays, other)


@borrowing
def merge_neighbours(arrays, block):
    """Merge with the block before, then with the one after; the block itself survives."""
    _absorb(arrays, block, arrays.blocks[block, at.B_PREV], True)
    _absorb(arrays, block, arrays.blocks[block, at.B_NEXT], False)


@borrowing
def is_unsplit(blocks, block):
    """Whether a block is the whole of its segment."""
    return blocks[block, at.B_PREV] == at.NONE and blocks[block, at.B_NEXT] == at.NONE


@borrowing
def is_expandable_block(arrays, block):
    """Whether a block lies in an expandable segment."""
    return arrays.segments[arrays.blocks[block, at.B_SEGMENT], at.S_IS_EXPANDABLE] == 1


@borrowing
def hand_out(arrays, block, requested_bytes, rounded_bytes):
    """Split a block that is in no set if the rule says so, and give its front out. Returns what was given. O(log n)."""
    blocks, counters, config = arrays.blocks, arrays.counters, arrays.config
    lane = blocks[block, at.B_LANE]
    size = blocks[block, at.B_SIZE]
    splits = arrays.lanes[lane, at.L_CAN_SPLIT] == 1 and should_split(
        size, rounded_bytes, config[at.CFG_MAX_SPLIT], config[at.CFG_IS_EXPANDABLE] == 1
    )
    given = block
    if splits:
        address = blocks[block, at.B_ADDRESS]
        given = at.new_block(arrays, blocks[block, at.B_SEGMENT], address, rounded_bytes, at.ALLOCATED)
        put_before(arrays, given, block)
        blocks[block, at.B_ADDRESS] = address + rounded_bytes
        blocks[block, at.B_SIZE] = size - rounded_bytes
        insert_free(arrays, block)
    blocks[given, at.B_STATE] = at.ALLOCATED
    blocks[given, at.B_REQUESTED] = requested_bytes
    given_bytes = blocks[given, at.B_SIZE]
    at.grow_counter(counters, at.C_ALLOCATED, at.C_PEAK_ALLOCATED, given_bytes)
    at.grow_counter(counters, at.C_ACTIVE, at.C_PEAK_ACTIVE, given_bytes)
    at.grow_counter(counters, at.C_REQUESTED, at.C_PEAK_REQUESTED, requested_bytes)
    at.log_event(arrays, at.ACTION_ALLOC, blocks[given, at.B_ADDRESS], requested_bytes, lane)
    return given


@borrowing
def append_pending(arrays, block):
    """Put a block at the end of those that wait for other streams. O(1)."""
    blocks, counters = arrays.blocks, arrays.counters
    tail = counters[at.C_PENDING_TAIL]
    blocks[block, at.B_PENDING_PREV] = tail
    blocks[block, at.B_PENDING_NEXT] = at.NONE
    if tail == at.NONE:
        counters[at.C_PENDING_HEAD] = block
    else:
        blocks[tail, at.B_PENDING_NEXT] = block
    counters[at.C_PENDING_TAIL] = block


@borrowing
def remove_pending(arrays, block):
    """Take a block out of those that wait. O(1)."""
    blocks, counters = arrays.blocks, arrays.counters
    earlier, later = blocks[block, at.B_PENDING_PREV], blocks[block, at.B_PENDING_NEXT]
    if earlier == at.NONE:
        counters[at.C_PENDING_HEAD] = later
    else:
        blocks[earlier, at.B_PENDING_NEXT] = later
    if later == at.NONE:
        counters[at.C_PENDING_TAIL] = earlier
    else:
        blocks[later, at.B_PENDING_PREV] = earlier


@borrowing
def request_free(arrays, block, waits):
    """Take a block back from its user; it stays pending if it waits for other streams. O(log n)."""
    blocks, counters = arrays.blocks, arrays.counters
    counters[at.C_ALLOCATED] -= blocks[block, at.B_SIZE]
    at.log_event(
        arrays,
        at.ACTION_FREE_REQUESTED,
        blocks[block, at.B_ADDRESS],
        blocks[block, at.B_REQUESTED],
        blocks[block, at.B_LANE],
    )
    blocks[block, at.B_STATE] = at.PENDING
    if not waits:
        _return_block(arrays, block)
        return
    append_pending(arrays, block)


@borrowing
def complete_free(arrays, block):
    """Return a pending block to its free set: the streams it waited for are done. O(log n)."""
    remove_pending(arrays, block)
    _return_block(arrays, block)


@borrowing
def _return_block(arrays, block):
    blocks, counters = arrays.blocks, arrays.counters
    requested = blocks[block, at.B_REQUESTED]
    at.log_event(arrays, at.ACTION_FREE_COMPLETED, blocks[block, at.B_ADDRESS], requested, blocks[block, at.B_LANE])
    counters[at.C_ACTIVE] -= blocks[block, at.B_SIZE]
    counters[at.C_REQUESTED] -= requested
    blocks[block, at.B_STATE] = at.FREE
    merge_neighbours(arrays, block)
    insert_free(arrays, block)


@borrowing
def complete_all_frees(arrays):
    """Wait for every stream: all pending blocks return, oldest first."""
    arrays.counters[at.C_N_SYNCS] += 1
    while arrays.counters[at.C_PENDING_HEAD] != at.NONE:
        complete_free(arrays, arrays.counters[at.C_PENDING_HEAD])


@borrowing
def driver_has(arrays, n_bytes):
    """Whether the driver can still give that much; it deals in granules of 2 MiB."""
    capacity = arrays.config[at.CFG_CAPACITY]
    return capacity < 0 or arrays.counters[at.C_DEVICE_USED] + _granules(n_bytes) <= capacity


@borrowing
def _granules(n_bytes):
    return (n_bytes + at.DRIVER_GRANULE_BYTES - 1) // at.DRIVER_GRANULE_BYTES * at.DRIVER_GRANULE_BYTES


@borrowing
def take_from_driver(arrays, n_bytes):
    """Count memory that came from the driver in one call."""
    counters = arrays.counters
    counters[at.C_DEVICE_USED] += _granules(n_bytes)
    counters[at.C_N_DEVICE_ALLOCS] += 1
    at.grow_counter(counters, at.C_RESERVED, at.C_PEAK_RESERVED, n_bytes)


@borrowing
def give_to_driver(arrays, n_bytes):
    """Count memory that went back to the driver in one call."""
    counters = arrays.counters
    counters[at.C_DEVICE_USED] -= _granules(n_bytes)
    counters[at.C_N_DEVICE_FREES] += 1
    counters[at.C_RESERVED] -= n_bytes


@borrowing
def add_segment(arrays, lane, address, n_bytes):
    """A ``cudaMalloc`` that succeeded at that address; returns its block, which is in no set yet."""
    take_from_driver(arrays, n_bytes)
    block = at.new_segment(arrays, lane, address, n_bytes, 0, at.FREE)
    at.log_event(arrays, at.ACTION_SEGMENT_ALLOC, address, n_bytes, lane)
    return block


@borrowing
def next_address(arrays, n_bytes):
    """Where the simulated driver places a segment: upwards, never at an address used before."""
    address = arrays.counters[at.C_NEXT_ADDRESS]
    arrays.counters[at.C_NEXT_ADDRESS] = address + _granules(n_bytes) + arrays.config[at.CFG_GAP]
    return address


@borrowing
def release_segment(arrays, block):
    """``cudaFree`` of the segment that a free block is the whole of. O(log n)."""
    blocks = arrays.blocks
    lane, size = blocks[block, at.B_LANE], blocks[block, at.B_SIZE]
    remove(arrays, lane, at.L_FREE_ROOT, block)
    at.log_event(arrays, at.ACTION_SEGMENT_FREE, blocks[block, at.B_ADDRESS], size, lane)
    give_to_driver(arrays, size)
    at.drop_segment(arrays, blocks[block, at.B_SEGMENT])
    at.drop_block(arrays, block)


@borrowing
def handle_bytes(arrays, lane):
    """Bytes of one physical handle in the expandable segments of a lane."""
    return arrays.config[at.CFG_LARGE_SEGMENT] if lane & 1 else SMALL_SEGMENT_BYTES


@borrowing
def lane_of(pair, rounded_bytes):
    """The lane of a (pool, stream) pair that serves a rounded request."""
    return 2 * pair + (1 if rounded_bytes > SMALL_BYTES else 0)
