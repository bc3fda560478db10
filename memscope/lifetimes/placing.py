"""The block of every allocation: its size, and the segment that it lies in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope._core import caching
from memscope._core import lifetimes as core
from memscope.lifetimes._pairing import PairedRows, Pairs, Problem
from memscope.lifetimes.never_split import pools_that_never_split
from memscope.lifetimes.rules import CachingRules, rules_of
from memscope.lifetimes.segments import SegmentTimeline
from memscope.lifetimes.tables import AllocationTable
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int64Array
from memscope.trace.trace import Trace
from memscope.units import format_bytes, format_count


@dataclass(frozen=True, slots=True)
class Placement:
    """The allocations with their blocks, and how well the events fitted the layout.

    ``n_misplaced`` counts events that do not fit the layout of free ranges; it is 0 where segments and settings are
    fully known. ``first_misplaced`` is the first of them, −1 if none.
    """

    allocations: AllocationTable
    n_misplaced: int
    first_misplaced: int


def place_rows(trace: Trace, rows: PairedRows, timeline: SegmentTimeline) -> Placement:
    """Give every allocation of a device its block.

    O(n log n) in the events.
    """
    first, end = trace.event_range(timeline.device)
    pairs, rules = rows.pairs, rules_of(trace.metadata)
    block_bytes = rules.round_sizes(pairs.requested_bytes)
    is_exact = rows.final_block >= 0
    block_bytes[is_exact] = trace.blocks.size_bytes[rows.final_block[is_exact]]
    before = np.flatnonzero(pairs.alloc_event < 0)
    # A pool that is in use gives no segment back: what lay at the place of one before was another pool's.
    never_split = timeline.key_is_pool_recorded & np.isin(timeline.key_pool_id, pools_that_never_split(trace, rules))
    if not rules.is_expandable or np.all(timeline.key_is_expandable[timeline.start_key]):
        # With expandable segments switched on, cudaMalloc segments from before are split closely from then on.
        _settle_slack(pairs, before, timeline, never_split, rules, block_bytes, is_exact)
    laid_bytes, laid_exactly, row_key, n_misplaced, misplaced = core.lay_out(
        trace.action[first:end],
        trace.address[first:end],
        trace.size_bytes[first:end],
        timeline.key_of_events(first, end - first),
        timeline.start_ranges,
        (pairs.alloc_event, pairs.free_event, pairs.address),
        block_bytes,
        is_exact,
        roundup_divisions=rules.roundup_divisions,
        max_split_bytes=rules.max_split_bytes,
        is_expandable=rules.is_expandable,
        key_never_splits=never_split,
    )
    is_laid_exactly: BoolArray = laid_exactly.view(np.bool_)
    if not trace.metadata.is_of_pytorch:
        # How another allocator rounds is not known: what was asked for is all that is measured.
        laid_bytes, is_laid_exactly = pairs.requested_bytes, np.ones(len(laid_exactly), np.bool_)
    allocations = _allocation_table(trace, rows, timeline, laid_bytes, is_laid_exactly, row_key)
    if not (trace.metadata.has_segment_events or trace.metadata.block_layout_recorded):
        n_misplaced = 0  # there is no layout that they could fail to fit
    return Placement(allocations, n_misplaced, first + misplaced if n_misplaced else NONE_ID)


def problems_before(trace: Trace, allocations: AllocationTable, timeline: SegmentTimeline) -> list[Problem]:
    """What cannot have been in use before the first event: it lay in no segment of then, or two lay in one place.

    Only the frees of such memory are among the events, so that nothing else tells a wrong address or size of theirs.
    """
    table = allocations.take(allocations.alloc_event == NONE_ID)
    table = table.take(np.argsort(table.address, kind="stable"))
    begin, end = table.address, table.address + table.block_bytes
    order = np.argsort(timeline.start_address, kind="stable")
    segment = np.searchsorted(timeline.start_address[order], begin, side="right") - 1
    is_outside = np.ones(len(table), np.bool_)
    within = segment >= 0
    is_outside[within] = end[within] > timeline.start_end[order][segment[within]]
    overlaps = np.append(begin[1:] < end[:-1], False)
    found = []
    for wrong, why in ((is_outside, "lies in no segment of then"), (overlaps, "overlaps another such allocation")):
        if np.any(wrong):
            row = int(np.flatnonzero(wrong)[0])
            event = max(int(table.free_requested_event[row]), int(table.free_event[row]))
            size = format_bytes(int(table.block_bytes[row]))
            text = f"{size} at address {trace.address_text(int(begin[row]))}, in use before the first event, {why}"
            n_more = int(np.count_nonzero(wrong)) - 1
            more = f" ({format_count(n_more)} more like it)" if n_more else ""
            found.append(Problem(timeline.device, None if event < 0 else event, text + more))
    return found


def _settle_slack(
    pairs: Pairs,
    before: Int64Array,
    timeline: SegmentTimeline,
    never_split: BoolArray,
    rules: CachingRules,
    block_bytes: Int64Array,
    is_exact: BoolArray,
) -> None:
    """Find the true size of blocks from before the events, as far as their surroundings tell; changed in place.

    Small blocks, and those of expandable segments, are always split to the rounded size. In a ``cudaMalloc`` segment of
    the large pool every free block is larger than 1 MiB, so a smaller gap after a block is what was too little to split
    off, and no gap means that there was nothing. A block that is not split at all, because of its size or of its pool
    (``never_split`` by key), reaches as far as the next one.
    """
    if not len(timeline.start_address):
        return
    rows = before[np.argsort(pairs.address[before], kind="stable")]
    address = pairs.address[rows]
    segment = np.maximum(np.searchsorted(timeline.start_address, address, side="right") - 1, 0)
    segment_end = timeline.start_end[segment]
    is_inside = (timeline.start_address[segment] <= address) & (address + block_bytes[rows] <= segment_end)
    key = timeline.start_key[segment]
    is_mapped = timeline.key_is_expandable[key]
    whole_handles = is_inside & is_mapped & never_split[key] & ~is_exact[rows]
    handle = np.where(timeline.key_is_large[key], rules.large_segment_bytes, caching.SMALL_SEGMENT_BYTES)
    block_bytes[rows[whole_handles]] = (-(-block_bytes[rows] // handle) * handle)[whole_handles]
    is_split_closely = is_mapped | ~(timeline.key_is_large[key] | never_split[key])
    following = np.minimum(np.append(address[1:], np.iinfo(np.int64).max), segment_end)
    gap = following - address - block_bytes[rows]
    is_whole = (block_bytes[rows] >= rules.max_split_bytes) | never_split[key]
    is_slack = is_inside & ~is_exact[rows] & ~is_split_closely & (gap >= 0) & ((gap <= caching.SMALL_BYTES) | is_whole)
    block_bytes[rows[is_slack]] += gap[is_slack]
    is_exact[rows[is_slack | (is_inside & is_split_closely)]] = True


def _allocation_table(
    trace: Trace,
    rows: PairedRows,
    timeline: SegmentTimeline,
    block_bytes: Int64Array,
    is_exact: BoolArray,
    row_key: Int64Array,
) -> AllocationTable:
    first, _ = trace.event_range(timeline.device)
    pairs = rows.pairs
    born = pairs.alloc_event >= 0
    seen = np.where(born, pairs.alloc_event, np.maximum(pairs.free_requested_event, pairs.free_event))
    has_event = seen >= 0
    placed = row_key >= 0
    stream_id = np.full(len(seen), NONE_ID, np.int32)
    stream_id[has_event] = trace.stream_id[first + seen[has_event]]
    stream_id[placed] = timeline.key_stream_id[row_key[placed]]
    pool_id = np.full(len(seen), NONE_ID, np.int32)
    if trace.metadata.has_pool_ids:
        pool_id[has_event] = trace.pool_id[first + seen[has_event]]
    pool_id[placed] = timeline.key_pool_id[row_key[placed]]
    is_large = block_bytes > caching.SMALL_BYTES
    is_large[placed] = timeline.key_is_large[row_key[placed]]
    stack_id = np.full(len(seen), NONE_ID, np.int32)
    ends = rows.final_block >= 0
    stack_id[ends] = trace.blocks.stack_id[rows.final_block[ends]]
    stack_id[born] = trace.stack_id[first + pairs.alloc_event[born]]

    def absolute(event: Int64Array) -> Int64Array:
        return np.where(event >= 0, event + first, NONE_ID)

    table = AllocationTable(
        alloc_event=absolute(pairs.alloc_event),
        free_requested_event=absolute(pairs.free_requested_event),
        free_event=absolute(pairs.free_event),
        address=pairs.address,
        requested_bytes=pairs.requested_bytes,
        block_bytes=block_bytes,
        is_exact=is_exact,
        is_pending_at_start=rows.is_pending_at_start,
        stream_id=stream_id,
        pool_id=pool_id,
        is_large=is_large,
        stack_id=stack_id,
    )
    return table.take(np.argsort(np.where(born, pairs.alloc_event, NONE_ID), kind="stable"))
