"""A device's fragmentation over events, reduced to what a picture can show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.analysis import Analysis
from memscope.attribution.ledger import FREE_PINNED, FREE_PRIVATE_POOLS, FREE_RELEASABLE
from memscope.figures.reduction import extreme_indices
from memscope.figures.timeline_data import index_window, x_of_events
from memscope.trace.tables import Int64Array

ACTIVE = "active"
"""Name of the layer of blocks in use or pending."""

_MAX_OOMS = 300


@dataclass(frozen=True, slots=True)
class FragmentationData:
    """Step functions drawn at the same points: each holds until the next one.

    Attributes
    ----------
    event
        int64 (m,): the event after which each point stands, −1 for the start; the last may repeat the one before it,
        where the device's events end.
    x
        float64 (m,): the same as drawn.
    layers
        Name → int64 (m,) bytes, in stacking order: active, then the ledger's rows of free memory. They sum to
        ``reserved_bytes``.
    cached_request_bytes
        int64 (m,): the largest request that would succeed without the driver.
    request_bytes
        int64 (m,): the same with the driver; None where the device's memory is not known.
    oom_x, oom_bytes
        Where requests failed, and what was reserved then: float64 and int64 (k,).
    """

    event: Int64Array
    x: np.ndarray
    layers: dict[str, Int64Array]
    reserved_bytes: Int64Array
    cached_request_bytes: Int64Array
    request_bytes: Int64Array | None
    oom_x: np.ndarray
    oom_bytes: Int64Array


def fragmentation_data(
    analysis: Analysis,
    device: int,
    *,
    axis: str = "event",
    window: tuple[float, float] | None = None,
    n_buckets: int = 240,
) -> FragmentationData | None:
    """Reduce a device's fragmentation to about ``9 · n_buckets`` points, or fewer; None where it was not measured.

    The peaks and troughs of what is reserved, active, pinned, and of the largest request are kept.

    Parameters
    ----------
    window
        Visible range of the axis, in its own unit; None is everything.
    """
    series = analysis.fragmentation_series(device)
    if series is None:
        return None
    table, available = series.overall, analysis.available_bytes(device)
    x = x_of_events(analysis, device, axis)
    row_x = x[np.maximum(table.event - series.first_event + 1, 0)]
    private = series.free_in_private_pools_bytes()
    pinned = table.free_in_split_segments_bytes - private
    cached = series.largest_cached_request_bytes()
    begin, end = index_window(row_x, window)
    guides = [table.reserved_bytes, table.active_bytes, pinned, cached]
    chosen = extreme_indices(guides, begin, end, n_buckets)
    drawn_x, event = row_x[chosen], table.event[chosen]
    if end == len(table):
        chosen, drawn_x = np.append(chosen, chosen[-1]), np.append(drawn_x, x[-1])
        event = np.append(event, max(series.end_event - 1, event[-1]))
    ooms = analysis.oom_events(device)
    ooms = ooms[np.unique(np.linspace(0, len(ooms) - 1, _MAX_OOMS).astype(np.int64))] if len(ooms) else ooms
    return FragmentationData(
        event=event,
        x=drawn_x,
        layers={
            ACTIVE: table.active_bytes[chosen],
            FREE_PINNED: pinned[chosen],
            FREE_PRIVATE_POOLS: private[chosen],
            FREE_RELEASABLE: table.releasable_bytes[chosen],
        },
        reserved_bytes=table.reserved_bytes[chosen],
        cached_request_bytes=cached[chosen],
        request_bytes=None if available is None else series.largest_request_bytes(available)[chosen],
        oom_x=x[ooms - series.first_event + 1],
        oom_bytes=table.reserved_bytes[np.searchsorted(table.event, ooms, side="right") - 1],
    )
