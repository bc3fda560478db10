"""Files that are no snapshots, by their names."""

import gzip
from pathlib import Path

import pytest

from memscope.errors import InputFileError
from memscope.trace.snapshot.read import read_snapshot

REASONS = {
    b'{"schemaVersion": 1, "traceEvents": []}': "is a timeline of torch.profiler or another tracer (traceEvents)",
    b'{\n "distributedInfo": {}, "traceEvents": [' + b" " * 99: "is a timeline of torch.profiler",
    b'[ {"ph": "X", "cat": "op"}]': "is a timeline of torch.profiler",
    b"\x0a\x04\x08\x01\x10\x02\x0a\x04\x08\x03\x10\x04rest of it": "a profile in pprof's format, as jax.profiler",
    gzip.compress(
        b"\x0a\x04\x08\x01\x10\x02\x0a\x04\x08\x03\x10\x04rest"
    ): "the gzip holds a profile in pprof's format",
    (72).to_bytes(8, "little") + b'{"__metadata__":{}}' + b" " * 60: "is a safetensors file of weights",
    (0x80).to_bytes(8, "little") + b'{"a":{}}' + b" " * 120: "is a safetensors file of weights",
    b"SQLite format 3\0" + bytes(90): "is an SQLite database, as nsys export writes it",
    b"memray\0\x0b\0\0\0": "is a recording of memray",
    b"GGUF\x03\0\0\0": "is a GGUF file of weights",
    b"\x93NUMPY\x01\0": "is an array of NumPy",
    b"%PDF-1.7": "is a PDF document",
    b"7z\xbc\xaf\x27\x1c\0\4": "is a 7z archive: unpack it first",
    b"\x04\x22\x4d\x18@": "is an lz4 file: unpack it first",
    b"name" + bytes(253) + b"ustar\x0000": "is a tar archive: unpack it first",
    b"version https://git-lfs.github.com/spec/v1\n": "is a Git LFS pointer, not the file itself: run git lfs pull",
    b"|====|\n|   PyTorch CUDA memory summary, device ID 0 |": "is the text of torch.cuda.memory_summary()",
    b"<html><title>GPU Memory Timeline HTML</title><img src='data:image/png;base64,iVBORw0KGg'></html>": (
        "is a memory timeline of torch.profiler"
    ),
}


@pytest.mark.parametrize("data", REASONS, ids=lambda data: REASONS[data][:40])
def test_a_file_is_named_and_what_to_record_is_said(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(InputFileError) as caught:
        read_snapshot(path)
    assert REASONS[data] in caught.value.reason
    assert "\n" not in str(caught.value)
    if "not a memory snapshot" in caught.value.reason:
        assert "record one with torch.cuda.memory._record_memory_history()" in caught.value.reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("run.nsys-rep", "is a report of Nsight Systems, not a memory snapshot: record one"),
        ("run.qdrep", "is a report of Nsight Systems"),
        ("run.bin", "is unknown data: neither a memory snapshot"),
    ],
)
def test_the_name_tells_only_where_the_bytes_do_not(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x01\x02\x03\x04" * 40)
    with pytest.raises(InputFileError) as caught:
        read_snapshot(path)
    assert reason in caught.value.reason
    path.write_bytes(b"\x80\x04N.")
    with pytest.raises(InputFileError, match="is a pickle, but not a memory snapshot"):
        read_snapshot(path)
