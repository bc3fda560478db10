"""Private pools made with ``no_split=True``: nothing records them, but what they hand out proves it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from memscope._core import caching
from memscope.lifetimes.rules import CachingRules
from memscope.trace.schema import NONE_ID, Action, BlockState
from memscope.trace.tables import Int64Array
from memscope.trace.trace import Trace

_GROWS = (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP)
_SHRINKS = (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)


def pools_that_never_split(trace: Trace, rules: CachingRules) -> list[int]:
    """Dense ids of the private pools whose blocks are handed out whole.

    Such a pool gives out nothing but starts of segments and of mapped handles. It is one if a final block is larger
    than the split rule would leave it, or if a request got new memory that the rest of a block would have served.
    Linear in the events of private pools that may be of the kind.
    """
    private = np.unique(trace.segments.pool_id[trace.segments.pool_id > 0])
    events = np.empty(0, np.int64)
    has_pool_ids = trace.metadata.has_pool_ids
    if has_pool_ids:
        events = np.flatnonzero(trace.pool_id > 0)
        private = np.union1d(private, trace.pool_id[events])
    found = []
    for pool in private.tolist():
        of_pool = events[trace.pool_id[events] == pool] if has_pool_ids else _events_in_final_segments(trace, pool)
        if _may_be_whole(trace, pool, of_pool) and (
            _final_blocks_prove(trace, rules, pool) or _requests_prove(trace, rules, pool, of_pool)
        ):
            found.append(pool)
    return found


def _events_in_final_segments(trace: Trace, pool: int) -> Int64Array:
    """Events in a pool's final ``cudaMalloc`` segments since each was made: what can be told of it without pool ids."""
    segments = trace.segments
    of_pool = np.flatnonzero((segments.pool_id == pool) & ~segments.is_expandable)
    of_pool = of_pool[np.argsort(segments.address[of_pool], kind="stable")]
    if not len(of_pool):
        return np.empty(0, np.int64)
    start, end = segments.address[of_pool], segments.address[of_pool] + segments.size_bytes[of_pool]
    at = np.maximum(np.searchsorted(start, trace.address, side="right") - 1, 0)
    is_inside = (
        (trace.device == segments.device[of_pool][at]) & (start[at] <= trace.address) & (trace.address < end[at])
    )
    inside = np.flatnonzero(is_inside & (trace.action != Action.OOM))
    made = np.full(len(of_pool), NONE_ID, np.int64)
    makes = inside[trace.action[inside] == Action.SEGMENT_ALLOC]
    np.maximum.at(made, at[makes], makes)
    since: Int64Array = inside[inside >= made[at[inside]]]
    return since


def _may_be_whole(trace: Trace, pool: int, events: Int64Array) -> bool:
    """Whether every block of a pool starts where a segment or a handle can."""
    segments, blocks = trace.segments, trace.blocks
    inside = segments.pool_id[blocks.segment_id] == pool
    offset = blocks.address[inside] - segments.address[blocks.segment_id[inside]]
    ordinary = ~segments.is_expandable[blocks.segment_id[inside]]
    if np.any(offset[ordinary] != 0) or np.any(offset % caching.SMALL_SEGMENT_BYTES != 0):
        return False
    allocs = events[trace.action[events] == Action.ALLOC]
    return not np.any(trace.address[allocs] % caching.SMALL_SEGMENT_BYTES != 0)


def _final_blocks_prove(trace: Trace, rules: CachingRules, pool: int) -> bool:
    segments, blocks = trace.segments, trace.blocks
    inside = (segments.pool_id[blocks.segment_id] == pool) & (blocks.state != BlockState.INACTIVE)
    rounded = rules.round_sizes(blocks.requested_bytes[inside])
    sizes = zip(blocks.size_bytes[inside].tolist(), rounded.tolist(), strict=True)
    return any(rules.should_split(size, rounded) for size, rounded in sizes)


class _Answer(Enum):
    """How a pool met a request."""

    KEPT = auto()
    """With a block that it had."""
    GREW = auto()
    """With memory that the driver gave for it."""
    FAILED = auto()
    """Not at all: out of memory."""


class _Proof(Enum):
    """What the events of a pool say of it so far."""

    OPEN = auto()
    """Nothing: all that it handed out was whole, and no request would have been met in another way by splitting."""
    SPLITS = auto()
    """A block began inside what was made for one request."""
    NEVER_SPLITS = auto()
    """A request passed over the rest of a block that would have served it."""


_Owner = tuple[int, bool]
"""Stream, and whether the block is large: what a block never crosses."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked of a pool."""

    owner: _Owner
    rounded_bytes: int


@dataclass(frozen=True, slots=True)
class _Region:
    """A ``cudaMalloc`` segment, or one map of an expandable one."""

    size_bytes: int
    is_mapped: bool


@dataclass(frozen=True, slots=True)
class _Rest:
    """What the split rule would have left of a block in use: its bytes, and where it ends."""

    owner: _Owner
    size_bytes: int
    end: int


class _WholePool:
    """One pool, followed as if it handed its blocks out whole, until a request proves or refutes that.

    The pool is either *settled*, or it has *grown* at an address: then the next request is the one that it grew for. A
    block is *free* or *in use*, and one in use may have a *rest*, which is there for others only if the pool splits.
    """

    def __init__(self, rules: CachingRules, segment_bytes: dict[int, int]) -> None:
        self._rules = rules
        self._regions = {address: _Region(size, is_mapped=False) for address, size in segment_bytes.items()}
        self._in_use: set[int] = set()
        self._rests: dict[int, _Rest] = {}
        self._grown_at: int | None = None

    def grow(self, address: int, size_bytes: int, *, is_mapped: bool) -> None:
        """The driver gave memory for the next request."""
        self._regions[address] = _Region(size_bytes, is_mapped)
        self._grown_at = address

    def shrink(self, start: int, size_bytes: int) -> None:
        """Memory went back to the driver."""
        for address in [address for address in self._regions if start <= address < start + size_bytes]:
            del self._regions[address]

    def free(self, address: int) -> None:
        """A block is free again."""
        self._rests.pop(address, None)
        self._in_use.discard(address)

    def fail(self, request: _Request) -> _Proof:
        """A request was out of memory."""
        self._grown_at = None
        return self._proof(request, _Answer.FAILED, NONE_ID, 0)

    def serve(self, request: _Request, address: int) -> _Proof:
        """A request was given the block at an address."""
        size_bytes = self._block_bytes(address)
        if not size_bytes and self._is_inside(address):
            return _Proof.SPLITS
        answer = _Answer.GREW if address == self._grown_at else _Answer.KEPT
        self._grown_at = None
        proof = self._proof(request, answer, address, size_bytes)
        self._in_use.add(address)
        rounded = request.rounded_bytes
        if size_bytes > rounded and self._rules.should_split(size_bytes, rounded):
            self._rests[address] = _Rest(request.owner, size_bytes - rounded, address + size_bytes)
        return proof

    def _block_bytes(self, address: int) -> int:
        """Bytes of the free block at an address, 0 where none is known: a segment, or free maps beside each other."""
        region = self._regions.get(address)
        if region is None:
            return 0
        end = address + region.size_bytes
        while region.is_mapped and self._is_mapped(end) and end not in self._in_use:
            end += self._regions[end].size_bytes
        return end - address

    def _is_mapped(self, address: int) -> bool:
        """Whether a map of an expandable segment begins at an address."""
        region = self._regions.get(address)
        return region is not None and region.is_mapped

    def _is_inside(self, address: int) -> bool:
        """Whether an address lies in a segment or a map, behind its start."""
        return any(start < address < start + region.size_bytes for start, region in self._regions.items())

    def _proof(self, request: _Request, answer: _Answer, address: int, size_bytes: int) -> _Proof:
        """Whether a request was met in another way than by the rest of a block that would have done."""
        if request.rounded_bytes >= self._rules.max_split_bytes:
            return _Proof.OPEN
        rests = [rest for rest in self._rests.values() if rest.owner == request.owner]
        fitting = [rest for rest in rests if request.rounded_bytes <= rest.size_bytes]
        if answer is _Answer.KEPT:
            is_proved = any(rest.size_bytes < size_bytes for rest in fitting)
        elif answer is _Answer.FAILED:
            is_proved = bool(fitting)
        else:
            # What is mapped right behind a rest would have become one block with it, which begins earlier.
            is_proved = bool(fitting) or (self._is_mapped(address) and any(rest.end == address for rest in rests))
        return _Proof.NEVER_SPLITS if is_proved else _Proof.OPEN


def _requests_prove(trace: Trace, rules: CachingRules, pool: int, events: Int64Array) -> bool:
    """Whether a request of one pool failed, got new memory or a larger block, although the rest of a block would do."""
    followed = _WholePool(rules, _segments_before(trace, pool, events))
    columns = (trace.action, trace.address, trace.size_bytes, trace.stream_id)
    for action, address, size_bytes, stream_id in zip(*(column[events].tolist() for column in columns), strict=True):
        proof = _Proof.OPEN
        if action in _GROWS:
            followed.grow(address, size_bytes, is_mapped=action == Action.SEGMENT_MAP)
        elif action in _SHRINKS:
            followed.shrink(address, size_bytes)
        elif action == Action.FREE_COMPLETED:
            followed.free(address)
        elif action in (Action.ALLOC, Action.OOM):
            rounded = rules.round_size(size_bytes)
            request = _Request((stream_id, rounded > caching.SMALL_BYTES), rounded)
            proof = followed.fail(request) if action == Action.OOM else followed.serve(request, address)
        if proof is not _Proof.OPEN:
            return proof is _Proof.NEVER_SPLITS
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
