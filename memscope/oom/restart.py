"""The failed request served again from the recorded state, where a replay of what came before does not reach it.

A recording that began mid-life, or whose older releases break ties by addresses that a replay cannot know, may not be
reproduced from its start. The segments and blocks at the failure are recorded all the same: put into an allocator, they
answer what blocks or bytes would have changed, though not what other settings would have made of the run.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from memscope._kernels import caching_layout as at
from memscope._kernels import caching_replay as kernel
from memscope.lifetimes.device import DeviceLifetimes
from memscope.oom.request import FailedRequest, Limit
from memscope.oom.rerun import Change, Outcome
from memscope.oom.room import Room
from memscope.replay.arrays import new_arrays
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.engine import serve_events
from memscope.replay.recording import Recording
from memscope.replay.requests import Requests
from memscope.trace import schema
from memscope.trace.schema import NONE_ID, TieRule
from memscope.trace.tables import Int64Array, MarkTable, OwnerTable, SampleTable, frozen_array
from memscope.trace.trace import Trace


class Restart:
    """An allocator that stands where the recorded one stood when a request failed.

    Parameters
    ----------
    lifetimes, request, limit, room
        The device, the request that failed, what PyTorch could have had, and the state then.
    config
        The recorded settings.

    Raises
    ------
    UsageError
        If the simulator does not cover the settings.
    """

    def __init__(
        self,
        lifetimes: DeviceLifetimes,
        request: FailedRequest,
        limit: Limit,
        room: Room,
        config: CachingAllocatorConfig,
    ) -> None:
        self._request = request
        self._limit = limit
        self._room = room
        self._config = dataclasses.replace(config, throws_on_malloc_oom=False, memory_fraction=1.0)
        self._start = Recording(DeviceLifetimes(_frozen_trace(lifetimes.trace, room), lifetimes.device))
        rule = lifetimes.trace.metadata.tie_rule
        self._rule = TieRule.SEGMENT_AGE if rule is None else rule

    def serve(self, change: Change) -> Outcome:
        """Serve the request under a change of blocks, of memory or of the cap; other changes are not for this."""
        free = self._limit.device_free_bytes
        driver = self._limit.low_bytes if free is None else self._room.state.reserved_bytes + free
        capacity = (self._limit.low_bytes if change.cap_bytes is None else driver) + change.more_bytes
        total = max(capacity, self._room.state.reserved_bytes)
        if self._limit.total_bytes is not None:
            total = max(total, self._limit.total_bytes)
        arrays = new_arrays(self._config, tie_rule=self._rule, total_bytes=total, is_logged=False)
        pair = (max(self._request.pool_id, 0), self._request.stream)
        if pair not in self._start.pairs:
            self._start.pairs.append(pair)
        arrays, block_of_row = self._start.start(arrays)
        arrays.lanes[:, at.L_IS_RELEASABLE] = arrays.lanes[:, at.L_POOL] == 0
        arrays.config[at.CFG_CAPACITY] = capacity
        arrays.config[at.CFG_LIMIT] = -1 if change.cap_bytes is None else change.cap_bytes
        block_of_row = np.append(block_of_row, NONE_ID)
        requests = self._requests(self._rows(change.freed_rows), pair)
        usage = np.zeros((kernel.N_USAGE, len(requests.op) + 1), np.int64)
        of_row = block_of_row, np.zeros(len(block_of_row), np.int64)
        events = requests.op, requests.row, requests.dropped_pool
        arrays, _, status = serve_events(arrays, requests, events, of_row, usage)
        return Outcome(status != at.STATUS_OOM, None, int(arrays.counters[at.C_RESERVED]))

    def _rows(self, rows: Int64Array | None) -> Int64Array:
        """Rows of the state's own table for rows of the device's, by where they lie."""
        if rows is None or not len(rows):
            return np.empty(0, np.int64)
        state, table = self._room.state, self._start.lifetimes.allocations
        address = state.blocks.address[np.isin(state.allocation_ids, rows)]
        found: Int64Array = np.flatnonzero(np.isin(table.address, address))
        return found

    def _requests(self, freed: Int64Array, pair: tuple[int, int]) -> Requests:
        table = self._start.lifetimes.allocations
        n_rows = len(table)
        pairs = self._start.pairs
        return Requests(
            first_event=0,
            op=np.append(np.full(len(freed), kernel.OP_FREE), kernel.OP_MALLOC),
            row=np.append(freed, n_rows),
            dropped_pool=np.full(len(freed) + 1, NONE_ID),
            requested_bytes=np.append(table.requested_bytes, self._request.rounded_bytes),
            pair=np.append(np.zeros(n_rows, np.int64), pairs.index(pair)),
            pairs=pairs,
            start_rows=frozen_array([], np.int64),
            start_pending=frozen_array([], np.bool_),
            notes=(),
            is_modelled=False,
        )


def _frozen_trace(trace: Trace, room: Room) -> Trace:
    """A trace of no events whose final state is the one at the failure."""
    none: dict[str, Any] = {name: np.empty(0, dtype) for name, dtype in schema.EVENT_COLUMNS.items()}
    return dataclasses.replace(
        trace,
        **none,
        segments=room.state.segments,
        blocks=room.state.blocks,
        samples=SampleTable.empty(),
        marks=MarkTable.empty(),
        owners=OwnerTable.empty(),
    )
