"""Reading torch's snapshots: against the Python library on trusted files, and layout by layout by hand."""

import base64
import gzip
import pickle
from pathlib import Path
from typing import Any

import pytest

from memscope.errors import InputFileError
from memscope.replay.config import forbidden_options
from memscope.trace.schema import NONE_ID, TieRule
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.snapshot.write import snapshot_dict
from memscope.trace.validate import contradictions
from tests.oracles import BAD, ORACLE, REAL, needs_shared
from tests.trace.snapshot.snapshots import (
    FRAMES,
    changed,
    check_events,
    check_state,
    small,
    trusted_load,
    write,
)

FILES = sorted(REAL.glob("*.gz")) + sorted(ORACLE.glob("*/*.pickle.gz")) + [BAD / "contradictory-synthetic.pickle.gz"]


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


def test_an_unlimited_split_size_of_old_builds_reads_as_minus_one(tmp_path: Path) -> None:
    path = write(tmp_path, changed(("allocator_settings", "max_split_size"), 2**64 - 1))
    assert read_snapshot(path).metadata.allocator_settings["max_split_size"] == -1


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_setting_that_is_no_number_of_json_is_refused(tmp_path: Path, number: float) -> None:
    path = write(tmp_path, changed(("allocator_settings", "mine"), number))
    with pytest.raises(InputFileError, match="a number that is recorded beside the events is not finite"):
        read_snapshot(path)


def test_pinned_host_memory_is_left_out_with_a_note(tmp_path: Path) -> None:
    snapshot = small() | {"host_segments": [{}], "host_traces": [{}, {}]}
    metadata = read_snapshot(write(tmp_path, snapshot)).metadata
    assert [note[:6] for note in metadata.notes] == ["1 pinn", "2 pinn"]


def test_equal_stacks_in_different_lists_are_one(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["device_traces"][0][2]["frames"] = [dict(frame) for frame in FRAMES]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.stack_id.tolist() == [0, 0, 0, NONE_ID, NONE_ID]
    assert trace.stacks.n_frames == 2


@pytest.mark.parametrize("value", [{}, [], (), 5, "text", None, b"x", [1], [{}], {"hello": "world"}])
def test_other_pickles_are_not_snapshots(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputFileError, match="is a pickle, but not a memory snapshot"):
        read_snapshot(write(tmp_path, value))


HIP_SETTINGS = {
    "PYTORCH_HIP_ALLOC_CONF": "max_split_size_mb:64",
    "max_split_size": 64 << 20,
    "garbage_collection_threshold": 0.0,
    "expandable_segments": False,
    "release_lock_on_hipmalloc": False,
}


@pytest.mark.parametrize("name", ["PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_configuration_is_found_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    snapshot = changed(("allocator_settings", "PYTORCH_CUDA_ALLOC_CONF"), ...)
    snapshot["allocator_settings"][name] = "max_split_size_mb:64"
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.metadata.alloc_conf == "max_split_size_mb:64"
    assert trace.metadata.is_rocm == ("HIP" in name)
    assert snapshot_dict(trace)["allocator_settings"] == snapshot["allocator_settings"]
    snapshot["allocator_settings"][name] = 5
    with pytest.raises(InputFileError, match=f"'{name}' is '5', which is no such setting"):
        read_snapshot(write(tmp_path, snapshot))


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("/opt/conda/lib/python3.11/site-packages/torch/lib/libtorch_hip.so", "??"),
        ("??", "c10::hip::HIPCachingAllocator::Native::DeviceCachingAllocator::malloc(...)"),
    ],
)
def test_a_rocm_build_is_told_by_its_stacks(tmp_path: Path, filename: str, name: str) -> None:
    snapshot = small()
    snapshot["device_traces"][0][1]["frames"] = [{"name": name, "filename": filename, "line": 1}]
    trace = read_snapshot(write(tmp_path, snapshot))
    assert trace.metadata.is_rocm
    assert any("ROCm build" in note for note in trace.metadata.notes)
    assert not read_snapshot(write(tmp_path, small())).metadata.is_rocm
    assert not contradictions(trace)


def test_expandable_segments_are_not_advised_where_rocm_has_none(tmp_path: Path) -> None:
    snapshot = changed(("allocator_settings",), HIP_SETTINGS)
    assert "expandable_segments" in forbidden_options(read_snapshot(write(tmp_path, snapshot)))
    for event in snapshot["device_traces"][0]:
        event["pool_id"] = (0, 0)
    assert not forbidden_options(read_snapshot(write(tmp_path, snapshot)))  # 2.12
    assert not forbidden_options(read_snapshot(write(tmp_path, small())))
