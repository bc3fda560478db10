"""What findings are looked for in: one device with everything that is known about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from memscope.attribution.attribution import Attribution
from memscope.fragmentation.series import FragmentationSeries
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.steps import Steps
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int32Array, Int64Array

UNKNOWN_SITE = "no stack recorded"


@dataclass(frozen=True)
class Subject:
    """One device.

    Attributes
    ----------
    series
        None where the segments were not recorded.
    steps
        None where they are not known.
    site_frame_of_stack
        int32 (stacks,): the user's own frame of each stack, −1 for none.
    """

    lifetimes: DeviceLifetimes
    attribution: Attribution
    series: FragmentationSeries | None
    steps: Steps | None
    site_frame_of_stack: Int32Array

    @property
    def device(self) -> int:
        """Its index."""
        return self.lifetimes.device

    @property
    def has_device_times(self) -> bool:
        """Whether times are those of a program on a GPU, not of a dry run or an emulated device."""
        metadata = self.lifetimes.trace.metadata
        return metadata.source != "dry-run" and not metadata.is_emulated

    @cached_property
    def peak_allocated_bytes(self) -> int:
        """Highest allocated bytes."""
        return int(self.lifetimes.usage.allocated_bytes.max())

    @cached_property
    def died_event(self) -> Int64Array:
        """When the program let go of each allocation: int64 (rows,), the largest int64 for never."""
        table = self.lifetimes.allocations
        died = np.where(table.free_requested_event == NONE_ID, table.free_event, table.free_requested_event)
        return np.where(died == NONE_ID, np.iinfo(np.int64).max, died)

    def site_of_rows(self, rows: Int64Array) -> Int64Array:
        """The frame of the user's line of code of some rows, −1 where no stack was recorded: int64."""
        stack_id = self.lifetimes.allocations.stack_id[rows]
        if not len(self.site_frame_of_stack):
            return np.full(len(rows), NONE_ID, np.int64)
        return np.where(stack_id >= 0, self.site_frame_of_stack[stack_id], NONE_ID).astype(np.int64)

    def site_name(self, frame_id: int) -> str:
        """A line of code as text."""
        return UNKNOWN_SITE if frame_id == NONE_ID else str(self.lifetimes.trace.frame(frame_id))

    def sites_by_bytes(self, rows: Int64Array, size_bytes: Int64Array, limit: int = 3) -> tuple[str, ...]:
        """The lines of code that most of some rows' bytes come from, most first."""
        frames, of_row = np.unique(self.site_of_rows(rows), return_inverse=True)
        total = np.zeros(len(frames), np.int64)
        np.add.at(total, of_row.reshape(-1), size_bytes)
        order = np.argsort(-total, kind="stable")[:limit]
        return tuple(self.site_name(int(frames[i])) for i in order if total[i] > 0)

    def largest(self, rows: Iterable[int] | Int64Array, limit: int = 20) -> tuple[int, ...]:
        """The rows with the largest blocks."""
        chosen = np.asarray(list(rows), np.int64)
        order = np.argsort(-self.lifetimes.allocations.block_bytes[chosen], kind="stable")[:limit]
        return tuple(int(row) for row in chosen[order])
