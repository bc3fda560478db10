"""The words of torch's snapshots: keys and values that the reader looks for, by the ids they have on a tape."""

from __future__ import annotations

from memscope.trace.schema import ACTION_BY_NAME, BLOCK_STATE_BY_NAME

SNAPSHOT_KEYS = (
    "segments",
    "device_traces",
    "allocator_settings",
    "external_annotations",
    "host_segments",
    "host_traces",
)
EVENT_KEYS = (
    "action",
    "addr",
    "device_free",
    "size",
    "stream",
    "time_us",
    "user_metadata",
    "pool_id",
    "frames",
)
EVENT_SEEN_KEYS = ("compile_context", "internal_metadata")
SEGMENT_KEYS = (
    "device",
    "address",
    "total_size",
    "allocated_size",
    "active_size",
    "requested_size",
    "stream",
    "segment_type",
    "segment_pool_id",
    "is_expandable",
    "frames",
    "blocks",
)
BLOCK_KEYS = ("address", "size", "requested_size", "state", "frames", "history")
HISTORY_KEYS = ("real_size", "frames")
FRAME_KEYS = ("name", "filename", "line")
ANNOTATION_KEYS = ("stage", "name", "device", "time_us")

SEGMENT_TYPES = ("small", "large")
STAGES = ("START", "END")

KNOWN_TEXTS: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            "",
            *SNAPSHOT_KEYS,
            *EVENT_KEYS,
            *EVENT_SEEN_KEYS,
            *SEGMENT_KEYS,
            *BLOCK_KEYS,
            *HISTORY_KEYS,
            *FRAME_KEYS,
            *ANNOTATION_KEYS,
            *SEGMENT_TYPES,
            *STAGES,
            *ACTION_BY_NAME,
            *BLOCK_STATE_BY_NAME,
        )
    )
)
TEXT_ID = {text: i for i, text in enumerate(KNOWN_TEXTS)}
