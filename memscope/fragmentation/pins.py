"""Pins: live blocks that keep a segment, and the free memory in it, from going back to the driver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.state import AllocatorState
from memscope.trace.schema import BlockState


@dataclass(frozen=True, slots=True)
class Pin:
    """One segment held by few live bytes.

    Attributes
    ----------
    segment_address, segment_bytes
        The segment.
    held_bytes
        Free bytes in it that cannot go back while it is pinned.
    pinning_bytes
        Bytes of its live blocks.
    allocation_ids
        Rows of the live blocks, largest first.
    """

    segment_address: int
    segment_bytes: int
    held_bytes: int
    pinning_bytes: int
    allocation_ids: tuple[int, ...]


def find_pins(state: AllocatorState, limit: int = 20) -> tuple[Pin, ...]:
    """The segments that hold most free bytes hostage, most first.

    Expandable segments release by handle and are left out.
    """
    blocks, segments = state.blocks, state.segments
    free = blocks.state == BlockState.INACTIVE
    free_bytes = np.zeros(len(segments), np.int64)
    np.add.at(free_bytes, blocks.segment_id[free], blocks.size_bytes[free])
    held = np.where((free_bytes < segments.size_bytes) & ~segments.is_expandable, free_bytes, 0)
    chosen = np.argsort(-held, kind="stable")[:limit]
    pins = []
    for segment in chosen[held[chosen] > 0]:
        live = np.flatnonzero((blocks.segment_id == segment) & ~free)
        live = live[np.argsort(-blocks.size_bytes[live], kind="stable")]
        pins.append(
            Pin(
                segment_address=int(segments.address[segment]),
                segment_bytes=int(segments.size_bytes[segment]),
                held_bytes=int(held[segment]),
                pinning_bytes=int(blocks.size_bytes[live].sum()),
                allocation_ids=tuple(int(row) for row in state.allocation_ids[live]),
            )
        )
    return tuple(pins)
