"""TensorFlow's and XLA's allocator: best fit with coalescing, in regions that double."""

from __future__ import annotations

from memscope._core import models
from memscope.replay.models.model import NO_LIMIT, Model, check_powers, check_sizes, check_switches, mallocs_and_frees
from memscope.units import MiB


def new_bfc(
    capacity_bytes: int = NO_LIMIT,
    is_logged: bool = False,
    *,
    alignment_bytes: int = 256,
    first_region_bytes: int = 2 * MiB,
    max_internal_fragmentation_bytes: int = 128 * MiB,
    collects_regions: int = 1,
) -> models.Bfc:
    """TensorFlow's defaults with ``allow_growth``.

    Parameters
    ----------
    capacity_bytes, is_logged
        What the driver can give out, −1 for no limit; whether what it does is logged.
    alignment_bytes
        What sizes are rounded up to.
    first_region_bytes
        What is first asked of the driver; every further region is twice as large, or as large as a request needs.
    max_internal_fragmentation_bytes
        A block is given whole where less than this, and less than half of it, would be left.
    collects_regions
        1 if unused regions go back to the driver before a request fails.

    Raises
    ------
    UsageError
        If one of them makes no sense.
    """
    check_powers(alignment_bytes=alignment_bytes)
    check_sizes(
        first_region_bytes=first_region_bytes, max_internal_fragmentation_bytes=max_internal_fragmentation_bytes
    )
    check_switches(collects_regions=collects_regions)
    return models.Bfc(
        capacity_bytes,
        is_logged,
        alignment_bytes=alignment_bytes,
        first_region_bytes=first_region_bytes,
        max_internal_fragmentation_bytes=max_internal_fragmentation_bytes,
        collects_regions=bool(collects_regions),
    )


BFC = Model(
    name="bfc",
    summary="best fit with coalescing in regions that double",
    source="TensorFlow and XLA, BFCAllocator with allow_growth",
    notes=(
        "bfc: one allocator serves all streams, and memory freed on one is reused on another without waiting",
        "bfc: the memory of the device is its only limit; without one its regions double freely",
        "bfc: an emptied cache gives unused regions back, and the next region is as large as what is left",
    ),
    new_allocator=new_bfc,
    calls=mallocs_and_frees,
)
