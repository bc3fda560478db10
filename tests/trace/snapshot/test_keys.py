"""What the keys of a snapshot tell about the torch that wrote it."""

import pytest

from memscope.trace.schema import TieRule
from memscope.trace.snapshot._keys import KNOWN_TEXTS, TEXT_ID, tie_rule, torch_version

TOP = frozenset({"segments", "device_traces"})
EVENT = frozenset({"action", "addr", "size", "stream"})
SEGMENT = frozenset({"address", "total_size", "segment_pool_id"})
CONF = frozenset({"PYTORCH_CUDA_ALLOC_CONF", "max_split_size"})
REUSE = CONF | {"graph_capture_record_stream_reuse"}
CACHED = REUSE | {"max_cached_size"}
TIMED = EVENT | {"time_us"}
COMPILED = TIMED | {"compile_context"}
LABELLED = COMPILED | {"user_metadata"}
POOLED = LABELLED | {"pool_id"}


@pytest.mark.parametrize(
    ("top", "events", "settings", "segments", "version", "rule"),
    [
        (TOP, EVENT, None, SEGMENT - {"segment_pool_id"}, "2.0", TieRule.ADDRESS),
        (TOP, EVENT, None, SEGMENT, "2.0–2.1", TieRule.ADDRESS),
        (TOP, TIMED, None, SEGMENT, "2.2", TieRule.ADDRESS),
        (TOP, TIMED, CONF, SEGMENT, "2.3–2.7", TieRule.ADDRESS),
        (TOP | {"external_annotations"}, TIMED, CONF, SEGMENT, "2.5–2.7", TieRule.ADDRESS),
        (TOP, COMPILED, CONF, SEGMENT, "2.8–2.9", TieRule.ADDRESS),
        (TOP, COMPILED, REUSE, SEGMENT, "2.9", TieRule.ADDRESS),
        (TOP, LABELLED, REUSE, SEGMENT, "2.10–2.11", TieRule.ADDRESS),
        (TOP, POOLED, REUSE, SEGMENT, "2.12", TieRule.BLOCK_AGE),
        (TOP, POOLED, None, SEGMENT, "2.12", None),
        (TOP, POOLED, CACHED, SEGMENT, "2.13", TieRule.SEGMENT_AGE),
        (TOP | {"host_segments"}, POOLED, CACHED, SEGMENT, "2.14+", TieRule.SEGMENT_AGE),
        (TOP | {"host_segments"}, POOLED | {"internal_metadata"}, CACHED, SEGMENT, "2.15+", TieRule.SEGMENT_AGE),
        # No events: only the settings can prove anything.
        (TOP, frozenset(), CACHED, SEGMENT, "2.13", TieRule.SEGMENT_AGE),
        (TOP, frozenset(), REUSE, SEGMENT, "2.9–2.12", None),
        (TOP, frozenset(), CONF, SEGMENT, "2.3–2.8", TieRule.ADDRESS),
        (frozenset({"segments"}), frozenset(), None, SEGMENT, None, None),
        (frozenset({"segments"}), frozenset(), None, SEGMENT - {"segment_pool_id"}, "2.0", TieRule.ADDRESS),
        (TOP, frozenset(), None, frozenset(), None, None),
    ],
)
def test_keys_tell_the_version_and_the_tie_rule(
    top: frozenset[str],
    events: frozenset[str],
    settings: frozenset[str] | None,
    segments: frozenset[str],
    version: str | None,
    rule: TieRule | None,
) -> None:
    assert torch_version(top, events, settings, segments) == version
    assert tie_rule(top, events, settings, segments) == rule


def test_every_word_that_is_looked_for_has_an_id_of_its_own() -> None:
    assert [KNOWN_TEXTS[TEXT_ID[text]] for text in KNOWN_TEXTS] == list(KNOWN_TEXTS)
    assert TEXT_ID[""] == 0  # an empty label is no label
