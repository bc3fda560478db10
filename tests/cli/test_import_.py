"""``memscope import``."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path

from memscope.trace.snapshot.write import write_snapshot
from tests.conftest import Outcome
from tests.naive_layout import random_layout

Run = Callable[..., Outcome]


def test_import_writes_beside_the_input_and_never_overwrites(memscope: Run, tmp_path: Path) -> None:
    snapshot = tmp_path / "snap.pickle"
    write_snapshot(random_layout(3, 30).trace(), snapshot)
    assert memscope("import", snapshot).code == 0
    assert (tmp_path / "snap.memscope").exists()
    again = memscope("import", snapshot)
    assert again.code == 1
    assert "-f" in again.err
    assert memscope("import", snapshot, "-f").code == 0
    left = json.loads(memscope("report", snapshot, "--json").out)["devices"]
    right = json.loads(memscope("report", tmp_path / "snap.memscope", "--json").out)["devices"]
    assert left == right


def test_a_memscope_file_is_not_imported_beside_itself(memscope: Run, tmp_path: Path) -> None:
    snapshot = tmp_path / "snap.pickle.xz"
    snapshot.write_bytes(lzma.compress(write_snapshot(random_layout(3, 30).trace(), tmp_path / "plain").read_bytes()))
    assert memscope("import", snapshot).code == 0
    made = tmp_path / "snap.memscope"
    again = memscope("import", made)
    assert again.code == 1
    assert again.err == f"memscope: {made} is a .memscope file already: every command reads it as it is\n"
    (tmp_path / "elsewhere").mkdir()
    assert memscope("import", made, "-o", tmp_path / "elsewhere").code == 0
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["snap.memscope"]
