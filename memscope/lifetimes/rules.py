"""The rules by which a recording's allocator sized and split blocks."""

from __future__ import annotations

from dataclasses import dataclass

from memscope._core import caching
from memscope.trace.metadata import TraceMetadata
from memscope.trace.tables import Int64Array


@dataclass(frozen=True, slots=True)
class CachingRules:
    """The options of PyTorch's caching allocator that decide sizes.

    Attributes
    ----------
    roundup_divisions
        Power-of-two divisions by interval of sizes, 0 for none.
    max_split_bytes
        Blocks of this size and more are never split; ``UNLIMITED`` of :mod:`memscope._core.caching` for no limit.
    large_segment_bytes
        Segment size for rounded requests between 1 and 10 MiB.
    is_expandable
        Whether expandable segments are in force.
    """

    roundup_divisions: tuple[int, ...]
    max_split_bytes: int
    large_segment_bytes: int
    is_expandable: bool

    def round_size(self, requested_bytes: int) -> int:
        """Rounded size of a request."""
        return caching.round_size(requested_bytes, self.roundup_divisions)

    def round_sizes(self, requested_bytes: Int64Array) -> Int64Array:
        """Rounded sizes of requests: int64 (n,) to int64 (n,)."""
        return caching.round_sizes(requested_bytes, self.roundup_divisions)

    def should_split(self, block_bytes: int, rounded_bytes: int) -> bool:
        """Whether a free block is split for a rounded request, or handed out whole."""
        return caching.should_split(block_bytes, rounded_bytes, self.max_split_bytes, self.is_expandable)


def rules_of(metadata: TraceMetadata) -> CachingRules:
    """The size rules that a trace was recorded under; what it does not say is torch's default."""
    settings = metadata.allocator_settings
    table = settings.get("roundup_power2_divisions") or {}
    max_split = int(settings.get("max_split_size", -1))
    return CachingRules(
        roundup_divisions=tuple(int(table.get(str(1 << i), 0)) for i in range(caching.N_ROUNDUP_INTERVALS)),
        max_split_bytes=max_split if max_split > 0 else caching.UNLIMITED,
        large_segment_bytes=large_segment_bytes(metadata.alloc_conf),
        is_expandable=bool(settings.get("expandable_segments", False)),
    )


def large_segment_bytes(alloc_conf: str | None) -> int:
    """``large_segment_size_mb``, also the handle of large expandable segments; only the configuration string has it."""
    for option in (alloc_conf or "").split(","):
        name, _, value = option.partition(":")
        if name.strip() == "large_segment_size_mb" and value.strip().isdecimal() and len(value.strip()) <= 6:
            return int(value) << 20
    return caching.LARGE_SEGMENT_BYTES
