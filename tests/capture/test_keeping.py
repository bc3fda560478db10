"""A dry run that is killed leaves what was older than a second, and says what is missing; an import all or nothing."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memscope.capture.keeping import Keeper
from memscope.errors import CaptureError, UsageError
from memscope.trace.builder import TraceBuilder
from memscope.trace.container import read_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.open import open_trace
from memscope.trace.recording.folder import part_of
from memscope.trace.schema import Action
from memscope.trace.trace import Trace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
PROGRAM = Path(__file__).with_name("killed_dry_runs.py")
METADATA = TraceMetadata(source="dry-run")


class Growing:
    """A recording that is made here, event by event."""

    def __init__(self) -> None:
        self._builder = TraceBuilder()
        self.is_between = True

    def add(self) -> None:
        self._builder.add_event(Action.ALLOC, address=(1 << 30) + 512 * self.n_events, size_bytes=512)

    @property
    def n_events(self) -> int:
        return self._builder.n_events

    def build(self) -> Trace:
        return self._builder.build(METADATA)

    def keeper(self, target: Path, **options: object) -> Keeper:
        return Keeper(target, self.build, lambda: self.n_events, lambda: self.is_between, max_loss_s=0.1, **options)


def wait_for(n_events: int, folder: Path) -> Trace:
    """The trace that is kept, once it has so many events."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        trace = read_container(folder / "whole.memscope")
        if trace.n_events >= n_events:
            return trace
        time.sleep(0.01)
    raise AssertionError("nothing was kept for a minute")


def test_what_was_recorded_is_kept_while_it_goes_on_and_removed_at_its_end(tmp_path: Path) -> None:
    target, recording = tmp_path / "run.memscope", Growing()
    keeper = recording.keeper(target)
    keeper.start(METADATA)
    try:
        for n in (1, 2):
            recording.add()
            assert wait_for(n, part_of(target)).n_events == n
        with pytest.raises(CaptureError, match="is being recorded by another process"):
            recording.keeper(target)
    finally:
        keeper.stop()
    trace = open_trace(target)
    assert trace.n_events == 2
    assert "cut off" in trace.metadata.notes[-1]
    keeper.remove()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept_in_the_middle_of_a_request(tmp_path: Path) -> None:
    target, recording = tmp_path / "run.memscope", Growing()
    recording.is_between = False
    keeper = recording.keeper(target)
    keeper.start(METADATA)
    try:
        recording.add()
        counted = part_of(target) / "calls.bin"
        deadline = time.monotonic() + 60
        while not counted.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_container(part_of(target) / "whole.memscope").n_events == 0
        recording.is_between = True
        assert wait_for(1, part_of(target)).n_events == 1
    finally:
        keeper.stop()


def test_a_run_that_was_cut_off_is_not_replaced_unasked(tmp_path: Path) -> None:
    kill(tmp_path, 1)
    with pytest.raises(UsageError, match="is a recording that was cut off: keep it"):
        Growing().keeper(tmp_path / "killed.memscope")
    Growing().keeper(tmp_path / "killed.memscope", overwrite=True)


def kill(folder: Path, n_kills: int) -> list[dict[str, object]]:
    """What is found of dry runs that were killed."""
    pytest.importorskip("torch")
    command = [sys.executable, str(PROGRAM), str(folder), "1", str(n_kills)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.slow
def test_a_dry_run_killed_at_any_moment_has_what_was_older_than_a_second(tmp_path: Path) -> None:
    found = kill(tmp_path, 20)
    late = [one for one in found if one.get("found", 0) < one["older"]]
    assert len(late) <= 1, late  # a machine that is busy with other things may once be late
    for one in found:
        assert not one.get("contradictions"), one
        if "found" in one:
            assert "cut off" in one["notes"][-1]
            assert one["lost"] is None or one["lost"] > 0
            assert one["owners"] > 0
    assert sum(one["older"] > 0 for one in found) >= 10
    assert sum(one.get("found", 0) > 0 for one in found) >= 10


@pytest.mark.slow
def test_an_import_killed_at_any_moment_leaves_its_file_whole_or_not_at_all(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "traces" / "tiny-llama-train.memscope"
    target = tmp_path / "out.memscope"
    command = [sys.executable, "-m", "memscope", "import", "-f", str(source), "-o", str(target)]
    begin = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    took_s = time.monotonic() - begin
    whole = target.read_bytes()
    rng = random.Random(1)
    for i in range(20):
        if i % 2:
            target.unlink()
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.5, 1.0) * took_s)
        started.send_signal(signal.SIGKILL)
        started.wait()
        assert not target.exists() or target.read_bytes() == whole
        if not i % 2:
            assert target.exists()
        # What it was writing stays under a name of its own, until the next one is begun.
        left = [path.name for path in tmp_path.iterdir() if path != target]
        assert len(left) <= 1, left
        assert all(name.startswith(".out.memscope.") for name in left)
        target.write_bytes(whole)
    subprocess.run(command, capture_output=True, check=True)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == whole
