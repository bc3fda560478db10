"""Pickles of any protocol become a tape; none runs, multiplies or ends in anything but a trace or an error of ours."""

import pickle
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import InputFileError, MemscopeError, UnsafePickleError
from memscope.trace.schema import NONE_ID
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.validate import contradictions
from tests.properties import examples
from tests.trace.snapshot.snapshots import (
    BASE,
    FRAMES,
    block,
    check_events,
    check_state,
    event,
    frames_of,
    segment,
    small,
    write,
)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_protocol_gives_the_same_trace(tmp_path: Path, protocol: int) -> None:
    trace = read_snapshot(write(tmp_path, small(), protocol))
    check_events(trace, small())
    check_state(trace, small())
    assert trace.stack(int(trace.stack_id[1])) == frames_of(FRAMES)
    assert trace.stack_id.tolist() == [0, 0, 1, NONE_ID, NONE_ID]
    assert trace.metadata.allocator_settings == small()["allocator_settings"]


def test_a_pickle_that_stacks_whole_lists_at_once_is_read(tmp_path: Path) -> None:
    # TorchScript's pickler: protocol 2, one APPENDS for a list of any length.
    one = pickle.dumps(event("alloc", BASE, 512, 7), 2)[2:-1]
    n = 30_000
    path = tmp_path / "torchscript.pickle"
    head = b"\x80\x02}(X\x08\x00\x00\x00segments]X\x0d\x00\x00\x00device_traces](]("
    path.write_bytes(head + one * n + b"eeu.")
    trace = read_snapshot(path)
    assert trace.n_events == n
    assert set(trace.size_bytes.tolist()) == {512}


def test_a_later_key_of_the_same_name_wins(tmp_path: Path) -> None:
    data = pickle.dumps(small(), 0).replace(b"VPYTORCH_CUDA_ALLOC_CONF", b"Vmax_split_size", 1)
    path = tmp_path / "twice.pickle"
    path.write_bytes(data)
    assert read_snapshot(path).metadata.allocator_settings == pickle.loads(data)["allocator_settings"]


def test_lone_surrogates_are_escaped_so_that_they_can_be_printed(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["device_traces"][0][2]["frames"] = [{"name": "a\udc80é", "filename": "f", "line": 1}]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.stack(int(trace.stack_id[2]))[0].name == "a\\udc80é"


def test_lists_repeated_to_multiply_are_refused(tmp_path: Path) -> None:
    # 20,000 places for one list of 20,000 events are 400 million events in 200 kB.
    events = [event("alloc", BASE, 512, 7)] * 20_000
    with pytest.raises(UnsafePickleError, match="multiplies"):
        read_snapshot(write(tmp_path, {"segments": [], "device_traces": [events] * 20_000}))
    blocks = [block(BASE, 512)] * 5_000
    with pytest.raises(UnsafePickleError, match="multiplies"):
        read_snapshot(write(tmp_path, {"segments": [segment(BASE, blocks)] * 5_000, "device_traces": []}))
    wide = event("alloc", BASE, 512, 7) | {f"key {i}": i for i in range(20_000)}
    with pytest.raises(UnsafePickleError, match="multiplies"):
        read_snapshot(write(tmp_path, {"segments": [], "device_traces": [[wide] * 20_000]}))


FUZZED = pickle.dumps(small(), 4)


@given(cut=st.integers(0, len(FUZZED) - 1))
@examples(80)
def test_a_snapshot_cut_anywhere_is_truncated(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.pickle"
    path.write_bytes(FUZZED[:cut])
    with pytest.raises(InputFileError, match="empty" if cut == 0 else "truncated"):
        read_snapshot(path)


@given(seed=st.integers(0, 2**32))
@examples(400)
def test_mutated_bytes_end_in_a_trace_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(pickle.dumps(small(), rng.choice((0, 2, 4))))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        kind = rng.random()
        if kind < 0.5:
            data[at] = rng.randrange(256)
        elif kind < 0.75:
            del data[at : at + rng.randint(1, 9)]
        else:
            start = rng.randrange(len(data))
            data[at:at] = data[start : start + rng.randint(1, 40)]
    path = tmp_path_factory.getbasetemp() / "mutated.pickle"
    path.write_bytes(data)
    try:
        trace = read_snapshot(path)
    except MemscopeError:
        return
    trace.check()
    contradictions(trace)
