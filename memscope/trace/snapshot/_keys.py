"""The words of torch's snapshots, and what they tell about the torch that wrote one.

Keys and values that the reader looks for have ids on a tape; which keys are there proves the version and its tie rule.
"""

from __future__ import annotations

from memscope.trace.schema import ACTION_BY_NAME, BLOCK_STATE_BY_NAME, TieRule

Keys = frozenset[str]

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


def torch_version(top: Keys, events: Keys, settings: Keys | None, segments: Keys) -> str | None:
    """The versions of torch that write these keys, as far as they tell; None if they do not.

    Source: the keys of the wheels 2.0 to 2.15, see the tests.
    """
    settings = settings or frozenset()
    if "internal_metadata" in events:
        return "2.15+"
    for key, keys, version in (
        ("host_segments", top, "2.14+"),
        ("max_cached_size", settings, "2.13"),
        ("pool_id", events, "2.12"),
        ("user_metadata", events, "2.10–2.11"),
    ):
        if key in keys:
            return version
    if "compile_context" in events:
        return "2.9" if "graph_capture_record_stream_reuse" in settings else "2.8–2.9"
    if "graph_capture_record_stream_reuse" in settings:
        return "2.9–2.12"
    if "time_us" in events:
        return "2.5–2.7" if "external_annotations" in top else "2.3–2.7" if settings else "2.2"
    if events:
        return "2.0–2.1" if "segment_pool_id" in segments or not segments else "2.0"
    if settings:
        return "2.5–2.8" if "external_annotations" in top else "2.3–2.8"
    return None if "segment_pool_id" in segments or not segments else "2.0"


def tie_rule(top: Keys, events: Keys, settings: Keys | None, segments: Keys) -> TieRule | None:
    """Which of several equal free blocks the recorded allocator took, where the keys prove it."""
    if "host_segments" in top or (settings is not None and "max_cached_size" in settings):
        return TieRule.SEGMENT_AGE
    if "pool_id" in events:
        return None if settings is None else TieRule.BLOCK_AGE
    if events:
        return TieRule.ADDRESS
    if settings is not None and "graph_capture_record_stream_reuse" not in settings:
        return TieRule.ADDRESS
    if segments and "segment_pool_id" not in segments:
        return TieRule.ADDRESS
    return None
