"""The allocator's address space at one moment: segments, and the blocks that tile them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memscope._core import caching
from memscope.errors import InvariantError
from memscope.trace.schema import NONE_ID, BlockState
from memscope.trace.tables import BlockTable, Int32Array, Int64Array, SegmentTable


@dataclass(frozen=True, slots=True)
class AllocatorState:
    """The address space of one device after one event; blocks tile their segments exactly.

    Attributes
    ----------
    event
        The event that it comes after, −1 for before the first.
    segments, blocks
        Ascending by address; ``blocks.segment_id`` is a position in ``segments``.
    allocation_ids
        int64 (blocks,): row of the allocation that holds a block, −1 for inactive ones (and where rows are not known).
    unplaced_bytes
        Bytes of active blocks that lie in no recorded segment; 0 for a complete recording.
    """

    event: int
    device: int
    segments: SegmentTable
    blocks: BlockTable
    allocation_ids: npt.NDArray[np.int64]
    unplaced_bytes: int = 0

    @property
    def reserved_bytes(self) -> int:
        """Bytes of all segments."""
        return int(self.segments.size_bytes.sum())

    @property
    def active_bytes(self) -> int:
        """Bytes of all blocks in use or pending."""
        return int(self.blocks.size_bytes[self.blocks.state != BlockState.INACTIVE].sum())

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all blocks in use."""
        return int(self.blocks.size_bytes[self.blocks.state == BlockState.ACTIVE_ALLOCATED].sum())

    def check(self) -> None:
        """Check that the blocks tile the segments and that no two free neighbours are apart.

        Raises
        ------
        InvariantError
            If they do not.
        """
        blocks, segments = self.blocks, self.segments
        if len(self.allocation_ids) != len(blocks):
            raise InvariantError("AllocatorState: one allocation id for each block is needed")
        ends = blocks.address + blocks.size_bytes
        same = blocks.segment_id[1:] == blocks.segment_id[:-1]
        if np.any(blocks.size_bytes <= 0) or np.any(ends[:-1][same] != blocks.address[1:][same]):
            raise InvariantError("AllocatorState: blocks overlap or leave a gap")
        sums = np.bincount(blocks.segment_id, blocks.size_bytes.astype(np.float64), len(segments)).astype(np.int64)
        first = np.flatnonzero(np.concatenate([[True], ~same])) if len(blocks) else np.empty(0, np.int64)
        if not np.array_equal(sums, segments.size_bytes) or not np.array_equal(blocks.address[first], segments.address):
            raise InvariantError("AllocatorState: blocks do not cover their segments")
        free = blocks.state == BlockState.INACTIVE
        if np.any(free[1:] & free[:-1] & same):
            raise InvariantError("AllocatorState: two adjacent free blocks were not merged")


def tile_segments(
    segments: SegmentTable,
    address: Int64Array,
    size_bytes: Int64Array,
    requested_bytes: Int64Array,
    state: npt.NDArray[np.int8],
    stack_id: Int32Array,
    allocation_ids: Int64Array,
) -> tuple[BlockTable, Int64Array, int]:
    """Complete active blocks, ascending by address, with the free blocks between them.

    Returns
    -------
    blocks, allocation_ids, unplaced_bytes
        The tiling; int64 (blocks,) the allocation of each, −1 where free; bytes of blocks outside all segments.
    """
    owner = np.searchsorted(segments.address, address, side="right") - 1
    segment_end = segments.address + segments.size_bytes
    placed = (
        (owner >= 0) & (address + size_bytes <= segment_end[np.maximum(owner, 0)])
        if len(segments)
        else (np.zeros(len(address), np.bool_))
    )
    unplaced_bytes = int(size_bytes[~placed].sum())
    owner, address, size_bytes = owner[placed], address[placed], size_bytes[placed]
    before = _gap_starts(owner, address, size_bytes, segments)
    last_end = segments.address.copy()
    last_end[owner] = address + size_bytes
    gap_address = np.concatenate([before, last_end])
    gap_end = np.concatenate([address, segment_end])
    gap_owner = np.concatenate([owner, np.arange(len(segments))])
    is_gap = gap_end > gap_address
    n_gaps = int(np.count_nonzero(is_gap))
    all_address = np.concatenate([address, gap_address[is_gap]])
    order = np.argsort(all_address, kind="stable")
    inactive = np.full(n_gaps, BlockState.INACTIVE, np.int8)
    none = np.full(n_gaps, NONE_ID, np.int64)
    blocks = BlockTable(
        segment_id=np.concatenate([owner, gap_owner[is_gap]])[order].astype(np.int32),
        address=all_address[order],
        size_bytes=np.concatenate([size_bytes, (gap_end - gap_address)[is_gap]])[order],
        requested_bytes=np.concatenate([requested_bytes[placed], np.zeros(n_gaps, np.int64)])[order],
        state=np.concatenate([state[placed], inactive])[order],
        stack_id=np.concatenate([stack_id[placed], none.astype(np.int32)])[order],
    )
    return blocks, np.concatenate([allocation_ids[placed], none])[order], unplaced_bytes


def _gap_starts(owner: Int64Array, address: Int64Array, size_bytes: Int64Array, segments: SegmentTable) -> Int64Array:
    """Where the space before each block begins: at the end of the block before it, or at its segment's start."""
    starts = segments.address[owner].copy()
    same = owner[1:] == owner[:-1]
    starts[1:][same] = (address + size_bytes)[:-1][same]
    return starts


def releasable_bytes(state: AllocatorState, large_handle_bytes: int = caching.LARGE_SEGMENT_BYTES) -> Int64Array:
    """What ``torch.cuda.empty_cache()`` would give back of each block: int64 (blocks,).

    An ordinary free block goes back if it is its whole segment. Of a free block of an expandable segment the physical
    handles that lie entirely inside it go back (``release_expandable_segment``). A private pool gives nothing back
    while it lives.
    """
    blocks, segments = state.blocks, state.segments
    segment = blocks.segment_id
    free = (blocks.state == BlockState.INACTIVE) & (segments.pool_id[segment] <= 0)
    whole = free & (blocks.size_bytes == segments.size_bytes[segment])
    handle = np.where(segments.is_large[segment], large_handle_bytes, caching.SMALL_SEGMENT_BYTES)
    # Handles are counted from the segment's start: a mapped run always begins at a handle's edge.
    offset = blocks.address - segments.address[segment]
    first_handle = -(-offset // handle)
    last_handle = (offset + blocks.size_bytes) // handle
    inside = np.maximum(last_handle - first_handle, 0) * handle
    expandable = segments.is_expandable[segment]
    released: Int64Array = np.where(
        expandable & free, inside, np.where(whole & ~expandable, blocks.size_bytes, 0)
    ).astype(np.int64)
    return released
