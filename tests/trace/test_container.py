"""The ``.memscope`` file: everything comes back, and nothing damaged does."""

import dataclasses
import io
import json
import random
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import InputFileError, UsageError
from memscope.trace import schema
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.container import read_container, write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState, MarkKind, TieRule
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.trace import Trace
from tests.naive_layout import random_layout
from tests.oracles import ORACLE, REAL, needs_shared
from tests.properties import examples

METADATA = TraceMetadata(
    source="cuda",
    torch_version="2.13.0",
    tie_rule=TieRule.SEGMENT_AGE,
    alloc_conf="expandable_segments:True",
    allocator_settings={"max_split_size": -1, "roundup_power2_divisions": {"1": 4}},
    device_names={0: "some GPU", 1: "another"},
    device_total_bytes={0: 80 << 30},
    memory_fraction={0: 0.5},
    rank=3,
    created_ns=1,
    has_pool_ids=True,
    notes=("one", "two"),
    extra={"nested": {"list": [1, 2.5, None]}},
)


def full() -> Trace:
    """A trace that has a row in every table."""
    builder = TraceBuilder()
    frames = [builder.stacks.frame("f", "a.py", 1), builder.stacks.frame("ü\udc80\n<b>", "b.py", 2)]
    stacks = [builder.stacks.stack(frames), builder.stacks.stack(frames[:1])]
    for i in range(50):
        builder.add_event(
            Action.ALLOC,
            address=(1 << 46) + 512 * i,
            size_bytes=100 + i,
            time_ns=1_000 * i,
            device=i // 30,
            stream=-(i % 3),
            pool=(0, i % 2),
            stack_id=stacks[i % 2],
            label="labelled" if i % 7 == 0 else None,
        )
    builder.add_mark(MarkKind.STEP, "step 0", time_ns=5)
    builder.add_sample(device_free_bytes=9, device_used_bytes=8)
    builder.set_owner(2, Category.WEIGHTS, "layer.weight", tagged=True)
    builder.add_cache_layer(cache_id=1, layer=3, kind="SomeLayer", n_sequences=4, key_token_bytes=2, capacity_tokens=9)
    builder.add_cache_length(1, 7, 11, device=1)
    segment = builder.add_segment(address=1 << 46, size_bytes=2 << 20, is_large=False, is_expandable=True)
    builder.add_block(
        segment, address=1 << 46, size_bytes=2 << 20, requested_bytes=5, state=BlockState.ACTIVE_ALLOCATED
    )
    return builder.build(METADATA)


def assert_equal(a: Trace, b: Trace) -> None:
    for name, dtype in schema.EVENT_COLUMNS.items():
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(b, name).dtype == dtype
    for table in ("segments", "blocks", "samples", "marks", "owners", "cache_layers", "cache_lengths"):
        for name, column in getattr(a, table).columns().items():
            again = getattr(getattr(b, table), name)
            np.testing.assert_array_equal(column, again)
            assert column.dtype == again.dtype
    for name in ("offsets", "frame_ids", "name_id", "filename_id", "line"):
        np.testing.assert_array_equal(getattr(a.stacks, name), getattr(b.stacks, name))
    np.testing.assert_array_equal(a.stream_handles, b.stream_handles)
    np.testing.assert_array_equal(a.pools, b.pools)
    assert a.strings == b.strings
    assert a.metadata == b.metadata


def test_everything_comes_back(tmp_path: Path) -> None:
    trace = full()
    assert_equal(trace, read_container(write_container(trace, tmp_path / "full.memscope")))


def test_an_empty_trace_comes_back(tmp_path: Path) -> None:
    trace = TraceBuilder().build(TraceMetadata(source="synthetic"))
    assert_equal(trace, read_container(write_container(trace, tmp_path / "empty.memscope")))


@needs_shared
@pytest.mark.parametrize(
    "path",
    [
        *sorted(REAL.glob("*.gz")),
        ORACLE / "torch-2.11.0" / "small_default.pickle.gz",
        ORACLE / "torch-2.15.0" / "oom_exp.pickle.gz",
    ],
    ids=lambda path: path.name.removesuffix(".pickle.gz"),
)
def test_real_traces_come_back_in_few_bytes(tmp_path: Path, path: Path) -> None:
    trace = read_snapshot(path)
    file = write_container(trace, tmp_path / "real.memscope")
    assert_equal(trace, read_container(file))
    if trace.n_events > 10_000:
        assert file.stat().st_size / trace.n_events <= 24


def test_columns_in_several_row_groups_are_joined(tmp_path: Path) -> None:
    trace = random_layout(3, 200).trace()
    assert len(trace.segments) > 2
    buffer = pa.BufferOutputStream()
    columns = {name: pa.array(column) for name, column in trace.segments.columns().items()}
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    path = write_container(trace, tmp_path / "whole.memscope")
    parted = tmp_path / "parted.memscope"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(parted, "w") as new:
        for member in old.namelist():
            parts = buffer.getvalue().to_pybytes() if member == "segments.parquet" else old.read(member)
            new.writestr(member, parts)
    assert_equal(read_container(parted), trace)


def test_columns_are_read_only(tmp_path: Path) -> None:
    trace = read_container(write_container(full(), tmp_path / "full.memscope"))
    with pytest.raises(ValueError, match="read-only"):
        trace.address[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        trace.blocks.state[0] = 1


def test_an_existing_file_is_kept_unless_overwriting_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "there.memscope"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        write_container(full(), path)
    assert path.read_bytes() == b"mine"
    write_container(full(), path, overwrite=True)
    assert_equal(full(), read_container(path))
    assert [p.name for p in tmp_path.iterdir()] == ["there.memscope"]


def test_places_that_cannot_be_written_or_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be written"):
        write_container(full(), tmp_path / "no" / "folder.memscope")
    with pytest.raises(InputFileError, match="cannot be read: No such file"):
        read_container(tmp_path / "none.memscope")


def rewritten(tmp_path: Path, name: str, content: bytes | None, compression: int = zipfile.ZIP_STORED) -> Path:
    """The full trace's file with one member replaced, or left out."""
    source = write_container(full(), tmp_path / "source.memscope", overwrite=True)
    path = tmp_path / "changed.memscope"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for member in old.namelist():
            data = content if member == name else old.read(member)
            if data is not None:
                new.writestr(member, data)
    return path


def meta(**changes: object) -> bytes:
    return json.dumps(METADATA.to_json() | changes).encode()


def table(**columns: object) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("meta.json", None, "meta.json"),
        ("meta.json", b"{", "not a readable"),
        ("meta.json", b"[]", "not a readable"),
        ("meta.json", b"[" * 200_000, "not a readable"),
        ("meta.json", b"{}", "schema_version"),
        ("meta.json", meta(schema_version=99), "written by a newer memscope"),
        ("meta.json", meta(schema_version="1"), "not a readable"),
        ("meta.json", meta(tie_rule="luck"), "LUCK"),
        ("meta.json", meta(device_names=[1]), "not a readable"),
        ("meta.json", meta(device_names={"0": 1}), "'device_names' is"),
        ("meta.json", meta(alloc_conf={}), "'alloc_conf' is '{}', which is no such thing"),
        ("meta.json", meta(device_total_bytes={"0": {}}), "'device_total_bytes' is"),
        ("meta.json", meta(device_total_bytes={"0": 1 << 63}), "'device_total_bytes' is"),
        ("meta.json", meta(n_events_lost="1"), "'n_events_lost' is '1'"),
        ("meta.json", meta(rank=True), "'rank' is 'True'"),
        ("meta.json", meta(notes=[1]), "'notes' is"),
        ("meta.json", meta(notes="note"), "'notes' is"),
        ("meta.json", meta(extra={"device_parts": {"0": [["context", "1", 2]]}}), "'device_parts' is"),
        ("meta.json", meta(extra={"segment_total_mismatches": [{}]}), "'segment_total_mismatches' is"),
        ("meta.json", meta(extra={"mine": json.loads("[" * 60 + "]" * 60)}), "nested deeper"),
        ("meta.json", meta(memory_fraction={"0": float("nan")}), "NaN in its meta.json"),
        ("meta.json", meta(extra={"mine": "HUGE"}).replace(b'"HUGE"', b"1e999"), "is not finite"),
        ("meta.json", b"[1, 2]", "not a readable"),
        ("events.parquet", None, "events.parquet"),
        ("events.parquet", b"not parquet", "not a readable"),
        ("events.parquet", table(time_ns=[1]), "not a readable"),
        ("frames.parquet", table(name_id=[0, 99], filename_id=[0, 0], line=[1, 1]), "points outside its table"),
        ("stacks.parquet", table(n_frames=[-1, 4]), "not a readable"),
        ("strings.parquet", table(text=[b"\xff"] * 9), "not a readable"),
        ("strings.parquet", table(text=["a", None]), "not a readable"),
        ("streams.parquet", table(handle=["x"]), "not a readable"),
        ("streams.parquet", table(handle=[1.5]), "its column handle is of type DOUBLE"),
        ("streams.parquet", table(handle=pa.array([1 << 63], pa.uint64())), "handle has numbers that do not fit int64"),
        ("ids.parquet", table(frame_id=[0, 1 << 32, 0]), "frame_id has numbers that do not fit int32"),
        ("marks.parquet", table(event=[0], time_ns=[0], kind=[300], label_id=[0]), "numbers that do not fit int8"),
        ("marks.parquet", table(event=[0], time_ns=[0], kind=[-1], label_id=[0]), "MarkTable.kind points outside"),
        ("marks.parquet", table(event=[51], time_ns=[0], kind=[0], label_id=[0]), "MarkTable.event points outside"),
        ("streams.parquet", table(handle=[[1, 2]]), "has not one value a row"),
        ("streams.parquet", table(handle=[1, None]), "its column handle has missing values"),
        (
            "pools.parquet",
            table(first=pa.array(np.zeros(40_000_000, np.int64)), second=[0] * 40_000_000),
            "far more than any real",
        ),
    ],
    ids=lambda value: str(value)[:24],
)
def test_damaged_parts_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    path = rewritten(tmp_path, name, content)
    with pytest.raises(InputFileError) as caught:
        read_container(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="is compressed"):
        read_container(rewritten(tmp_path, "", None, zipfile.ZIP_DEFLATED))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_container(full(), tmp_path_factory.mktemp("packed") / "full.memscope").read_bytes()


@given(seed=st.integers(0, 2**32))
@examples(150)
def test_mutated_files_are_refused_or_read_as_they_were(
    packed: bytes, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = random.Random(seed)
    data = bytearray(packed)
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    path = tmp_path_factory.getbasetemp() / "mutated.memscope"
    path.write_bytes(data)
    try:
        trace = read_container(path)
    except InputFileError:
        return
    assert_equal(trace, full())


def test_the_same_trace_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = random_layout(4, 20).trace()
    first = write_container(trace, tmp_path / "first.memscope").read_bytes()
    later = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert write_container(trace, tmp_path / "second.memscope").read_bytes() == first


def test_a_file_of_the_first_schema_is_read_and_written_as_the_newest(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.add_event(Action.ALLOC, address=1 << 30, size_bytes=512)
    builder.set_owner(0, Category.WEIGHTS, "w")
    builder.add_sample(device_used_bytes=5)
    newest = write_container(builder.build(TraceMetadata(source="synthetic")), tmp_path / "newest.memscope")
    first = tmp_path / "first.memscope"
    added_later = {"owners.parquet": ["device", "address", "tensor_id"], "samples.parquet": ["others_used_bytes"]}
    with zipfile.ZipFile(newest) as old, zipfile.ZipFile(first, "w", zipfile.ZIP_STORED) as archive:
        for name in old.namelist():
            if name.startswith("cache_"):
                continue
            content = old.read(name)
            if name == "meta.json":
                content = json.dumps(json.loads(content) | {"schema_version": 1}).encode()
            if name in added_later:
                table = pq.read_table(io.BytesIO(content)).drop_columns(added_later[name])
                sink = io.BytesIO()
                pq.write_table(table, sink)
                content = sink.getvalue()
            archive.writestr(name, content)
    trace = read_container(first)
    assert trace.owners.address.tolist() == trace.owners.device.tolist() == [-1]
    assert trace.samples.others_used_bytes.tolist() == trace.owners.tensor_id.tolist() == [-1]
    assert len(trace.cache_layers) == len(trace.cache_lengths) == 0
    assert trace.metadata.schema_version == schema.SCHEMA_VERSION
    again = write_container(trace, tmp_path / "again.memscope")
    assert again.read_bytes() == newest.read_bytes()


def even(n_events: int) -> Trace:
    """A trace of equal events, as no program makes."""
    builder = TraceBuilder()
    builder.add_event(Action.ALLOC, address=1 << 30, size_bytes=512)
    one = builder.build(TraceMetadata(source="synthetic"))
    columns = {name: np.repeat(getattr(one, name), n_events) for name in schema.EVENT_COLUMNS}
    return dataclasses.replace(one, **columns)


def test_events_so_even_that_they_look_like_a_bomb_are_written_so_that_they_are_read(tmp_path: Path) -> None:
    trace = even(2_000_000)
    path = write_container(trace, tmp_path / "even.memscope")
    assert_equal(read_container(path), trace)
    assert path.stat().st_size > 2_000_000 * 40


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"extra": {"mine": float("nan")}}, "JSON compliant"),
        ({"extra": {"mine": json.loads("[" * 60 + "]" * 60)}}, "nested deeper"),
        ({"extra": {"mine": object()}}, "not JSON serializable"),
        ({"device_total_bytes": {0: 1 << 63}}, "'device_total_bytes' is"),
        ({"notes": ("x" * (17 << 20),)}, "takes 17,"),
        ({"allocator_settings": {"expandable_segments": 3}}, "which is no such setting"),
    ],
    ids=["not a number", "deep", "an object", "beyond 64 bits", "long", "a setting of another type"],
)
def test_what_no_reader_would_take_is_not_written(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    trace = dataclasses.replace(full(), metadata=dataclasses.replace(METADATA, **changes))
    with pytest.raises(InputFileError, match=reason):
        write_container(trace, tmp_path / "refused.memscope")
    assert list(tmp_path.iterdir()) == []
