"""Private pools made with ``no_split=True``: nothing records them, but what they hand out proves it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope._kernels.caching_rules import (
    SMALL_BYTES,
    SMALL_SEGMENT_BYTES,
    CachingRules,
    round_size,
    round_sizes,
    should_split,
)
from memscope.trace.schema import NONE_ID, Action, BlockState
from memscope.trace.tables import Int64Array
from memscope.trace.trace import Trace

_GROWS = (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP)


def pools_that_never_split(trace: Trace, rules: CachingRules) -> list[int]:
    """Dense ids of the private pools whose blocks are handed out whole.

    Such a pool gives out nothing but starts of segments and of mapped handles. It is one if a final block is larger
    than the split rule would leave it, or if a request got new memory that the rest of a block would have served.
    Linear in the events of private pools that may be of the kind.
    """
    private = np.unique(trace.segments.pool_id[trace.segments.pool_id > 0])
    events = np.empty(0, np.int64)
    if trace.metadata.has_pool_ids:
        events = np.flatnonzero(trace.pool_id > 0)
        private = np.union1d(private, trace.pool_id[events])
    found = []
    for pool in private.tolist():
        of_pool = events[trace.pool_id[events] == pool]
        if _may_be_whole(trace, pool, of_pool) and (
            _final_blocks_prove(trace, rules, pool) or _requests_prove(trace, rules, pool, of_pool)
        ):
            found.append(pool)
    return found


def _may_be_whole(trace: Trace, pool: int, events: Int64Array) -> bool:
    """Whether every block of a pool starts where a segment or a handle can."""
    segments, blocks = trace.segments, trace.blocks
    inside = segments.pool_id[blocks.segment_id] == pool
    offset = blocks.address[inside] - segments.address[blocks.segment_id[inside]]
    ordinary = ~segments.is_expandable[blocks.segment_id[inside]]
    if np.any(offset[ordinary] != 0) or np.any(offset % SMALL_SEGMENT_BYTES != 0):
        return False
    allocs = events[trace.action[events] == Action.ALLOC]
    return not np.any(trace.address[allocs] % SMALL_SEGMENT_BYTES != 0)


def _final_blocks_prove(trace: Trace, rules: CachingRules, pool: int) -> bool:
    segments, blocks = trace.segments, trace.blocks
    inside = (segments.pool_id[blocks.segment_id] == pool) & (blocks.state != BlockState.INACTIVE)
    rounded = round_sizes(blocks.requested_bytes[inside], rules.roundup_divisions)
    sizes = zip(blocks.size_bytes[inside].tolist(), rounded.tolist(), strict=True)
    return any(should_split(size, r, rules.max_split_bytes, rules.is_expandable) for size, r in sizes)


@dataclass(slots=True)
class _Rest:
    """What the split rule would have left of a block in use: its bytes, and where it ends."""

    owner: tuple[int, bool]
    size_bytes: int
    end: int


def _requests_prove(trace: Trace, rules: CachingRules, pool: int, events: Int64Array) -> bool:
    """Whether a request of one pool failed, got new memory or a larger block, although the rest of a block would do."""
    room = _segments_before(trace, pool, events)
    mapped: set[int] = set()
    live: set[int] = set()
    rests: dict[int, _Rest] = {}
    grown = NONE_ID
    for event in events.tolist():
        action, address = trace.action[event], int(trace.address[event])
        if action in _GROWS:
            grown = address
            room[address] = int(trace.size_bytes[event])
            if action == Action.SEGMENT_MAP:
                mapped.add(address)
        elif action in (Action.ALLOC, Action.OOM):
            rounded = int(round_size(trace.size_bytes[event], rules.roundup_divisions))
            owner = (int(trace.stream_id[event]), rounded > SMALL_BYTES)
            size = room.get(address, 0) if action == Action.ALLOC else rules.max_split_bytes
            while address in mapped and address + size in mapped and address + size not in live:
                size += room[address + size]
            if not size and any(start < address < start + n_bytes for start, n_bytes in room.items()):
                return False  # A block begins inside what was made for one request: it was split.
            if rounded < rules.max_split_bytes:
                for rest in rests.values():
                    fits = rounded <= rest.size_bytes and (grown == address or rest.size_bytes < size)
                    follows = rest.end == address == grown and address in mapped
                    if rest.owner == owner and (fits or follows):
                        return True
            if action == Action.ALLOC:
                live.add(address)
                if size > rounded and should_split(size, rounded, rules.max_split_bytes, rules.is_expandable):
                    rests[address] = _Rest(owner, size - rounded, address + size)
            grown = NONE_ID
        elif action == Action.FREE_COMPLETED:
            rests.pop(address, None)
            live.discard(address)
        elif action in (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP):
            end = address + int(trace.size_bytes[event])
            for start in [start for start in room if address <= start < end]:
                del room[start]
                mapped.discard(start)
    return False


def _segments_before(trace: Trace, pool: int, events: Int64Array) -> dict[int, int]:
    """Sizes by address of a pool's ``cudaMalloc`` segments that no event made."""
    segments = trace.segments
    final = (segments.pool_id == pool) & ~segments.is_expandable
    room = dict(zip(segments.address[final].tolist(), segments.size_bytes[final].tolist(), strict=True))
    for event in events[::-1].tolist():
        if trace.action[event] == Action.SEGMENT_ALLOC:
            room.pop(int(trace.address[event]), None)
        elif trace.action[event] == Action.SEGMENT_FREE:
            room[int(trace.address[event])] = int(trace.size_bytes[event])
    return room
