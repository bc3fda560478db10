"""A device's segments before its first event, and every event that changes them: the browser follows them anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from memscope.device.device import Device
from memscope.figures.address_map import map_scale
from memscope.lifetimes.rules import large_segment_bytes
from memscope.trace.schema import Action
from memscope.words.labels import pool_label, stream_label
from memscope_dashboard.canvas.packed import halves, packed


def packed_segments(device: Device) -> bytes:
    """The answer (:mod:`memscope_dashboard.canvas.packed`): ranges, changes, and the group of each key.

    Addresses are as the allocations have them. A change takes memory where ``takes`` is 1, and gives it back where it
    is 0. What has the same key and touches is one segment; keys of one group are drawn together, so many bytes a row.
    """
    trace = device.trace
    timeline = device.lifetimes.timeline
    groups, group_of_key = _groups(device, timeline.key_pool_id, timeline.key_stream_id, timeline.key_is_large)
    takes = np.isin(timeline.action, (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP))
    header: dict[str, Any] = {
        "groups": groups,
        "handle_bytes": large_segment_bytes(trace.metadata.alloc_conf),
        "is_known": device.lifetimes.segments_are_known or bool(len(trace.segments)),
    }
    columns = {
        **halves("start_address", trace.real_addresses(timeline.start_address)),
        **halves("start_size", timeline.start_end - timeline.start_address),
        "start_key": timeline.start_key.astype(np.uint32),
        "moment": (timeline.event - device.lifetimes.first_event + 1).astype(np.uint32),
        "takes": takes.astype(np.uint8),
        **halves("address", trace.real_addresses(timeline.address)),
        **halves("size", timeline.size_bytes),
        "key": timeline.key.astype(np.uint32),
        "group": group_of_key.astype(np.uint32),
        "is_expandable": timeline.key_is_expandable.astype(np.uint8),
    }
    return packed(header, columns)


def _groups(
    device: Device, pool_id: np.ndarray, stream_id: np.ndarray, is_large: np.ndarray
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Names and row widths of the groups, large before small and the default pool first; and each key's group."""
    trace, widths = device.trace, map_scale(device)
    keys = np.stack([pool_id, stream_id, ~is_large], axis=1).astype(np.int64).reshape(-1, 3)
    distinct, group_of_key = np.unique(keys, axis=0, return_inverse=True)
    groups = []
    for pool, stream, is_small in distinct.tolist():
        pair = None if pool < 0 else (int(trace.pools[pool, 0]), int(trace.pools[pool, 1]))
        handle = None if stream < 0 else int(trace.stream_handles[stream])
        size = "small" if is_small else "large"
        groups.append(
            {
                "name": f"{pool_label(pair)}, {stream_label(handle)}, {size}",
                "is_private": pool > 0,
                "is_large": not is_small,
                "row_bytes": widths.get((pool, stream, not is_small)),
            }
        )
    return groups, group_of_key.reshape(-1)
