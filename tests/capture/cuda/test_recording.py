"""The recording on a GPU, with torch's history replaced by a snapshot of known content."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import memscope
from memscope.attribution.attribution import attribute
from memscope.capture.cuda.recording import CudaHistory, RecordingFolder
from memscope.errors import CaptureError, UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category
from memscope.trace.open import open_trace
from memscope.trace.recording.folder import cut_off_message
from memscope.trace.schema import NONE_ID, Action, MarkKind
from tests.capture.cuda.fake_history import FakeHistory, FakeTensor, drain
from tests.capture.programs import owners

torch = pytest.importorskip("torch")


def test_what_was_built_before_the_recording_is_named_too(history: FakeHistory) -> None:
    weight = FakeTensor(history.alloc(100))
    model = SimpleNamespace(named_parameters=lambda: [("layer.weight", weight)], named_modules=list)
    with memscope.record(model=model) as rec:  # type: ignore[arg-type]
        history.alloc(200)
    lifetimes = DeviceLifetimes(rec.trace, 0)
    attribution = attribute(lifetimes)
    assert lifetimes.allocations.requested_bytes.tolist() == [100, 200]
    assert lifetimes.allocations.alloc_event[0] == NONE_ID
    assert attribution.category.tolist() == [Category.WEIGHTS, Category.UNKNOWN]
    assert rec.trace.string(int(attribution.owner_id[0])) == "layer.weight"


def test_a_history_becomes_a_trace_with_marks_tags_and_owners(history: FakeHistory) -> None:
    tensors: dict[str, Any] = {}
    buffers = SimpleNamespace(_buffers={"freqs": None, "none": None}, _non_persistent_buffers_set={"freqs"})
    model = SimpleNamespace(named_parameters=tensors.items, named_modules=lambda: [("", buffers)])
    with memscope.record(model=model) as rec:  # type: ignore[arg-type]
        tensors["layer.weight"] = FakeTensor(history.alloc(100))
        buffers._buffers["freqs"] = FakeTensor(history.alloc(50))
        with rec.phase("load"):
            history.alloc(200)
        with memscope.tag("scratch"):
            drain(rec)
            history.alloc(300)
        rec.step()
        kept = FakeTensor(history.alloc(400))
        memscope.tag(kept, "kv_cache")  # type: ignore[type-var]
    trace = rec.trace
    assert history.calls[-1] is None
    assert trace.metadata.source == "cuda"
    assert trace.metadata.device_total_bytes == {0: 1 << 30}
    assert trace.metadata.memory_fraction == {0: 0.5}
    assert trace.metadata.device_names == {0: "Fake GPU"}
    assert trace.metadata.n_events_lost == 0
    assert trace.metadata.extra["memory_stats_at_begin"] == {"0": {"num_ooms": 0}}
    assert trace.size_bytes[trace.action == Action.ALLOC].tolist() == [100, 50, 200, 300, 400]
    assert trace.marks.event.tolist() == [2, 3, 4]
    assert trace.marks.kind.tolist() == [MarkKind.PHASE_BEGIN, MarkKind.PHASE_END, MarkKind.STEP]
    assert owners(trace) == {
        0: (Category.WEIGHTS, "layer.weight"),
        1: (Category.WORKSPACE, "freqs"),
        3: (Category.UNKNOWN, "scratch"),
        4: (Category.KV_CACHE, "kv_cache"),
    }
    assert trace.owners.tagged.tolist() == [False, False, True, True]


def test_a_failing_program_leaves_its_history_and_switches_it_off(history: FakeHistory) -> None:
    rec = memscope.record()

    def fail() -> None:
        history.alloc(100)
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError), rec:
        fail()
    assert rec.trace.n_events == 1
    assert history.calls[-1] is None


def test_the_programs_own_history_is_switched_on_afterwards(history: FakeHistory) -> None:
    with memscope.record() as rec:
        torch.cuda.memory._record_memory_history("state")
        history.alloc(1)
    assert rec.trace.n_events == 1
    assert history.calls[-2:] == [None, "state"]


def test_a_history_that_was_on_before_is_on_afterwards(history: FakeHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_cuda_isHistoryEnabled", lambda: True)
    with memscope.record(nvml=False) as rec:
        history.alloc(1)
    assert history.calls[-1] == "all"
    assert rec.trace.metadata.notes == ("The program was recording a history of its own before: it was cleared.",)


def test_the_folder_can_be_opened_while_recording_and_is_gone_afterwards(history: FakeHistory, tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"
    with memscope.record(path) as rec:
        history.alloc(100)
        drain(rec)
        drain(rec)  # waits for the one before
        assert open_trace(path).size_bytes.tolist() == [100]
        with pytest.raises(CaptureError, match="is being recorded by another process"):
            RecordingFolder(path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.memscope"]
    assert open_trace(path).metadata.n_events_lost == 0


def test_a_recording_that_was_cut_off_is_replaced_only_when_asked(history: FakeHistory, tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"
    rec = memscope.record(path).start()
    history.alloc(100)
    drain(rec)
    assert isinstance(rec.backend, CudaHistory)
    assert rec.backend.history is not None
    rec.backend.history.read_now()  # waits for the one before, and leaves none at work
    part = tmp_path / "run.memscope.part"
    shutil.copytree(part, tmp_path / "kept")
    rec.stop()
    path.unlink()
    record = json.loads((tmp_path / "kept" / "recording.json").read_text())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "kept" / "recording.json").write_text(json.dumps({**record, "pid": ended.pid}))
    (tmp_path / "kept").rename(part)
    assert cut_off_message(path) is not None
    with pytest.raises(UsageError, match="was cut off: keep it with memscope import"), memscope.record(path):
        pass
    assert open_trace(part).n_events == 1
    with memscope.record(path, overwrite=True):
        history.alloc(200)
    assert open_trace(path).size_bytes.tolist() == [200]
    assert cut_off_message(path) is None
