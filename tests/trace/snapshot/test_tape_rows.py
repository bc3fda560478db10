"""Tables of dicts on a tape: what is missing or of the wrong type is named with its place."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import InputFileError, MemscopeError
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.validate import contradictions
from tests.properties import examples
from tests.trace.snapshot.snapshots import block, changed, event, segment, small, write


def test_lists_may_stand_for_tuples(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["segments"][0]["segment_pool_id"] = [0, 3]
    for entry in snapshot["device_traces"][0]:
        entry["pool_id"] = [0, 3]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.pools.tolist() == [[0, 0], [0, 3]]
    assert trace.segments.pool_id.tolist() == [1]
    assert trace.pool_id.tolist() == [1] * 5


def test_streams_keep_all_64_bits_and_the_default_one_comes_first(tmp_path: Path) -> None:
    snapshot = small()
    handles = [2**64 - 16, 0x55AA00, 2**63, 0, 0]
    for entry, handle in zip(snapshot["device_traces"][0], handles, strict=True):
        entry["stream"] = handle
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.stream_handles[0] == 0
    assert [handle % 2**64 for handle in trace.stream_handles[trace.stream_id].tolist()] == handles


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("segments",), 3, "'segments' is not a list"),
        (("segments",), [3], "segments[0] is not a dict"),
        (("segments", 0, "blocks"), 3, "segments[0]: 'blocks' is not a list"),
        (("segments", 0, "blocks"), ..., "segments[0]: no 'blocks'"),
        (("segments", 0, "address"), ..., "segments[0]: no 'address'"),
        (("segments", 0, "total_size"), "x", "segments[0]: 'total_size' is not an integer"),
        (("segments", 0, "total_size"), 2**70, "segments[0]: 'total_size' is a number beyond 64 bits"),
        (("segments", 0, "segment_type"), "huge", "'segment_type' is neither small nor large"),
        (("segments", 0, "is_expandable"), "no", "'is_expandable' is neither True nor False"),
        (("segments", 0, "segment_pool_id"), (1, 2, 3), "'segment_pool_id' is not a pair of integers"),
        (("segments", 0, "segment_pool_id"), ("a", 2), "'segment_pool_id' is not a pair of integers"),
        (("segments", 0, "segment_pool_id"), 5, "'segment_pool_id' is not a pair of integers"),
        (("segments", 0, "device"), -1, "'device' -1 is no device index"),
        (("segments", 0, "frames"), 5, "'frames' in it is not a list"),
        (("segments", 0, "frames"), {}, "'frames' in it is not a list"),
        (("segments", 0, "frames"), [5], "not a frame"),
        (("segments", 0, "frames"), [[5]], "a frame of a stack is not a dict"),
        (("segments", 0, "frames"), [{"name": "x"}], "a frame of a stack: no 'filename'"),
        (("segments", 0, "blocks", 1), None, "segments[0]['blocks'][1] is not a dict"),
        (("segments", 0, "blocks", 1, "size"), ..., "segments[0]['blocks'][1]: no 'size'"),
        (("segments", 0, "blocks", 1, "state"), "asleep", "segments[0]['blocks'][1]: unknown block state 'asleep'"),
        (("segments", 0, "blocks", 1, "history"), 5, "segments[0]['blocks'][1]: 'history' is not a list"),
        (("segments", 0, "blocks", 1, "history"), [5], "is not a dict"),
        (("device_traces",), {}, "'device_traces' is not a list"),
        (("device_traces",), [5], "device_traces[0] is not a list of events"),
        (("device_traces",), [[], [5]], "device_traces[1][0] is not a dict"),
        (("device_traces", 0, 2, "size"), ..., "device_traces[0][2]: no 'size'"),
        (("device_traces", 0, 2, "addr"), ..., "device_traces[0][2]: no 'addr'"),
        (("device_traces", 0, 2, "addr"), None, "device_traces[0][2]: no 'addr'"),
        (("device_traces", 0, 2, "action"), ..., "device_traces[0][2]: no 'action'"),
        (("device_traces", 0, 2, "action"), 3, "device_traces[0][2]: 'action' is not a text"),
        (("device_traces", 0, 2, "action"), "explode", "device_traces[0][2]: unknown action 'explode'"),
        (("device_traces", 0, 2, "action"), "large", "device_traces[0][2]: unknown action 'large'"),
        (("device_traces", 0, 2, "time_us"), 2**62, "device_traces[0][2]: 'time_us' is no time"),
        (("device_traces", 0, 2, "time_us"), 1.5, "device_traces[0][2]: 'time_us' is not an integer"),
        (("device_traces", 0, 2, "size"), True, "device_traces[0][2]: 'size' is not an integer"),
        (("device_traces", 0, 2, "pool_id"), (1,), "device_traces[0][2]: 'pool_id' is not a pair"),
        (("device_traces", 0, 2, "user_metadata"), 7, "device_traces[0][2]: 'user_metadata' is not a text"),
        (("allocator_settings",), [], "'allocator_settings' is not a dict"),
        (("external_annotations",), {}, "'external_annotations' is not a list"),
        (("external_annotations",), [1], "external_annotations[0] is not a dict"),
    ],
    ids=lambda value: None if isinstance(value, tuple) else str(value)[:40],
)
def test_what_is_missing_or_of_the_wrong_type_is_named_with_its_place(
    tmp_path: Path, path: tuple[Any, ...], value: Any, reason: str
) -> None:
    file = write(tmp_path, changed(path, value))
    with pytest.raises(InputFileError) as caught:
        read_snapshot(file)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | st.text(max_size=4) | st.just("alloc"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*small(), *segment(0, []), *block(0, 0), *event("", 0, 0, 0)]), inner)
    ),
    max_leaves=12,
)
PLACES = st.sampled_from(
    [("segments",), ("device_traces",), ("allocator_settings",), ("external_annotations",)]
    + [("segments", 0, key) for key in small()["segments"][0]]
    + [("segments", 0, "blocks", 0, key) for key in small()["segments"][0]["blocks"][0]]
    + [("device_traces", 0, 1, key) for key in [*small()["device_traces"][0][1], "pool_id", "user_metadata"]]
)


@given(place=PLACES, junk=JUNK)
@examples(400)
def test_any_value_in_any_place_ends_in_a_trace_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], junk: Any
) -> None:
    path = write(tmp_path_factory.getbasetemp(), changed(place, junk))
    try:
        trace = read_snapshot(path)
    except MemscopeError:
        return
    trace.check()
    contradictions(trace)
