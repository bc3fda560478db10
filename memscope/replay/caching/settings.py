"""The compiled allocator, made from settings and limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memscope._core import caching
from memscope.device.limits import NO_LIMITS, Limits
from memscope.errors import UsageError
from memscope.replay.config import DEFAULT_TIE_RULE, CachingAllocatorConfig
from memscope.trace.schema import TieRule
from memscope.units import MiB, TiB

_UNKNOWN_RESERVATION_BYTES = 16 * TiB
_NO_LIMIT = -1


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


def new_allocator(
    config: CachingAllocatorConfig,
    limits: Limits = NO_LIMITS,
    *,
    tie_rule: TieRule = DEFAULT_TIE_RULE,
    address_rule: AddressRule | None = None,
    is_logged: bool = False,
) -> caching.DeviceCachingAllocator:
    """An allocator that holds nothing, and has no pools yet.

    Raises
    ------
    UsageError
        If the settings are not covered by the simulator, or need a device size that is not given.
    """
    _refuse_uncovered(config, limits)
    left, cap = limits.left_bytes, limits.cap_bytes(config.memory_fraction)
    place = AddressRule() if address_rule is None else address_rule
    collects = cap is not None and config.gc_threshold_frac > 0
    return caching.DeviceCachingAllocator(
        tie_rule=int(tie_rule),
        capacity_bytes=_NO_LIMIT if left is None else left,
        base=place.base,
        gap_bytes=place.gap_bytes,
        is_logged=is_logged,
        roundup_divisions=config.roundup_divisions,
        max_split_bytes=config.max_split_bytes,
        max_non_split_rounding_bytes=config.max_non_split_rounding_bytes,
        large_segment_bytes=config.large_segment_bytes,
        is_expandable=config.is_expandable,
        allowed_bytes=cap,
        garbage_collection_bytes=int(config.gc_threshold_frac * (cap or 0)) if collects else None,
        rejection_bytes=limits.total_bytes if config.throws_on_malloc_oom else None,
        reservation_bytes=_reservation_bytes(config, limits.total_bytes),
        reservation_alignment_bytes=place.reservation_alignment_bytes,
        reservation_gap_bytes=place.reservation_gap_bytes,
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
    return max(min(wanted, most), caching.SMALL_SEGMENT_BYTES)


def add_pairs(
    allocator: caching.BlockAllocator, pairs: Iterable[tuple[int, int]], *, is_releasable: bool = False
) -> None:
    """Give an allocator pools for (dense pool id, stream handle) pairs; private ones may not be releasable."""
    for pool, stream in pairs:
        allocator.add_pair(pool, stream, is_releasable)
