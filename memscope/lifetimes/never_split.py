"""Private pools made with ``no_split=True``: nothing records them, but what they hand out proves it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import numpy.typing as npt

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
    O(n log n) in the events, blocks and segments.
    """
    segments = trace.segments
    pool_of_event = trace.pool_id if trace.metadata.has_pool_ids else _pools_of_events(trace)
    events, rows = _Grouped(pool_of_event), _Grouped(segments.pool_id)
    blocks = _Grouped(segments.pool_id[trace.blocks.segment_id])
    found = []
    for pool in np.union1d(segments.pool_id[segments.pool_id > 0], pool_of_event[pool_of_event > 0]).tolist():
        of_pool, inside = events.of(pool), blocks.of(pool)
        if _may_be_whole(trace, inside, of_pool) and (
            _final_blocks_prove(trace, rules, inside) or _requests_prove(trace, rules, rows.of(pool), of_pool)
        ):
            found.append(pool)
    return found


class _Grouped:
    """The positions at which an array has each of its values, in ascending order."""

    def __init__(self, values: npt.NDArray[np.signedinteger[Any]]) -> None:
        self._order: Int64Array = np.argsort(values, kind="stable")
        distinct, first = np.unique(values[self._order], return_index=True)
        ends = [*first[1:].tolist(), len(values)]
        self._ranges = dict(zip(distinct.tolist(), zip(first.tolist(), ends, strict=False), strict=True))

    def of(self, value: int) -> Int64Array:
        """Those of a value."""
        return self._order[slice(*self._ranges.get(value, (0, 0)))]


def _pools_of_events(trace: Trace) -> Int64Array:
    """Pools of the events in final ``cudaMalloc`` segments since each was made, which is what can be told without ids.

    int64 (n,): a private pool, else −1.
    """
    segments = trace.segments
    pool_of_event = np.full(len(trace), NONE_ID, np.int64)
    private = np.flatnonzero((segments.pool_id > 0) & ~segments.is_expandable)
    events, rows = _Grouped(trace.device), _Grouped(segments.device[private])
    for device in np.unique(segments.device[private]).tolist():
        of_device = private[rows.of(device)]
        of_device = of_device[np.argsort(segments.address[of_device], kind="stable")]
        start, end = segments.address[of_device], segments.address[of_device] + segments.size_bytes[of_device]
        asked = events.of(device)
        address = trace.address[asked]
        at = np.maximum(np.searchsorted(start, address, side="right") - 1, 0)
        is_inside = (start[at] <= address) & (address < end[at]) & (trace.action[asked] != Action.OOM)
        inside, at = asked[is_inside], at[is_inside]
        made = np.full(len(of_device), NONE_ID, np.int64)
        is_made = trace.action[inside] == Action.SEGMENT_ALLOC
        np.maximum.at(made, at[is_made], inside[is_made])
        is_since = inside >= made[at]
        pool_of_event[inside[is_since]] = segments.pool_id[of_device][at[is_since]]
    return pool_of_event


def _may_be_whole(trace: Trace, inside: Int64Array, events: Int64Array) -> bool:
    """Whether every block of a pool starts where a segment or a handle can."""
    segments, blocks = trace.segments, trace.blocks
    offset = blocks.address[inside] - segments.address[blocks.segment_id[inside]]
    ordinary = ~segments.is_expandable[blocks.segment_id[inside]]
    if np.any(offset[ordinary] != 0) or np.any(offset % caching.SMALL_SEGMENT_BYTES != 0):
        return False
    allocs = events[trace.action[events] == Action.ALLOC]
    return not np.any(trace.address[allocs] % caching.SMALL_SEGMENT_BYTES != 0)


def _final_blocks_prove(trace: Trace, rules: CachingRules, inside: Int64Array) -> bool:
    blocks = trace.blocks
    inside = inside[blocks.state[inside] != BlockState.INACTIVE]
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


def _requests_prove(trace: Trace, rules: CachingRules, segments: Int64Array, events: Int64Array) -> bool:
    """Whether a request of one pool failed, got new memory or a larger block, although the rest of a block would do."""
    followed = _WholePool(rules, _segments_before(trace, segments, events))
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


def _segments_before(trace: Trace, rows: Int64Array, events: Int64Array) -> dict[int, int]:
    """Sizes by address of a pool's ``cudaMalloc`` segments that no event made."""
    segments = trace.segments
    final = rows[~segments.is_expandable[rows]]
    room = dict(zip(segments.address[final].tolist(), segments.size_bytes[final].tolist(), strict=True))
    for event in events[::-1].tolist():
        if trace.action[event] == Action.SEGMENT_ALLOC:
            room.pop(int(trace.address[event]), None)
        elif trace.action[event] == Action.SEGMENT_FREE:
            room[int(trace.address[event])] = int(trace.size_bytes[event])
    return room
