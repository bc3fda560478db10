"""Opening by content, never by name."""

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import InputFileError, SeveralSnapshotsError
from memscope.trace.container import write_container
from memscope.trace.open import is_container, open_trace, split_part
from memscope.trace.snapshot.read import read_snapshot
from tests.properties import examples
from tests.trace.snapshot.snapshots import small, write


def test_both_formats_open_whatever_they_are_called(tmp_path: Path) -> None:
    snapshot = write(tmp_path, small())
    container = write_container(read_snapshot(snapshot), tmp_path / "really-a-container.pickle")
    misnamed = snapshot.rename(tmp_path / "really-a-pickle.memscope")
    assert open_trace(container).address.tolist() == open_trace(str(misnamed)).address.tolist()


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("archive/data.pkl", "made by torch.save"),
        ("readme.txt", "is a zip archive, but neither"),
        ("snapshot.pickle", "its 'snapshot.pickle' is text, starting 'content'"),
    ],
)
def test_other_zips_are_told_apart(tmp_path: Path, member: str, reason: str) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "content")
    with pytest.raises(InputFileError, match=reason):
        open_trace(path)


def test_a_damaged_zip_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "damaged.memscope"
    path.write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(InputFileError, match=r"not a readable \.memscope file") as caught:
        open_trace(path)
    assert "\n" not in str(caught.value)


def test_a_part_of_a_file_is_named_behind_a_sign(tmp_path: Path) -> None:
    path = write(tmp_path, {3: small(), "other": small()})
    assert open_trace(f"{path}#3").metadata.rank == 3
    assert split_part(Path(f"{path}#a/b#c")) == (path, "a/b#c")
    with pytest.raises(SeveralSnapshotsError, match=r"holds 2 snapshots \(3, other\): name one as .*snapshot.pickle#3"):
        open_trace(path)
    with pytest.raises(SeveralSnapshotsError, match="none of them called 'x'"):
        open_trace(f"{path}#x")
    whole = path.rename(tmp_path / "all#3")
    assert split_part(whole) == (whole, None)
    with pytest.raises(InputFileError, match="no such file"):
        open_trace(f"{path}#3")


def test_a_container_has_no_parts(tmp_path: Path) -> None:
    container = write_container(read_snapshot(write(tmp_path, small())), tmp_path / "a.memscope")
    assert is_container(container)
    with pytest.raises(InputFileError, match="has one trace and no parts"):
        open_trace(f"{container}#0")


@pytest.mark.parametrize("name", ["missing", "", "a\0b"])
def test_paths_that_are_no_files_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputFileError):
        open_trace(tmp_path / name)


STARTS = [
    b"",
    b"{",
    b'[{"segments":[]},',
    b"<html>",
    b"<script>let trace_data = {",
    b"1,2.5,free,",
    b"Thread,Time,Action,Pointer,Size,Stream\n",
    b"\x0a\x04\x08",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"\x80\x04",
    b"BZh9",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
]


@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=30) | st.text('{}[]",:0x\n', max_size=30).map(str.encode))
@examples(200)
def test_any_file_is_a_trace_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(start + rest)
    try:
        open_trace(path)
    except InputFileError as error:
        text = str(error)
    else:
        text = ""
    assert "\n" not in text
