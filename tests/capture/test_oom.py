"""Out of memory: who is told, what the error says afterwards, and where the file goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.capture import oom
from memscope.capture.oom import OutOfMemory, add_oom_note, is_out_of_memory, listen, oom_path, stop_listening

torch = pytest.importorskip("torch")
Observer = Callable[[int, int, int, int], None]


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[Observer]:
    observers: list[Observer] = []
    monkeypatch.setattr(torch._C, "_cuda_attach_out_of_memory_observer", observers.append, raising=False)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(oom, "_is_attached", False)
    monkeypatch.setattr(oom, "_listeners", [])
    return observers


def test_one_observer_is_attached_and_forwards_to_whoever_listens(attached: list[Observer]) -> None:
    first: list[OutOfMemory] = []
    second: list[OutOfMemory] = []
    assert listen(first.append)
    stop_listening(first.append)
    assert listen(second.append)
    assert listen(second.append)
    assert len(attached) == 1
    attached[0](1, 211812352, 104857600, 81788928)
    assert first == []
    [report] = second
    assert (report.device, report.segment_bytes, report.limit_bytes) == (1, 211812352, 104857600)
    assert report.device_free_bytes == 81788928
    assert report.time_ns > 10**18


def test_an_error_of_a_listener_is_printed_and_keeps_none_from_being_told(
    attached: list[Observer], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(report: OutOfMemory) -> None:
        raise OSError("disk full")

    told: list[OutOfMemory] = []
    listen(fail)
    listen(told.append)
    attached[0](0, 1, 2, 3)
    assert len(told) == 1
    assert "disk full" in capsys.readouterr().err


def test_a_torch_without_cuda_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_cuda_attach_out_of_memory_observer", raising=False)
    assert listen(lambda report: None) is False


def test_only_torchs_own_error_is_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("CUDA out of memory"))
    assert not is_out_of_memory(type("OutOfMemoryError", (RuntimeError,), {})())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no notes")
def test_the_note_is_one_line_once_and_leaves_the_text_alone() -> None:
    error = RuntimeError("CUDA out of memory")
    for _ in range(2):
        add_oom_note(error, "a.memscope", "weights fill it")
    assert error.__notes__ == ["memscope: weights fill it; the trace is in a.memscope"]
    assert error.args == ("CUDA out of memory",)
    plain = RuntimeError()
    add_oom_note(plain, Path("b.memscope"), "")
    assert plain.__notes__ == ["memscope: the trace is in b.memscope"]
    long = RuntimeError()
    add_oom_note(long, "c.memscope", "two\nlines")
    add_oom_note(long, "c.memscope", "two\nlines")
    assert long.__notes__ == ["memscope: two lines; the trace is in c.memscope"]


def test_an_error_that_takes_no_notes_is_left_alone() -> None:
    class OldError(RuntimeError):
        add_note = None  # as in Python 3.10

    error = OldError("text")
    add_oom_note(error, "a.memscope", "verdict")
    assert error.args == ("text",)


def test_the_file_name_has_rank_process_and_time_before_the_suffix() -> None:
    time_ns = 1_767_323_045_678_999_999  # 2026-01-02 03:04:05.678999999 UTC
    name = oom_path("runs/train.memscope", 3, 4711, time_ns)
    assert name == Path("runs/train-oom-rank3-pid4711-20260102T030405.678Z.memscope")
    assert oom_path("train", None, 1, time_ns) == Path("train-oom-pid1-20260102T030405.678Z.memscope")
