"""The arrays that the caching kernels work on: made from settings, grown when they run full, and read as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_rules import SMALL_SEGMENT_BYTES, UNLIMITED
from memscope.device.limits import NO_LIMITS, Limits
from memscope.errors import UsageError
from memscope.lifetimes.state import AllocatorState
from memscope.replay.config import DEFAULT_TIE_RULE, CachingAllocatorConfig
from memscope.trace.schema import NONE_ID, BlockState, TieRule
from memscope.trace.tables import BlockTable, Int32Array, SegmentTable
from memscope.units import MiB, TiB

_UNKNOWN_RESERVATION_BYTES = 16 * TiB
_N_START_ROWS = 1024


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Where the simulated driver places memory: upwards from a base; addresses are never used twice.

    ``gap_bytes`` follows each segment; a reservation of expandable segments starts at a multiple of
    ``reservation_alignment_bytes`` and is followed by ``reservation_gap_bytes``.
    """

    base: int = 0x7F0000000000
    gap_bytes: int = 0
    reservation_alignment_bytes: int = 2 * MiB
    reservation_gap_bytes: int = 0


def new_arrays(
    config: CachingAllocatorConfig,
    limits: Limits = NO_LIMITS,
    *,
    tie_rule: TieRule = DEFAULT_TIE_RULE,
    address_rule: AddressRule | None = None,
    is_logged: bool = True,
) -> at.CachingArrays:
    """Arrays of an allocator that holds nothing.

    Raises
    ------
    UsageError
        If the settings are not covered by the simulator, or need a device size that is not given.
    """
    _refuse_uncovered(config, limits)
    left, cap = limits.left_bytes, limits.cap_bytes(config.memory_fraction)
    place = AddressRule() if address_rule is None else address_rule
    row = np.zeros(at.N_CONFIG, np.int64)
    row[at.CFG_TIE_RULE] = int(tie_rule)
    row[at.CFG_MAX_SPLIT] = UNLIMITED if config.max_split_bytes is None else config.max_split_bytes
    row[at.CFG_NON_SPLIT_ROUNDING] = config.max_non_split_rounding_bytes
    row[at.CFG_LARGE_SEGMENT] = config.large_segment_bytes
    row[at.CFG_IS_EXPANDABLE] = int(config.is_expandable)
    row[at.CFG_CAPACITY] = -1 if left is None else left
    row[at.CFG_LIMIT] = -1 if cap is None else cap
    collects = cap is not None and config.gc_threshold_frac > 0
    row[at.CFG_GC_BYTES] = int(config.gc_threshold_frac * (cap or 0)) if collects else -1
    row[at.CFG_RESERVATION] = _reservation_bytes(config, limits.total_bytes)
    row[at.CFG_IS_LOGGED] = int(is_logged)
    row[at.CFG_GAP] = place.gap_bytes
    row[at.CFG_RESERVATION_ALIGNMENT] = place.reservation_alignment_bytes
    row[at.CFG_RESERVATION_GAP] = place.reservation_gap_bytes
    if config.throws_on_malloc_oom and limits.total_bytes is not None:
        row[at.CFG_REJECT_ABOVE] = limits.total_bytes
    else:
        row[at.CFG_REJECT_ABOVE] = -1
    row[at.CFG_DIVISIONS :] = config.roundup_divisions
    counters = np.zeros(at.N_COUNTERS, np.int64)
    for empty in (at.C_BLOCK_SLOT, at.C_SEGMENT_SLOT, at.C_PENDING_HEAD, at.C_PENDING_TAIL):
        counters[empty] = at.NONE
    counters[at.C_NEXT_ADDRESS] = place.base
    return at.CachingArrays(
        blocks=np.zeros((_N_START_ROWS, at.N_BLOCK_COLUMNS), np.int64),
        segments=np.zeros((_N_START_ROWS, at.N_SEGMENT_COLUMNS), np.int64),
        lanes=np.empty((0, at.N_LANE_COLUMNS), np.int64),
        log=np.zeros((4 * _N_START_ROWS if is_logged else 0, at.N_LOG_COLUMNS), np.int64),
        counters=counters,
        config=row,
    )


def _refuse_uncovered(config: CachingAllocatorConfig, limits: Limits) -> None:
    if config.backend != "native":
        raise UsageError(f"backend {config.backend} is not simulated by the caching allocator")
    if config.unmodelled:
        raise UsageError(f"allocator settings {', '.join(config.unmodelled)} are not covered by the simulator")
    fraction = config.memory_fraction if limits.memory_fraction is None else limits.memory_fraction
    if limits.total_bytes is None and (fraction < 1 or config.throws_on_malloc_oom):
        raise UsageError(
            "a memory fraction, or throw_on_cudamalloc_oom, needs the device's total bytes: give a capacity"
        )


def _reservation_bytes(config: CachingAllocatorConfig, total_bytes: int | None) -> int:
    if total_bytes is None:
        return _UNKNOWN_RESERVATION_BYTES
    most = total_bytes + total_bytes // 8
    if config.reserve is None:
        return most
    wanted = int(config.reserve * total_bytes) if isinstance(config.reserve, float) else config.reserve
    return max(min(wanted, most), SMALL_SEGMENT_BYTES)


def grow(arrays: at.CachingArrays, n_more_blocks: int = 0) -> at.CachingArrays:
    """Arrays with at least twice the rows where a request, or that many blocks, could run out of them."""
    n_blocks, n_segments, n_logged = (int(n) for n in at.rows_needed(arrays))
    return arrays._replace(
        blocks=_with_rows(arrays.blocks, n_blocks + 4 * n_more_blocks),
        segments=_with_rows(arrays.segments, n_segments),
        log=_with_rows(arrays.log, n_logged),
    )


def _with_rows(rows: npt.NDArray[np.int64], n_needed: int) -> npt.NDArray[np.int64]:
    if n_needed <= len(rows):
        return rows
    grown = np.zeros((2 * n_needed, rows.shape[1]), np.int64)
    grown[: len(rows)] = rows
    return grown


def with_lanes(
    arrays: at.CachingArrays, pairs: Sequence[tuple[int, int]], *, is_private_releasable: bool
) -> at.CachingArrays:
    """Arrays with lanes for every (pool index, stream handle) pair, those there before kept.

    Pool index 0 is the default pool. The order in which lanes give memory back is PyTorch's: the default pool's large
    lanes, then its small ones, then each private pool's small and large ones; among them by stream handle, unsigned.
    """
    n_before = len(arrays.lanes)
    lanes = np.full((2 * len(pairs), at.N_LANE_COLUMNS), at.NONE, np.int64)
    lanes[:n_before] = arrays.lanes
    for lane in range(n_before, len(lanes)):
        pool = pairs[lane // 2][0]
        lanes[lane, at.L_POOL] = pool
        lanes[lane, at.L_CAN_SPLIT] = 1
        lanes[lane, at.L_IS_RELEASABLE] = int(pool == 0 or is_private_releasable)

    def key(lane: int) -> tuple[int, int, int]:
        pool, stream = pairs[lane // 2]
        is_large = lane & 1
        return pool, is_large if pool else 1 - is_large, stream & 0xFFFFFFFFFFFFFFFF

    lanes[:, at.L_RELEASE_ORDER] = sorted(range(len(lanes)), key=key)
    return arrays._replace(lanes=lanes)


_STATES = {
    at.FREE: BlockState.INACTIVE,
    at.ALLOCATED: BlockState.ACTIVE_ALLOCATED,
    at.PENDING: BlockState.ACTIVE_PENDING_FREE,
}


def state_of(
    arrays: at.CachingArrays, stream_ids: Int32Array, pool_ids: Int32Array, *, device: int, event: int = NONE_ID
) -> AllocatorState:
    """Segments and blocks now, ascending by address; an expandable segment is one contiguous mapped run.

    Parameters
    ----------
    stream_ids, pool_ids
        int32 (pairs,): what to write for each (pool, stream) pair of the lanes.
    """
    rows = arrays.blocks
    used = np.flatnonzero((rows[:, at.B_STATE] != at.SLOT_EMPTY) & (rows[:, at.B_STATE] != at.UNMAPPED))
    used = used[np.argsort(rows[used, at.B_ADDRESS], kind="stable")]
    blocks = rows[used]
    address, size = blocks[:, at.B_ADDRESS], blocks[:, at.B_SIZE]
    starts = np.ones(len(used), np.bool_)
    starts[1:] = (blocks[1:, at.B_SEGMENT] != blocks[:-1, at.B_SEGMENT]) | (address[1:] != (address + size)[:-1])
    heads = np.flatnonzero(starts)
    lane = blocks[heads, at.B_LANE]
    segments = SegmentTable(
        device=np.full(len(heads), device, np.int16),
        address=address[heads],
        size_bytes=np.add.reduceat(size, heads) if len(heads) else np.empty(0, np.int64),
        stream_id=stream_ids[lane // 2],
        pool_id=pool_ids[lane // 2],
        is_large=lane % 2 == 1,
        is_expandable=arrays.segments[blocks[heads, at.B_SEGMENT], at.S_IS_EXPANDABLE] == 1,
        stack_id=np.full(len(heads), NONE_ID, np.int32),
    )
    state = np.full(len(used), BlockState.INACTIVE, np.int8)
    for code, meaning in _STATES.items():
        state[blocks[:, at.B_STATE] == code] = meaning
    table = BlockTable(
        segment_id=np.cumsum(starts, dtype=np.int32) - np.int32(1),
        address=address,
        size_bytes=size,
        requested_bytes=np.where(state == BlockState.INACTIVE, 0, blocks[:, at.B_REQUESTED]),
        state=state,
        stack_id=np.full(len(used), NONE_ID, np.int32),
    )
    none = np.full(len(used), NONE_ID, np.int64)
    return AllocatorState(event=event, device=device, segments=segments, blocks=table, allocation_ids=none)
