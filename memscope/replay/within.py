"""Whether requests can be served within so much memory: the one rule of every surface for what fits."""

from __future__ import annotations

from dataclasses import dataclass

from memscope.device.limits import Limits
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.engine import replay_caching
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.requests import Requests


@dataclass(frozen=True, slots=True)
class Within:
    """Whether every request is served, and how often cached memory must be given back for that."""

    fits: bool
    n_retries: int = 0


def served_within(
    lifetimes: DeviceLifetimes,
    capacity_bytes: int,
    allocated_bytes: int,
    reserved_bytes: int,
    *,
    config: CachingAllocatorConfig | None = None,
    requests: Requests | None = None,
) -> Within:
    """Serve requests within a capacity, where their peaks do not say whether that is possible.

    Parameters
    ----------
    allocated_bytes, reserved_bytes
        Their peaks without a limit.
    config, requests
        Other settings, and other requests, than the recorded ones.
    """
    if reserved_bytes <= capacity_bytes:
        return Within(True)
    if allocated_bytes > capacity_bytes:
        return Within(False)
    limits = Limits(total_bytes=capacity_bytes, reserved_by_others_bytes=0)
    served = replay_caching(lifetimes, config, limits, keeps_usage=False, requests=requests)
    return Within(served.oom is None, served.n_retries or 0)
