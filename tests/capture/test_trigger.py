"""Switching a recording on and off by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memscope.capture.trigger import SignalTrigger, always_ready, cuda_is_ready, numbered_path
from memscope.errors import CaptureError

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="this system has no SIGUSR2")


class Recordings:
    """Makes recordings that say what they do; ``fails`` and ``meanwhile`` happen in the next start."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.fails: Exception | None = None
        self.meanwhile: Callable[[], None] | None = None

    def make(self, path: Path) -> Recordings:
        self.path = path
        return self

    def start(self) -> None:
        if self.fails is not None:
            raise self.fails
        if self.meanwhile is not None:
            self.meanwhile()
        self.said.append(f"start {self.path.name}")

    def stop(self) -> None:
        self.path.write_text("a trace")
        self.said.append(f"stop {self.path.name}")


@pytest.fixture
def recordings() -> Recordings:
    return Recordings()


@pytest.fixture
def trigger(recordings: Recordings, tmp_path: Path) -> Iterator[SignalTrigger]:
    made = SignalTrigger(recordings.make, tmp_path / "a.memscope", say=lambda line: None, is_ready=always_ready)
    yield made.install()
    made.remove()


def send() -> None:
    signal.raise_signal(signal.SIGUSR2)


def test_each_second_signal_ends_a_file_of_its_own(trigger: SignalTrigger, recordings: Recordings) -> None:
    send()
    assert trigger.is_recording
    send()
    assert not trigger.is_recording
    send()
    send()
    assert recordings.said == ["start a-1.memscope", "stop a-1.memscope", "start a-2.memscope", "stop a-2.memscope"]


def test_files_that_exist_are_left_alone(trigger: SignalTrigger, recordings: Recordings, tmp_path: Path) -> None:
    (tmp_path / "a-1.memscope").write_text("old")
    send()
    assert recordings.said == ["start a-2.memscope"]


def test_removing_ends_the_recording_and_puts_the_handler_back(recordings: Recordings, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    trigger = SignalTrigger(recordings.make, tmp_path / "a", say=lambda line: None, is_ready=always_ready).install()
    send()
    trigger.remove()
    assert recordings.said == ["start a-1", "stop a-1"]
    assert signal.getsignal(signal.SIGUSR2) == before


def test_a_handler_that_was_there_is_called_too(recordings: Recordings, tmp_path: Path) -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    try:
        trigger = SignalTrigger(recordings.make, tmp_path / "a", say=lambda line: None, is_ready=always_ready).install()
        send()
        trigger.remove()
        send()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert called == [signal.SIGUSR2, signal.SIGUSR2]
    assert recordings.said == ["start a-1", "stop a-1"]


def test_what_goes_wrong_is_said_and_the_program_goes_on(recordings: Recordings, tmp_path: Path) -> None:
    said: list[str] = []
    trigger = SignalTrigger(recordings.make, tmp_path / "a", say=said.append, is_ready=always_ready).install()
    try:
        recordings.fails = CaptureError("a recording is under way already")
        send()
        assert said == ["a recording is under way already"]
        assert not trigger.is_recording
        recordings.fails = None
        send()
        assert trigger.is_recording
    finally:
        trigger.remove()


def test_a_signal_during_the_start_is_carried_out_after_it(trigger: SignalTrigger, recordings: Recordings) -> None:
    recordings.meanwhile = send
    send()
    assert recordings.said == ["start a-1.memscope", "stop a-1.memscope"]


def test_a_signal_before_the_program_is_ready_starts_when_it_is(recordings: Recordings, tmp_path: Path) -> None:
    said: list[str] = []
    called: list[int] = []
    ready = threading.Event()
    before = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    trigger = SignalTrigger(recordings.make, tmp_path / "a", say=said.append, is_ready=ready.is_set).install()
    try:
        send()
        assert (trigger.is_waiting, trigger.is_recording) == (True, False)
        send()
        assert (trigger.is_waiting, said[-1]) == (False, "recording will not start")
        send()
        ready.set()
        began = time.perf_counter()
        while not trigger.is_recording:
            assert time.perf_counter() - began < 10, "the recording did not start"
            time.sleep(0.01)
        send()
    finally:
        trigger.remove()
        signal.signal(signal.SIGUSR2, before)
    assert recordings.said == ["start a-1", "stop a-1"]
    assert len(called) == 4, "the trigger's own signal is not the user's"


def test_a_forked_child_does_not_record(trigger: SignalTrigger, recordings: Recordings) -> None:
    """As the child sees it: under another process's number."""
    trigger._pid = os.getpid() + 1
    send()
    assert recordings.said == []
    trigger._pid = os.getpid()


def test_it_must_be_set_up_in_the_main_thread(recordings: Recordings, tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def install() -> None:
        try:
            SignalTrigger(recordings.make, tmp_path / "a").install()
        except CaptureError as error:
            raised.append(error)

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


def test_cuda_is_not_ready_where_torch_is_not_or_only_half_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not cuda_is_ready()
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    assert not cuda_is_ready()


def test_the_number_goes_before_the_suffix() -> None:
    assert numbered_path("runs/a.memscope", 2) == Path("runs/a-2.memscope")


def test_a_dry_run_is_switched_by_real_signals_and_kept_at_exit(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    program = """
import os, signal, sys
from pathlib import Path
from memscope.capture.recorder import Recorder
from memscope.capture.trigger import SignalTrigger, always_ready
import torch
SignalTrigger(lambda p: Recorder(p, backend="dry-run"), sys.argv[1], is_ready=always_ready).install()
for _ in range(3):
    os.kill(os.getpid(), signal.SIGUSR2)
    kept = torch.empty(1 << 20, device="cuda") if torch.cuda.is_available() else None
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.memscope")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.memscope", "a-2.memscope"], done.stderr
