"""What a finding shows: its largest allocations, and the lines of code that made them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from memscope.device.device import Device
from memscope.trace.tables import Int64Array

UNKNOWN_SITE = "no stack recorded"


def site_name(device: Device, frame_id: int) -> str:
    """A line of code as text, −1 for where no stack was recorded."""
    return device.recording.sites.name_of_frame(frame_id) or UNKNOWN_SITE


def sites_by_bytes(device: Device, rows: Int64Array, size_bytes: Int64Array, limit: int = 3) -> tuple[str, ...]:
    """The lines of code that most of some rows' bytes come from, most first."""
    frames, of_row = np.unique(device.site_frames_of(rows), return_inverse=True)
    total = np.zeros(len(frames), np.int64)
    np.add.at(total, of_row.reshape(-1), size_bytes)
    order = np.argsort(-total, kind="stable")[:limit]
    return tuple(site_name(device, int(frames[i])) for i in order if total[i] > 0)


def largest_rows(device: Device, rows: Iterable[int] | Int64Array, limit: int = 20) -> tuple[int, ...]:
    """The rows with the largest blocks."""
    chosen = np.asarray(list(rows), np.int64)
    order = np.argsort(-device.allocations.block_bytes[chosen], kind="stable")[:limit]
    return tuple(int(row) for row in chosen[order])
