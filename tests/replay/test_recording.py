"""One device's events as the kernels take them."""

import pytest

from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.recording import Recording, next_request
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action

MiB = 1 << 20
METADATA = TraceMetadata(source="synthetic", alloc_conf="", has_pool_ids=True)


def recording_of(*events, **metadata):
    """A recording of events: action, address, size and stream."""
    builder = TraceBuilder()
    for action, address, size_bytes, stream in events:
        builder.add_event(action, address=address, size_bytes=size_bytes, stream=stream, pool=(0, 0))
    return Recording(DeviceLifetimes(builder.build(METADATA), 0))


BASE = 1 << 40
TAKEN = (Action.SEGMENT_ALLOC, BASE, 2 * MiB, 0)


def test_frees_that_did_not_complete_at_once_are_counted():
    first, second = BASE, BASE + 512
    recording = recording_of(
        TAKEN,
        (Action.ALLOC, first, 512, 0),
        (Action.ALLOC, second, 512, 0),
        (Action.FREE_REQUESTED, first, 512, 0),
        (Action.FREE_COMPLETED, first, 512, 0),
        (Action.FREE_REQUESTED, second, 512, 0),
        (Action.ALLOC, first, 512, 0),
        (Action.FREE_COMPLETED, second, 512, 0),
    )
    assert recording.n_deferred_frees == 1
    assert recording.first_foreign_stream() == -1
    assert recording.row.tolist()[1:3] == [0, 1]


def test_a_free_that_names_another_stream_is_found():
    recording = recording_of(
        TAKEN,
        (Action.ALLOC, BASE, 512, 0),
        (Action.FREE_REQUESTED, BASE, 512, 7),
        (Action.FREE_COMPLETED, BASE, 512, 7),
    )
    assert recording.first_foreign_stream() == 2


def test_each_pair_of_pool_and_stream_is_made_once():
    recording = recording_of(TAKEN, (Action.ALLOC, BASE, 512, 0))
    assert recording.pairs == [(0, 0)]
    assert recording.pair.tolist() == [-1, 0]  # a segment has no request of its own


@pytest.mark.parametrize("n", [3, 2_000])
def test_pairs_are_the_same_however_many_pools_and_streams_there_are(n: int) -> None:
    """Of few a table is made, of many (2,000 pools beside 2,000 streams are 4 million pairs) none."""
    builder = TraceBuilder()
    for i in range(n):
        where = {"address": BASE + 4096 * i, "size_bytes": 512, "stream": 16 * (i // 2), "pool": (0, i // 3)}
        builder.add_event(Action.ALLOC, **where)
    recording = Recording(DeviceLifetimes(builder.build(METADATA), 0))
    assert [recording.pairs[pair] for pair in recording.pair] == [(i // 3, 16 * (i // 2)) for i in range(n)]
    assert len(set(recording.pairs)) == len(recording.pairs)


def test_an_event_is_described_with_its_size_and_place():
    recording = recording_of(TAKEN, (Action.ALLOC, BASE, 1512, 0), (Action.OOM, 0, 4096, 0))
    assert recording.describe(1) == f"alloc of 1,512 bytes at {BASE:#x}"
    assert recording.describe(2) == "oom of 4,096 bytes"


def test_the_request_behind_a_map_is_the_next_alloc_or_oom():
    recording = recording_of(
        (Action.SEGMENT_MAP, BASE, 2 * MiB, 0),
        (Action.SEGMENT_MAP, BASE + 2 * MiB, 2 * MiB, 0),
        (Action.ALLOC, BASE, 3 * MiB, 0),
    )
    assert next_request(recording, 0) == 2
