"""Fixed pages mapped on demand behind contiguous ranges, as vAttention does."""

from __future__ import annotations

from memscope._core import models
from memscope.errors import UsageError
from memscope.replay.models.model import NO_LIMIT, Model, mapping_calls
from memscope.replay.result import DriverCalls
from memscope.units import MiB


def new_paged(
    capacity_bytes: int = NO_LIMIT,
    is_logged: bool = False,
    *,
    page_bytes: int = 2 * MiB,
    large_from_bytes: int = 2 * MiB,
    alignment_bytes: int = 512,
    keeps_ranges: int = 0,
) -> models.Paged:
    """Pages as vAttention maps them, for every request.

    Parameters
    ----------
    capacity_bytes, is_logged
        What the driver can give out, −1 for no limit; whether what it does is logged.
    page_bytes
        Size of a physical page; 2 MiB is the least that ``cuMemCreate`` makes.
    large_from_bytes
        Requests of at least that many bytes, or of a page, get a range of their own.
    alignment_bytes
        What small requests are rounded to, as PyTorch does.
    keeps_ranges
        1 to leave freed ranges mapped for requests of as many pages on the same stream, until pages run short.

    Raises
    ------
    UsageError
        If a size is not positive, or a page is not a multiple of the alignment.
    """
    if min(page_bytes, large_from_bytes, alignment_bytes) <= 0 or page_bytes % alignment_bytes:
        raise UsageError(
            f"paged: pages of {page_bytes} bytes do not hold requests in steps of {alignment_bytes}: "
            "sizes must be positive, and a page a multiple of the alignment"
        )
    return models.Paged(
        capacity_bytes,
        is_logged,
        page_bytes=page_bytes,
        large_from_bytes=large_from_bytes,
        alignment_bytes=alignment_bytes,
        keeps_ranges=bool(keeps_ranges),
    )


def _paged_calls(allocator: models.Paged) -> DriverCalls:
    stats = allocator.stats
    return DriverCalls(mapping_calls(stats, stats.n_device_allocs, stats.n_device_frees))


PAGED = Model(
    name="paged",
    summary="fixed pages mapped on demand behind contiguous ranges",
    source="vAttention (arXiv 2405.04437): physical pages mapped on demand, here for every request",
    notes=(
        "paged: requests of a page or more are mapped on their own and unmapped when freed, smaller ones share pages",
        "paged: free pages serve every stream, and waits of the unmapping for running kernels are not modelled",
    ),
    new_allocator=new_paged,
    calls=_paged_calls,
)
