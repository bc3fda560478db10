"""A device's own count over its run, reduced to what a picture can show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.analysis import Analysis
from memscope.attribution.device_count import (
    NON_PYTORCH,
    OTHER_PROCESSES,
    PYTORCH_RESERVED,
    UNEXPLAINED,
    DeviceSamples,
    device_samples,
)
from memscope.figures.reduction import extreme_indices
from memscope.figures.timeline_data import has_times, index_window, x_of_events
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array


@dataclass(frozen=True, slots=True)
class DeviceSeries:
    """What a device said, at some of its samples.

    Attributes
    ----------
    x
        float64 (m,): where each sample stands on the horizontal axis, never falling.
    used_bytes, process_bytes
        int64 (m,): of the whole device and of the recorded process; −1 is "not measured".
    band_x
        float64 (k,): the same for those samples that can be set against what was reserved.
    bands
        Row of the device's count → int64 (k,) bytes, in stacking order; at each sample they sum to
        what it said is used.
    span
        First and last place of all samples, also of those outside the visible range; None without samples.
    """

    x: np.ndarray
    used_bytes: Int64Array
    process_bytes: Int64Array
    band_x: np.ndarray
    bands: dict[str, Int64Array]
    span: tuple[float, float] | None

    @property
    def highest_bytes(self) -> int:
        """The highest that was measured, 0 if nothing was."""
        return max(int(self.used_bytes.max(initial=0)), int(self.process_bytes.max(initial=0)), 0)


def device_series(
    analysis: Analysis,
    device: int,
    *,
    axis: str = "event",
    window: tuple[float, float] | None = None,
    n_buckets: int = 240,
) -> DeviceSeries:
    """Reduce a device's samples to about ``5 · n_buckets``, or fewer.

    Parameters
    ----------
    window
        Visible range of the axis, in its own unit; None is everything.
    """
    samples, is_usable = device_samples(analysis.device(device))
    x = x_of_samples(analysis, device, samples, axis)
    chosen = np.arange(len(x), dtype=np.int64)
    if len(x):
        begin, end = index_window(x, window)
        chosen = extreme_indices([samples.used_bytes, samples.process_bytes], begin, end, n_buckets)
    stacked = chosen[is_usable[chosen]]
    return DeviceSeries(
        x=x[chosen],
        used_bytes=samples.used_bytes[chosen],
        process_bytes=samples.process_bytes[chosen],
        band_x=x[stacked],
        bands=_bands(samples.take(stacked)),
        span=(float(x[0]), float(x[-1])) if len(x) else None,
    )


def x_of_samples(analysis: Analysis, device: int, samples: DeviceSamples, axis: str) -> np.ndarray:
    """Horizontal position of each sample: float64 (n,), on the clock of the events or at the event before it.

    On the clock a sample may lie before the first event, below 0, or after the last.
    """
    places = x_of_events(analysis, device, axis)[samples.moment]
    if axis == "time" and has_times(analysis, device):
        start_ns = int(analysis.trace.time_ns[analysis.device(device).first_event])
        seconds = (samples.time_ns - start_ns) / 1e9
        places = np.where(samples.time_ns == NONE_ID, places, seconds)
    rising: np.ndarray = np.maximum.accumulate(places) if len(places) else places
    return rising


def _bands(samples: DeviceSamples) -> dict[str, Int64Array]:
    """The rows of each usable sample; what was not measured is 0 wide, and its bytes are unexplained."""
    reserved = samples.reserved_bytes
    non_pytorch = np.where(samples.process_bytes == NONE_ID, 0, samples.process_bytes - reserved)
    others = np.maximum(samples.others_bytes, 0)
    return {
        PYTORCH_RESERVED: reserved,
        NON_PYTORCH: non_pytorch,
        OTHER_PROCESSES: others,
        UNEXPLAINED: samples.used_bytes - reserved - non_pytorch - others,
    }
