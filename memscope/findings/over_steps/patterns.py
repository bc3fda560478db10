"""What each place in the program leaves behind at the end of every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.device.device import Device
from memscope.lifetimes.steps import Steps
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, rank_rows


@dataclass(frozen=True, slots=True)
class Patterns:
    """Allocation patterns: one for each stack; where no stack was recorded, one for each size and stream.

    Only patterns of which something outlives a step are here.

    Attributes
    ----------
    of_row
        int64 (rows,): pattern of each allocation, −1 for none.
    live_bytes, n_live, requested_bytes
        int64 (patterns, steps): block bytes, number and requested bytes of its allocations that are live after each
        step.
    n_born
        int64 (patterns, steps): allocations made in each step.
    """

    of_row: Int64Array
    live_bytes: Int64Array
    n_live: Int64Array
    requested_bytes: Int64Array
    n_born: Int64Array

    def __len__(self) -> int:
        return len(self.live_bytes)

    def live_rows(self, pattern: int, device: Device, event: int) -> Int64Array:
        """Rows of a pattern that the program holds after an event, in order of allocation."""
        table = device.allocations
        live = (self.of_row == pattern) & (table.alloc_event <= event) & (device.died_event > event)
        return np.flatnonzero(live)


def find_patterns(device: Device, steps: Steps) -> Patterns:
    """Sort a device's allocations by pattern and count them at the end of each step. O(n log n) in the allocations."""
    table, n_steps = device.allocations, len(steps)
    # The first step after which an allocation exists, and the first after which it is gone.
    appears = np.searchsorted(steps.end, table.alloc_event, side="right")
    gone = np.searchsorted(steps.end, device.died_event, side="right")
    outlives = appears < gone
    pattern = _pattern_of_row(device)
    kept, dense = np.unique(pattern[outlives], return_inverse=True)
    position = np.searchsorted(kept, pattern)
    position = np.minimum(position, max(len(kept) - 1, 0))
    known = kept[position] == pattern if len(kept) else np.zeros(len(pattern), np.bool_)
    of_row = np.where(known, position, NONE_ID)
    live, n_live, requested, born = (np.zeros((len(kept), n_steps + 1), np.int64) for _ in range(4))
    dense = dense.reshape(-1)
    for sign, step in ((1, appears[outlives]), (-1, gone[outlives])):
        np.add.at(live, (dense, step), sign * table.block_bytes[outlives])
        np.add.at(n_live, (dense, step), sign)
        np.add.at(requested, (dense, step), sign * table.requested_bytes[outlives])
    step_of = steps.step_of(table.alloc_event)
    inside = (of_row >= 0) & (step_of >= 0)
    np.add.at(born, (of_row[inside], step_of[inside]), 1)
    return Patterns(
        of_row=of_row,
        live_bytes=np.cumsum(live, axis=1)[:, :n_steps],
        n_live=np.cumsum(n_live, axis=1)[:, :n_steps],
        requested_bytes=np.cumsum(requested, axis=1)[:, :n_steps],
        n_born=born[:, :n_steps],
    )


def _pattern_of_row(device: Device) -> Int64Array:
    """A number for each row, equal for rows of one pattern: int64 (rows,)."""
    table = device.allocations
    pattern = table.stack_id.astype(np.int64)
    bare = np.flatnonzero(pattern == NONE_ID)
    pattern[bare] = len(device.trace.stacks) + rank_rows(table.requested_bytes[bare], table.stream_id[bare])
    return pattern
