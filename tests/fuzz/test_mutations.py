"""Thousands of changed inputs: each ends with the right exit code, in one line, in time, and within memory."""

from __future__ import annotations

import importlib
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.mutations import change_part, changed_container, changed_snapshot
from tests.fuzz.recorded import containers, part_folder, snapshots
from tests.fuzz.running import Ran, complaints, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc"),
]
N_CASES = 5000
LIMIT_S = 900
"""A kind of input is tried for so long: on a busy machine not all of its cases are."""
LEAST_CASES = 300
VERBS = (
    *(("report", "--json"), ("report",), ("peak", "--json"), ("frag", "--json"), ("oom", "--json"), ("kv", "--json")),
    *(("verify", "--json"), ("replay", "--json", "--strategy", "lower-bound", "--strategy", "caching"), ("import",)),
)
USED = (
    *("memscope.analysis", "memscope.trace.open", "memscope.reports.text", "memscope.reports.json"),
    *("memscope.reports.fragmentation", "memscope.reports.oom", "memscope.reports.replay"),
    *("memscope.reports.kv_cache", *(f"memscope.cli.{name}" for name in ("report", "peak", "frag", "oom", "kv"))),
    *(f"memscope.cli.{name}" for name in ("verify", "replay", "import_", "main")),
)
"""Imported here, so that no copy of this process need import them."""


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    for name in USED:
        importlib.import_module(name)


def tried(path: Path, rng: random.Random) -> Ran:
    """What a verb makes of an input."""
    verb, *options = rng.choice(VERBS)
    more = ("-f", "-o", path.with_name("out.memscope")) if verb == "import" else ()
    return run(verb, path, *options, *more)


def try_all(path: Path, make: Callable[[random.Random], None]) -> Counter[int]:
    """Try one case after the other; how often each exit code came."""
    codes: Counter[int] = Counter()
    wrong: list[str] = []
    end = time.monotonic() + LIMIT_S
    for seed in range(N_CASES):
        if time.monotonic() > end or len(wrong) > 20:
            break
        rng = random.Random(seed)
        make(rng)
        ran = tried(path, rng)
        codes[ran.code] += 1
        wrong += [f"seed {seed}: {text}" for text in complaints(ran, path)]
    assert not wrong, "\n".join(wrong)
    assert codes.total() >= LEAST_CASES
    return codes


def test_changed_snapshots(tmp_path: Path) -> None:
    sound, path = snapshots(), tmp_path / "changed.pickle"
    codes = try_all(path, lambda rng: path.write_bytes(changed_snapshot(rng.choice(sound), rng)) and None)
    assert codes[0] + codes[3] > codes.total() / 3, "too few reached the analyses"


def test_changed_containers(tmp_path: Path) -> None:
    sound, path = containers(), tmp_path / "changed.memscope"
    codes = try_all(path, lambda rng: path.write_bytes(changed_container(rng.choice(sound), rng)) and None)
    assert codes[0] + codes[3] > codes.total() / 3, "too few reached the analyses"


def test_changed_folders_of_recordings(tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    sound, path = part_folder(tmp_path / "sound"), tmp_path / "changed.memscope.part"

    def make(rng: random.Random) -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(sound, path)
        change_part(path, rng)

    codes = try_all(path, make)
    assert codes[0] + codes[3] > codes.total() / 4, "too few reached the analyses"
