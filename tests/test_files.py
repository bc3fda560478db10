"""Output files appear whole, and only where asked; inputs are files, and unpack within bounds."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memscope.attribution.rule_file import read_rules
from memscope.errors import InputFileError, UsageError
from memscope.files import require_file, require_room, unpacked, whole_file
from memscope.serving.model_config import read_model_config
from memscope.serving.request_files import read_requests
from memscope.trace.open import open_trace


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with whole_file(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failing_block_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def write_and_fail() -> None:
        with whole_file(path, overwrite=True) as file:
            file.write(b"new")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        write_and_fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_existing_file_is_kept_unless_overwriting(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists already"), whole_file(path):
        pass
    with whole_file(path, overwrite=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be written"), whole_file(tmp_path / "no" / "out"):
        pass


def test_writers_of_one_place_do_not_meet_and_without_leave_the_second_says_so(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with whole_file(path, overwrite=True) as first, whole_file(path, overwrite=True) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # whose block ended last
    path.unlink()

    def write_beside_another() -> None:
        with whole_file(path) as file:
            file.write(b"late")
            path.write_bytes(b"early")

    with pytest.raises(UsageError, match="exists already"):
        write_beside_another()
    assert path.read_bytes() == b"early"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


KILLED = """
import os, signal, sys
from memscope.files import whole_file
with whole_file(sys.argv[1], overwrite=True) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no such signal")
@pytest.mark.parametrize("name", ["out", "x" * 255, "[a]*.b"])
def test_what_a_killed_writer_left_is_removed_by_the_next_and_nothing_else_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    others = {tmp_path / f".{name[:200]}.0123.partial", tmp_path / ".other.0123456789abcdef.partial"}
    for other in others:
        other.touch()
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (left,) = set(tmp_path.iterdir()) - others - {path}
    with whole_file(tmp_path / "unlike"):
        assert left.exists()
    with whole_file(path, overwrite=True) as first:
        assert not left.exists()
        with whole_file(path, overwrite=True):  # what another is writing stays
            assert len(set(tmp_path.iterdir()) - others) == 4
        first.write(b"new")
    assert path.read_bytes() == b"new"
    assert set(tmp_path.iterdir()) - others == {path, tmp_path / "unlike"}


def test_a_file_that_another_removes_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open, made = open, []

    def open_and_lose(path: Path, mode: str) -> object:
        file = real_open(path, mode)
        made.append(path)
        if len(made) == 1:
            path.unlink()
        return file

    monkeypatch.setattr("builtins.open", open_and_lose)
    with whole_file(tmp_path / "out") as file:
        file.write(b"content")
    assert len(made) == 2
    assert (tmp_path / "out").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_a_name_as_long_as_a_disk_takes_is_written(tmp_path: Path, name: str) -> None:
    with whole_file(tmp_path / name) as file:
        file.write(b"content")
    assert (tmp_path / name).read_bytes() == b"content"


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for place in (Path(os.devnull), tmp_path / "pipe", tmp_path / "folder"):
        with pytest.raises(UsageError, match="choose another name"), whole_file(place, overwrite=True):
            pass
        with pytest.raises(UsageError, match="choose another name"):
            require_room(place)


def test_an_error_of_the_block_is_not_taken_for_one_of_the_disk(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_file(tmp_path / "out"):
            (tmp_path / "none").read_bytes()

    with pytest.raises(FileNotFoundError):
        fail()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_is_said_whatever_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = open
    monkeypatch.setattr("builtins.open", lambda path, mode: real_open("/dev/full", "wb"))

    def write() -> None:
        with whole_file(tmp_path / "out") as file:
            file.write(bytes(1 << 20))

    with pytest.raises(InputFileError, match="out: cannot be written: No space left on device"):
        write()
    with pytest.raises(InputFileError, match="out: cannot be written: No space left on device"):
        require_room(tmp_path / "out")


def test_room_is_looked_for_before_long_work_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_room(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputFileError, match="No such file or directory"):
        require_room(tmp_path / "no" / "out")
    monkeypatch.setattr("memscope.files.LEAST_FREE_BYTES", 1 << 60)
    with pytest.raises(InputFileError, match="of its disk are free"):
        require_room(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_packed_texts_are_unpacked_within_bounds() -> None:
    text = "".join(f"{i},{i * 7919 % 1000}\n" for i in range(100_000)).encode()
    assert unpacked("a", text) == text
    assert unpacked("a", gzip.compress(text)) == text
    assert unpacked("a", gzip.compress(text) + gzip.compress(b"more")) == text + b"more"
    for bomb in (gzip.compress(bytes(64 << 20)), gzip.compress(bytes(1 << 20)) * 64):
        with pytest.raises(InputFileError, match="a: unpacks to more than 16 times its size"):
            unpacked("a", bomb)
    for damaged in (gzip.compress(text)[:-9], gzip.compress(text)[:5]):
        with pytest.raises(InputFileError, match="a: cannot be read: its gzip stream ends early"):
            unpacked("a", damaged)
    with pytest.raises(InputFileError, match="a: cannot be read: Error"):
        unpacked("a", b"\x1f\x8b" + bytes(50))


def test_what_would_be_waited_for_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a pipe"), (Path("/dev/zero"), "a device")):
        for read in (require_file, open_trace, read_requests, read_model_config, read_rules):
            with pytest.raises(InputFileError, match=f"is {kind}, not a file"):
                read(path)
    require_file(tmp_path)
    require_file(tmp_path / "none")
    require_file("\0")
