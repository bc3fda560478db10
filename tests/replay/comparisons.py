"""Comparisons with chosen peaks, for what follows from them."""

from __future__ import annotations

import numpy as np

from memscope.device.limits import Limits
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.compare import Comparison, RecordedRun
from memscope.replay.result import Exactness, ReplayOom, ReplayResult
from memscope.units import GiB

OTHER = "max_split_size_mb:64"
"""Settings that nothing was recorded under."""

FAILED = ReplayOom(event=7, requested_bytes=2 * GiB, free_bytes=1 * GiB)


def result_of(
    conf: str | None,
    peak_bytes: int,
    *,
    strategy: str = "caching",
    exactness: Exactness = "exact",
    oom: ReplayOom | None = None,
) -> ReplayResult:
    """A replay that reserved so much at its peak, and used half of it."""
    peaks = np.array([0, peak_bytes], np.int64)
    return ReplayResult(
        strategy=strategy,
        device=0,
        conf=conf,
        exactness=exactness,
        usage=UsageSeries(0, peaks // 2, peaks // 2, peaks // 2, peaks),
        peak_reserved_bytes=peak_bytes,
        peak_active_bytes=peak_bytes // 2,
        n_device_allocs=3,
        n_device_frees=0,
        n_retries=0,
        oom=oom,
    )


def bound_of(peak_bytes: int) -> ReplayResult:
    """A lower bound."""
    return result_of(None, peak_bytes, strategy="lower-bound", exactness="bound")


UNKNOWN = Limits(None, 0, source="not known")


def comparison_of(
    recorded_bytes: int | None, *results: ReplayResult, conf: str | None = "", limits: Limits = UNKNOWN
) -> Comparison:
    """A recording that reserved so much under ``conf``, beside replays."""
    run = RecordedRun(conf, recorded_bytes, 4 * GiB, n_device_allocs=3, n_device_frees=0, n_ooms=0)
    return Comparison(0, run, limits, results)
