"""Which member of an archive is the snapshot."""

import pickle
import zipfile
from pathlib import Path

import pytest

from memscope.errors import InputFileError, SeveralSnapshotsError
from memscope.trace.open import open_trace
from memscope.trace.zip_members import choose_member, is_zip, member_names
from tests.trace.snapshot.snapshots import small

PICKLE = pickle.dumps(small(), 2)


def zipped(tmp_path: Path, *names: str) -> Path:
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else PICKLE)
    return path


def test_a_file_that_is_no_archive_has_no_member(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(PICKLE)
    assert not is_zip(path)
    assert not is_zip(tmp_path / "missing")
    assert choose_member(path, "3") == (None, "3")


@pytest.mark.parametrize(
    ("names", "part", "chosen"),
    [
        (["dir/", "dir/snap.pickle"], None, ("dir/snap.pickle", None)),
        (["snap.pkl", "README.md", ".DS_Store"], "2", ("snap.pkl", "2")),
        (["a.pickle", "b.pickle"], "b.pickle", ("b.pickle", None)),
        (["a.pickle", "b.pickle"], "b.pickle#3", ("b.pickle", "3")),
        (["archive/data.pkl", "archive/data/0", "archive/version"], None, ("archive/data.pkl", None)),
    ],
)
def test_the_member_is_the_one_named_or_the_only_one(
    tmp_path: Path, names: list[str], part: str | None, chosen: tuple[str, str | None]
) -> None:
    assert choose_member(zipped(tmp_path, *names), part) == chosen


def test_several_are_listed_and_none_is_said(tmp_path: Path) -> None:
    path = zipped(tmp_path, *(f"rank{i}\x1b.pickle" for i in range(20)))
    with pytest.raises(SeveralSnapshotsError) as caught:
        choose_member(path, None)
    assert len(caught.value.paths) == 20
    assert r"holds 20 snapshots (rank0\x1b.pickle, " in str(caught.value)
    assert "and 12 more" in str(caught.value)
    assert str(caught.value).isprintable()
    assert choose_member(path, "rank3\x1b.pickle") == ("rank3\x1b.pickle", None)
    with pytest.raises(InputFileError, match=r"neither a \.memscope file nor"):
        choose_member(zipped(tmp_path, "notes.txt"), None)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, "a.pickle")
    path.write_bytes(path.read_bytes()[:-30])
    assert member_names(path) is None
    with pytest.raises(InputFileError, match="damaged: its zip archive cannot be read"):
        choose_member(path, None)


def test_a_snapshot_that_torch_saved_is_read_and_anything_else_is_a_checkpoint(tmp_path: Path) -> None:
    assert open_trace(zipped(tmp_path, "archive/data.pkl", "archive/version")).n_events == 5
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02ccollections\nOrderedDict\n)R.")
    with pytest.raises(InputFileError, match=r"is a checkpoint made by torch\.save, not a memory snapshot: record one"):
        open_trace(path)


def test_a_damaged_snapshot_that_torch_saved_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "snap.pt"
    snapshot = small()
    del snapshot["segments"][0]["total_size"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("snap/data.pkl", pickle.dumps(snapshot, 2))
    with pytest.raises(InputFileError, match=r"segments\[0\]: no 'total_size'"):
        open_trace(path)
