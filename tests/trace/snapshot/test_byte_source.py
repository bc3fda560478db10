"""What a file is, by its bytes; and that nothing in it can fill the memory."""

import base64
import bz2
import gzip
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from memscope.errors import InputFileError, UnsafePickleError
from memscope.trace.snapshot import _byte_source as byte_source
from memscope.trace.snapshot._byte_source import Content, content_of, open_source

PICKLE = b"\x80\x04" + b"N0" * 500 + b"]."


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def content(path: Path, member: str | None = None) -> bytes:
    with open_source(path, member) as source:
        pieces = []
        while piece := source.read():
            pieces.append(piece)
    return b"".join(pieces)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "some.file"
    path.write_bytes(data)
    return path


def page_with(*texts: bytes) -> bytes:
    script = b"\n".join(b'add_local_files([{"name": "s.pickle", "base64": "%s"}])' % text for text in texts)
    return b"<!DOCTYPE html>\n<html><head></head><body>\n<script>\n" + script + b"\n</script></body></html>"


@pytest.mark.parametrize(
    "packed",
    [
        PICKLE,
        gzip.compress(PICKLE),
        gzip.compress(PICKLE[:100]) + gzip.compress(PICKLE[100:]),
        gzip.compress(PICKLE[:1]) + gzip.compress(PICKLE[1:]) + b"trailing",
        bz2.compress(PICKLE),
        lzma.compress(PICKLE),
        zstd(PICKLE),
        page_with(base64.b64encode(PICKLE)),
        page_with(base64.b64encode(gzip.compress(PICKLE))),
        page_with(base64.b64encode(b"an image " * 20), base64.b64encode(PICKLE)),
        b"\xef\xbb\xbf\n " + page_with(base64.b64encode(PICKLE)),
    ],
    ids=[
        "plain",
        "gzip",
        "two-members",
        "tiny-member",
        "bzip2",
        "xz",
        "zstd",
        "html",
        "html-of-gzip",
        "html-second",
        "html-with-bom",
    ],
)
def test_the_pickle_is_found_in_every_container(tmp_path: Path, packed: bytes) -> None:
    assert content(written(tmp_path, packed)) == PICKLE


@pytest.mark.parametrize(
    ("start", "content"),
    [
        (PICKLE, Content.PICKLE),
        (b"]q\x00", Content.PICKLE),
        (b'\xef\xbb\xbf\n {"segments": []}', Content.JSON),
        (b"[1]", Content.JSON),
        (b"Thread,Time,Action,Pointer,Size,Stream\n", Content.RMM_LOG),
        (b'"Stream", "Thread", "Time", "Action", "Pointer", "Size", "more"\r\n1', Content.RMM_LOG),
        (b"Thread,Time,Action\n", None),
        (b"1979932,14:21:19.998533,allocate,0x30a000000,256,0x2\n", Content.RMM_LOG),
        (b"time,value\n1,2\n", None),
        (b"", None),
    ],
)
def test_what_may_be_read_is_told_by_the_first_bytes(start: bytes, content: Content | None) -> None:
    assert content_of(start) is content


def test_json_in_a_page_is_read_from_where_it_begins(tmp_path: Path) -> None:
    page = b'<html><script>const s = {"segments": [], "device_traces": []};</script></html>'
    with open_source(written(tmp_path, page)) as source:
        assert not source.is_whole
        assert source.read().startswith(b'{"segments": [], "device_traces": []};')


def zipped(tmp_path: Path, members: dict[str, bytes]) -> Path:
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("packed", [PICKLE, gzip.compress(PICKLE)], ids=["plain", "gzip"])
def test_a_member_of_an_archive_is_read_as_a_file_is(tmp_path: Path, packed: bytes) -> None:
    with open_source(zipped(tmp_path, {"a/b.pickle": packed, "c": b""}), "a/b.pickle") as source:
        assert b"".join(iter(source.read, b"")) == PICKLE


def test_a_member_that_is_something_else_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"a\x1b.txt": b"just words", "bomb": b"\x80\x04" + bytes(64 << 20), "cut": PICKLE * 99})
    with (
        pytest.raises(InputFileError, match=r"its 'a\\x1b.txt' is text, starting 'just words'"),
        open_source(path, "a\x1b.txt"),
    ):
        pass
    with pytest.raises(UnsafePickleError, match="its zip archive inflates more"):
        content(path, "bomb")
    damaged = bytearray(path.read_bytes())
    at = damaged.index(b"cut") + 10
    damaged[at : at + 20] = bytes(20)
    path.write_bytes(damaged)
    with pytest.raises(InputFileError, match="zip archive"):
        content(path, "cut")


def test_a_page_larger_than_a_step_is_decoded_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_source, "STEP_BYTES", 100)
    assert content(written(tmp_path, page_with(base64.b64encode(PICKLE)))) == PICKLE
    assert content(written(tmp_path, gzip.compress(PICKLE))) == PICKLE


REASONS = {
    b"": "is empty",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n": "is a Git LFS pointer, not the file itself",
    b"PK\x03\x04rest": "is a zip archive, not a memory snapshot",
    b"BZh91AY": "damaged: its bzip2 data does not unpack",
    b"BZh9 what is this": "damaged: its bzip2 data does not unpack",
    b"\xfd7zXZ\x00\x00": "damaged: its xz data does not unpack",
    b"\xfd7zXZ\x00 what is this": "damaged: its xz data does not unpack",
    b"\x28\xb5\x2f\xfd\x00": "damaged: its zstd data does not unpack",
    bz2.compress(PICKLE)[:-12]: "damaged: its bzip2 data does not unpack",
    lzma.compress(PICKLE)[:-12]: "damaged: its xz data does not unpack",
    zstd(PICKLE)[:-12]: "damaged: its zstd data does not unpack",
    bz2.compress(b"just words"): "the bzip2 file holds text",
    lzma.compress(gzip.compress(PICKLE)): "the xz file holds another packed file: unpack it once",
    gzip.compress(lzma.compress(PICKLE)): "the gzip holds another packed file: unpack it once",
    zstd(b""): "the zstd file holds nothing",
    b'{"schemaVersion": 1, "traceEvents": []}': "is a timeline of torch.profiler",
    gzip.compress(b'{\n "traceEvents": [' + b" " * 99): "the gzip holds a timeline of torch.profiler",
    b"PAR1....": "Parquet",
    b"just words": "is text, starting 'just words'",
    bytes(100): "is zeros",
    b"\x7fELF\x02\x01": "is unknown data",
    b"<html><body>nothing</body></html>": "HTML page that holds no memory snapshot",
    gzip.compress(b""): "the gzip holds nothing",
    gzip.compress(b"just words"): "the gzip holds text",
    gzip.compress(bytes(100)): "the gzip holds zeros",
    gzip.compress(gzip.compress(PICKLE)): "is a gzip inside a gzip",
    gzip.compress(b"<html></html>"): "is a gzipped HTML page",
    gzip.compress(PICKLE)[:-12]: "truncated: its gzip stream ends early",
    gzip.compress(PICKLE)[:5]: "truncated: its gzip stream ends early",
    b"\x1f\x8b": "truncated: its gzip stream ends early",
    b"\x1f\x8b\x99\x00 what is this": "damaged: its gzip stream does not inflate",
    gzip.compress(PICKLE)[:-8] + bytes(8): "damaged: its gzip stream does not inflate",
}


@pytest.mark.parametrize("data", REASONS, ids=lambda data: REASONS[data][:30])
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data)
    with pytest.raises(InputFileError) as caught:
        content(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert REASONS[data] in caught.value.reason
    assert "\n" not in caught.value.reason


def test_directories_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="is a directory"):
        content(tmp_path)
    with pytest.raises(InputFileError, match="no such file"):
        content(tmp_path / "none")
    with pytest.raises(InputFileError, match="no file name"):
        content(Path("a\0b"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, PICKLE)
    path.chmod(0)
    with pytest.raises(InputFileError, match="no permission"):
        content(path)


def test_a_gzip_that_inflates_too_far_is_refused_where_it_passes_the_limit(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(b"\x80\x04" + bytes(64 << 20)))
    with pytest.raises(UnsafePickleError, match="inflates more than 100 times"):
        content(path)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, zstd])
def test_what_unpacks_too_far_is_refused_where_it_passes_the_limit(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    assert len(content(written(tmp_path, pack(b"\x80\x04" + bytes(8 << 20))))) == (8 << 20) + 2
    path = written(tmp_path, pack(b"\x80\x04" + bytes(64 << 20)))
    with pytest.raises(UnsafePickleError, match="inflates more than 400 times"):
        content(path)


def test_a_gzip_within_the_free_size_may_inflate_as_it_likes(tmp_path: Path) -> None:
    assert len(content(written(tmp_path, gzip.compress(b"\x80\x04" + bytes(8 << 20))))) == (8 << 20) + 2
