"""``memscope import``."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.snapshot.write import write_snapshot
from tests.conftest import Outcome
from tests.naive_layout import random_layout
from tests.trace.snapshot.snapshots import small, write

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


def test_what_contradicts_itself_is_refused_as_by_every_verb(memscope: Run, tmp_path: Path) -> None:
    snapshot = small()
    snapshot["segments"][0]["blocks"][1]["size"] -= 512
    path = write(tmp_path, snapshot)
    outcome = memscope("import", path)
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err == memscope("report", path).err
    assert not list(tmp_path.glob("*.memscope"))


def test_inputs_of_every_kind_get_names_of_their_own(memscope: Run, tmp_path: Path) -> None:
    ranks = tmp_path / "all.json"
    ranks.write_text(json.dumps({"rank 0": small(), 1: small()}))
    log = tmp_path / "rmm.csv.gz"
    log.write_bytes(gzip.compress(LOG.encode()))
    outcome = memscope("import", f"{ranks}#rank 0", f"{ranks}#1", log)
    assert (outcome.code, outcome.err) == (0, "")
    made = sorted(path.name for path in tmp_path.glob("*.memscope"))
    assert made == ["all-1.memscope", "all-rank_0.memscope", "rmm.memscope"]
    several = memscope("import", ranks)
    assert several.code == 1
    assert several.err == memscope("peak", ranks).err
    assert "holds 2 snapshots (rank 0, 1): name one as" in several.err


LOG = """Thread,Time,Action,Pointer,Size,Stream
1,15:47:02.841961,allocate,0x10012400000,1048576,0
1,15:47:02.841977,allocate,0x10012500000,2097153,0x7f8a38001020
2,15:47:02.841990,free,0x10012400000,1048576,0
2,15:47:02.842990,allocate failure,0x0,1099511627776,0
1,15:47:02.851961,allocate,0x10012400000,1000,0
"""
RMM_ANSWERS = {
    ("report",): (0, "peak 3.0 MiB allocated", ""),
    ("peak",): (0, "not measured", ""),
    ("peak", "--by", "tag"): (0, "not tagged", ""),
    ("frag",): (0, "fragmentation is not measured: the segments were not recorded", ""),
    ("frag", "--over-time"): (0, "fragmentation is not measured", ""),
    ("kv",): (0, "No key/value cache is known of", ""),
    ("replay", "--strategy", "caching"): (0, "the recorded peak of reserved memory was not measured", ""),
    ("oom",): (3, "Cannot tell: 1.0 TiB asked", "segments were not recorded"),
    ("verify",): (3, "not comparable", "segment events were not recorded"),
    ("tune",): (1, "", "no setting of PyTorch's allocator was in force in a log of RMM"),
}


@pytest.mark.parametrize("verb", RMM_ANSWERS, ids=" ".join)
def test_every_verb_says_what_a_log_of_rmm_can_answer(memscope: Run, tmp_path: Path, verb: tuple[str, ...]) -> None:
    path = tmp_path / "rmm.csv"
    path.write_text(LOG)
    code, words, reason = RMM_ANSWERS[verb]
    outcome = memscope(verb[0], path, *verb[1:])
    assert outcome.code == code
    assert words in outcome.out
    assert reason in outcome.err
    assert outcome.err.count("\n") <= 1
    assert " 0 B reserved" not in outcome.out


def test_a_replay_of_another_allocators_requests_is_never_exact(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "rmm.csv"
    path.write_text(LOG)
    content = json.loads(memscope("replay", path, "--json").out)
    kinds = {one["exactness"] for one in content["results"]}
    assert kinds == {"modelled", "bound"}
