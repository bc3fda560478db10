"""Reading torch's snapshots: against the Python library on trusted files, and layout by layout by hand."""

import base64
import gzip
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memscope.errors import InputFileError, MemscopeError, UnsafePickleError
from memscope.trace.schema import ACTION_BY_NAME, BLOCK_STATE_BY_NAME, NONE_ID, Action, BlockState, MarkKind, TieRule
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.trace import Frame, Trace
from memscope.trace.validate import contradictions
from tests.oracles import BAD, ORACLE, REAL, needs_shared
from tests.trace.snapshot.snapshots import BASE, FRAMES, MIB, block, changed, event, segment, small, trusted_load, write

FILES = sorted(REAL.glob("*.gz")) + sorted(ORACLE.glob("*/*.pickle.gz")) + [BAD / "contradictory-synthetic.pickle.gz"]


def frames_of(dicts: Any) -> tuple[Frame, ...]:
    return tuple(Frame(d["name"], d["filename"], d["line"]) for d in dicts)


def check_stacks(trace: Trace, stack_ids: np.ndarray, frame_lists: list[Any]) -> None:
    """Every stack id stands for the frames recorded; each distinct (id, list) once."""
    by_id = {int(stack_id): trace.stack(int(stack_id)) for stack_id in np.unique(stack_ids)}
    seen = set()
    for stack_id, frames in zip(stack_ids.tolist(), frame_lists, strict=True):
        if (stack_id, id(frames)) not in seen:
            seen.add((stack_id, id(frames)))
            assert by_id[stack_id] == frames_of(frames or [])


def check_events(trace: Trace, snapshot: dict[str, Any]) -> None:
    traces = snapshot.get("device_traces", [])
    events = [e for device in traces for e in device]
    assert trace.device.tolist() == [i for i, device in enumerate(traces) for _ in device]
    assert trace.action.tolist() == [int(ACTION_BY_NAME[e["action"]]) for e in events]
    assert trace.address.tolist() == [-1 if e["action"] == "oom" else e["addr"] for e in events]
    assert trace.size_bytes.tolist() == [e["size"] for e in events]
    assert trace.time_ns.tolist() == [e.get("time_us", -1) * 1000 if "time_us" in e else -1 for e in events]
    assert trace.stream_handles[trace.stream_id].tolist() == [e["stream"] for e in events]
    if trace.metadata.has_pool_ids:
        assert [tuple(pool) for pool in trace.pools[trace.pool_id].tolist()] == [e["pool_id"] for e in events]
    else:
        assert (trace.pool_id == NONE_ID).all()
    assert [trace.string(i) for i in trace.label_id.tolist()] == [e.get("user_metadata") or None for e in events]
    check_stacks(trace, trace.stack_id, [e.get("frames") for e in events])
    ooms = [(i, e["device_free"]) for i, e in enumerate(events) if e["action"] == "oom"]
    assert list(zip(trace.samples.event.tolist(), trace.samples.device_free_bytes.tolist(), strict=True)) == ooms


def check_state(trace: Trace, snapshot: dict[str, Any]) -> None:
    ordered = sorted(snapshot["segments"], key=lambda s: (s["device"], s["address"]))
    segments, blocks = trace.segments, trace.blocks
    assert segments.device.tolist() == [s["device"] for s in ordered]
    assert segments.address.tolist() == [s["address"] for s in ordered]
    assert segments.size_bytes.tolist() == [s["total_size"] for s in ordered]
    assert segments.is_large.tolist() == [s["segment_type"] == "large" for s in ordered]
    assert segments.is_expandable.tolist() == [s.get("is_expandable", False) for s in ordered]
    assert trace.stream_handles[segments.stream_id].tolist() == [s["stream"] for s in ordered]
    pools = [tuple(s.get("segment_pool_id", (0, 0))) for s in ordered]
    assert [tuple(pool) for pool in trace.pools[segments.pool_id].tolist()] == pools
    check_stacks(trace, segments.stack_id, [s.get("frames") for s in ordered])
    rows = []
    for i, s in enumerate(ordered):
        address = s["address"]
        for b in s["blocks"]:
            state = BLOCK_STATE_BY_NAME[b["state"]]
            requested = 0 if state == BlockState.INACTIVE else b["requested_size"]
            frames = b["frames"] if "frames" in b else b["history"][0]["frames"] if b.get("history") else []
            rows.append((i, b.get("address", address), b["size"], requested, int(state), frames))
            address += b["size"]
    rows.sort(key=lambda row: row[:2])
    assert [list(column) for column in zip(*(row[:5] for row in rows), strict=True)] == [
        getattr(blocks, name).tolist() for name in ("segment_id", "address", "size_bytes", "requested_bytes", "state")
    ]
    check_stacks(trace, blocks.stack_id, [row[5] for row in rows])


@needs_shared
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name.removesuffix('.pickle.gz')}")
def test_every_column_equals_what_the_python_library_reads(path: Path) -> None:
    trace, snapshot = read_snapshot(path), trusted_load(path)
    check_events(trace, snapshot)
    check_state(trace, snapshot)
    assert trace.metadata.allocator_settings == snapshot.get("allocator_settings", {})
    assert trace.metadata.alloc_conf == snapshot.get("allocator_settings", {}).get("PYTORCH_CUDA_ALLOC_CONF")
    assert bool(contradictions(trace)) == path.is_relative_to(BAD)


@needs_shared
@pytest.mark.parametrize(
    ("folder", "version", "rule"),
    [
        ("torch-2.6.0", "2.5–2.7", TieRule.ADDRESS),
        ("torch-2.11.0", "2.10–2.11", TieRule.ADDRESS),
        ("torch-2.12.1", "2.12", TieRule.BLOCK_AGE),
        ("torch-2.13.0", "2.13", TieRule.SEGMENT_AGE),
        ("torch-2.14.1", "2.14+", TieRule.SEGMENT_AGE),
        ("torch-2.15.0", "2.14+", TieRule.SEGMENT_AGE),
    ],
)
def test_the_version_and_its_tie_rule_are_told_by_the_keys(folder: str, version: str, rule: TieRule) -> None:
    metadata = read_snapshot(ORACLE / folder / "addr_random.pickle.gz").metadata
    assert (metadata.torch_version, metadata.tie_rule) == (version, rule)


@needs_shared
def test_old_and_eventless_files_tell_what_they_can() -> None:
    old = read_snapshot(REAL / "opt-offload-torch2.0-layout.pickle.gz").metadata
    assert (old.torch_version, old.tie_rule, old.alloc_conf) == ("2.0", TieRule.ADDRESS, None)
    bare = read_snapshot(REAL / "rlhf-three-pools-no-trace.pickle.gz").metadata
    assert (bare.torch_version, bare.tie_rule) == ("2.5–2.8", TieRule.ADDRESS)


BAD_REASONS = {
    "empty.pickle": "is empty",
    "text.pickle": "is text",
    "truncated.pickle": "truncated",
    "git-lfs-pointer.pickle": "Git LFS",
    "not-a-snapshot-dict.pickle": "not a memory snapshot",
    "not-a-snapshot-list-of-ints.pickle": "not a memory snapshot",
    "deeply-nested.pickle": "nests",
    "malicious-reduce.pickle": "asks for posix.system at byte 48",
    "malicious-stack-global.pickle": "asks for os.system at byte 14",
    "bomb-2GiB-of-zeros.pickle.gz": "zeros",
}


@needs_shared
@pytest.mark.parametrize("name", BAD_REASONS)
def test_bad_files_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputFileError, match=BAD_REASONS[name]) as caught:
        read_snapshot(BAD / name)
    assert "\n" not in str(caught.value)
    assert not Path("/tmp/PWNED_memscope").exists()


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


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: b"<html>" + base64.b64encode(data) + b"</html>"])
def test_gzip_and_memory_viz_pages_are_read(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "packed"
    path.write_bytes(pack(pickle.dumps(small(), 4)))
    check_events(read_snapshot(path), small())


def test_a_bare_list_of_segments_is_read(tmp_path: Path) -> None:
    trace = read_snapshot(write(tmp_path, small()["segments"]))
    check_state(trace, small())
    assert trace.n_events == 0
    assert trace.metadata.tie_rule is None
    assert "no events" in trace.metadata.notes[0]


def test_events_without_segments_are_read(tmp_path: Path) -> None:
    trace = read_snapshot(write(tmp_path, changed(("segments",), ...)))
    assert not trace.metadata.block_layout_recorded
    assert trace.n_events == 5


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


def test_an_unlimited_split_size_of_old_builds_reads_as_minus_one(tmp_path: Path) -> None:
    path = write(tmp_path, changed(("allocator_settings", "max_split_size"), 2**64 - 1))
    assert read_snapshot(path).metadata.allocator_settings["max_split_size"] == -1


def test_the_history_of_old_blocks_gives_stack_and_request(tmp_path: Path) -> None:
    history = [{"addr": BASE, "real_size": 123, "frames": FRAMES}, {"addr": BASE, "real_size": 9, "frames": []}]
    blocks = [
        {"size": 512, "state": "active_allocated", "history": history},
        {"size": MIB - 512, "state": "inactive", "history": []},
    ]
    old = {"address": BASE, "total_size": MIB, "stream": 0, "segment_type": "small", "blocks": blocks}
    trace = read_snapshot(write(tmp_path, [old]))
    assert trace.blocks.address.tolist() == [BASE, BASE + 512]
    assert trace.blocks.requested_bytes.tolist() == [123, 0]
    assert trace.stack(int(trace.blocks.stack_id[0])) == frames_of(FRAMES)
    assert trace.blocks.stack_id[1] == NONE_ID
    assert not contradictions(trace)


def test_an_oom_has_no_address_but_what_was_free(tmp_path: Path) -> None:
    oom = {"action": "oom", "device_free": 5 * MIB, "size": 30 * MIB, "stream": 0, "time_us": 200}
    snapshot = small()
    snapshot["device_traces"] = [[], [*snapshot["device_traces"][0], oom]]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.address[5] == NONE_ID
    assert trace.action[5] == Action.OOM
    samples = trace.samples
    assert (samples.event[0], samples.device[0], samples.device_free_bytes[0]) == (5, 1, 5 * MIB)
    assert samples.device_used_bytes[0] == NONE_ID


def test_events_without_a_time_are_marked_so(tmp_path: Path) -> None:
    snapshot = small()
    for entry in snapshot["device_traces"][0]:
        del entry["time_us"]
    del snapshot["external_annotations"], snapshot["allocator_settings"]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert (trace.time_ns == NONE_ID).all()
    assert trace.metadata.torch_version == "2.0–2.1"


def test_pinned_host_memory_is_left_out_with_a_note(tmp_path: Path) -> None:
    snapshot = small() | {"host_segments": [{}], "host_traces": [{}, {}]}
    metadata = read_snapshot(write(tmp_path, snapshot)).metadata
    assert [note[:6] for note in metadata.notes] == ["1 pinn", "2 pinn"]


def test_a_rotated_ring_is_put_in_order(tmp_path: Path) -> None:
    snapshot = small()
    events = snapshot["device_traces"][0]
    snapshot["device_traces"] = [events[3:] + events[:3]]
    trace = read_snapshot(write(tmp_path, snapshot))
    check_events(trace, small())
    assert "first 2 events are the newest" in trace.metadata.notes[0]


def test_jitter_of_the_clock_moves_nothing(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["device_traces"][0][2]["time_us"] = 99
    trace = read_snapshot(write(tmp_path, snapshot))
    check_events(trace, snapshot)
    assert trace.metadata.notes == ()


def test_annotations_become_phases_and_steps_by_their_time(tmp_path: Path) -> None:
    def annotation(stage: str, name: str, time_us: int) -> dict[str, Any]:
        return {"stage": stage, "name": name, "device": 0, "time_us": time_us}

    snapshot = small()
    snapshot["external_annotations"] = [
        annotation("START", "ProfilerStep#0", 100),
        annotation("START", "forward", 101),
        annotation("END", "forward", 102),
        annotation("END", "ProfilerStep#0", 102),
        annotation("START", "ProfilerStep#1", 102),
        annotation("END", "Optimizer.step#SGD.step", 500),
        {"other": 1, "device": 0, "time_us": 3},
    ]
    trace = read_snapshot(write(tmp_path, snapshot))
    marks = trace.marks
    rows = zip(marks.event.tolist(), marks.kind.tolist(), marks.label_id.tolist(), strict=True)
    assert [(event, MarkKind(kind).name, trace.string(label)) for event, kind, label in rows] == [
        (0, "PHASE_BEGIN", "ProfilerStep#0"),
        (1, "PHASE_BEGIN", "forward"),
        (3, "PHASE_END", "forward"),  # behind the event of the same microsecond
        (3, "PHASE_END", "ProfilerStep#0"),
        (3, "STEP", "ProfilerStep#0"),
        (3, "PHASE_BEGIN", "ProfilerStep#1"),  # not before the end that it follows
        (5, "PHASE_END", "Optimizer.step#SGD.step"),
    ]
    assert marks.time_ns[1] == 101_000
    assert trace.metadata.notes == ("1 of 7 annotations could not be placed (no stage, name, time or timed events).",)


def test_labels_are_the_user_metadata(tmp_path: Path) -> None:
    snapshot = small()
    for entry, text in zip(snapshot["device_traces"][0], ["", "a", "b", "a", None], strict=True):
        entry["user_metadata"] = text
    trace = read_snapshot(write(tmp_path, snapshot))
    assert [trace.string(label) for label in trace.label_id.tolist()] == [None, "a", "b", "a", None]


def test_equal_stacks_in_different_lists_are_one(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["device_traces"][0][2]["frames"] = [dict(frame) for frame in FRAMES]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.stack_id.tolist() == [0, 0, 0, NONE_ID, NONE_ID]
    assert trace.stacks.n_frames == 2


def test_lone_surrogates_are_escaped_so_that_they_can_be_printed(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["device_traces"][0][2]["frames"] = [{"name": "a\udc80é", "filename": "f", "line": 1}]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.stack(int(trace.stack_id[2]))[0].name == "a\\udc80é"


def test_segments_out_of_order_are_sorted_with_their_blocks(tmp_path: Path) -> None:
    snapshot = small()
    far = BASE + 100 * MIB
    snapshot["segments"] = [
        segment(far, [block(far + MIB, MIB), block(far, MIB, "active_pending_free", 5)], device=1),
        segment(far, [block(far, 2 * MIB)]),
        *snapshot["segments"],
    ]
    trace = read_snapshot(write(tmp_path, snapshot))
    check_state(trace, snapshot)
    assert trace.segments.device.tolist() == [0, 0, 1]
    assert not contradictions(trace)


def test_sums_that_differ_from_their_blocks_are_kept_for_the_checks(tmp_path: Path) -> None:
    trace = read_snapshot(write(tmp_path, changed(("segments", 0, "active_size"), 5)))
    (entry,) = trace.metadata.extra["segment_total_mismatches"]
    assert entry == {"device": 0, "address": BASE, "field": "active_size", "recorded": 5, "summed": 4 * MIB}


def test_a_later_key_of_the_same_name_wins(tmp_path: Path) -> None:
    data = pickle.dumps(small(), 0).replace(b"VPYTORCH_CUDA_ALLOC_CONF", b"Vmax_split_size", 1)
    path = tmp_path / "twice.pickle"
    path.write_bytes(data)
    assert read_snapshot(path).metadata.allocator_settings == pickle.loads(data)["allocator_settings"]


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


@pytest.mark.parametrize("value", [{}, [], (), 5, "text", None, b"x", [1], [{}], [small()], {"hello": "world"}])
def test_other_pickles_are_not_snapshots(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputFileError, match="is a pickle, but not a memory snapshot"):
        read_snapshot(write(tmp_path, value))


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
@settings(max_examples=80, deadline=None)
def test_a_snapshot_cut_anywhere_is_truncated(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.pickle"
    path.write_bytes(FUZZED[:cut])
    with pytest.raises(InputFileError, match="empty" if cut == 0 else "truncated"):
        read_snapshot(path)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
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
@settings(max_examples=400, deadline=None)
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
