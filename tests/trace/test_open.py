"""Opening by content, never by name."""

import zipfile
from pathlib import Path

import pytest

from memscope.errors import InputFileError
from memscope.trace.container import write_container
from memscope.trace.open import open_trace
from memscope.trace.snapshot.read import read_snapshot
from tests.trace.snapshot.snapshots import small, write


def test_both_formats_open_whatever_they_are_called(tmp_path: Path) -> None:
    snapshot = write(tmp_path, small())
    container = write_container(read_snapshot(snapshot), tmp_path / "really-a-container.pickle")
    misnamed = snapshot.rename(tmp_path / "really-a-pickle.memscope")
    assert open_trace(container).address.tolist() == open_trace(str(misnamed)).address.tolist()


@pytest.mark.parametrize(
    ("member", "reason"),
    [("archive/data.pkl", "made by torch.save"), ("readme.txt", "is a zip archive, but neither")],
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


@pytest.mark.parametrize("name", ["missing", "", "a\0b"])
def test_paths_that_are_no_files_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputFileError):
        open_trace(tmp_path / name)
