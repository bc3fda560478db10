"""The recording on a GPU, with torch's history replaced by a snapshot of known content."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
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
from tests.capture.programs import owners

torch = pytest.importorskip("torch")
_BASE = 0x7F00_0000_0000
_MIB = 1 << 20


class FakeHistory:
    """Stands in for ``torch.cuda.memory``'s history: allocations are said, not made."""

    def __init__(self) -> None:
        self.size = 1 << 30
        self.events: list[dict[str, Any]] = []
        self.blocks: list[dict[str, Any]] = []
        self.calls: list[Any] = []
        self.n_allocs = 0

    def _event(self, action: str, address: int, size: int) -> None:
        now_us = time.time_ns() // 1000
        event = {"action": action, "addr": address, "size": size, "stream": 0, "time_us": now_us, "pool_id": (0, 0)}
        self.events = [*self.events, event][-self.size :]

    def alloc(self, size: int) -> int:
        address = _BASE + 512 * len(self.blocks)
        self.n_allocs += 1
        self._event("alloc", address, size)
        block = {"address": address, "size": 512, "requested_size": size, "state": "active_allocated", "frames": []}
        self.blocks.append(block)
        return address

    def record(self, enabled: str | None, *, clear_history: bool = False, max_entries: int = 0, **_: Any) -> None:
        self.calls.append(enabled)
        self.size = max_entries or self.size
        if clear_history or enabled is None:
            self.events = []

    def stats(self, _: int) -> dict[str, Any]:
        counted = {"allocated": self.n_allocs, "freed": 0}
        return {"allocation": {"all": counted}, "active": {"all": counted}}

    def reset(self) -> None:
        self.n_allocs = 0

    def snapshot(self) -> dict[str, Any]:
        used = 512 * len(self.blocks)
        rest = {
            "address": _BASE + used,
            "size": 2 * _MIB - used,
            "requested_size": 0,
            "state": "inactive",
            "frames": [],
        }
        segment = {
            "device": 0,
            "address": _BASE,
            "total_size": 2 * _MIB,
            "allocated_size": used,
            "active_size": used,
            "requested_size": sum(block["requested_size"] for block in self.blocks),
            "stream": 0,
            "segment_type": "small",
            "segment_pool_id": (0, 0),
            "is_expandable": False,
            "frames": [],
            "blocks": [*self.blocks, rest],
        }
        return {"segments": [segment], "device_traces": [self.events], "allocator_settings": {}}


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> FakeHistory:
    fake = FakeHistory()
    cuda = torch.cuda
    for owner, name, value in (
        (cuda, "is_available", lambda: True),
        (cuda, "init", lambda: None),
        (cuda, "device_count", lambda: 1),
        (cuda, "get_device_name", lambda _: "Fake GPU"),
        (cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=1 << 30)),
        (cuda.memory, "get_per_process_memory_fraction", lambda _: 0.5),
        (cuda, "device", lambda _: nullcontext()),
        (torch._C, "_cuda_hasPrimaryContext", lambda _: True),
        (cuda, "memory_stats", lambda _: {"num_ooms": 0}),
        (cuda.memory, "memory_stats_as_nested_dict", fake.stats),
        (cuda.memory, "reset_accumulated_memory_stats", fake.reset),
        (cuda, "reset_accumulated_memory_stats", fake.reset),
        (cuda.memory, "_record_memory_history", fake.record),
        (cuda.memory, "_snapshot", fake.snapshot),
        (torch._C, "_cuda_memoryStats", fake.stats),
        (torch._C, "_cuda_isHistoryEnabled", lambda: False),
        (torch._C, "_cuda_clearCublasWorkspaces", lambda: None),
        (torch._C, "_cuda_attach_out_of_memory_observer", lambda _: None),
    ):
        monkeypatch.setattr(owner, name, value, raising=False)
    return fake


class FakeTensor:
    """A tensor on the device, as far as the recorder asks."""

    is_cuda = True
    grad = None
    device = SimpleNamespace(index=0)

    def __init__(self, address: int) -> None:
        self._address = address

    def untyped_storage(self) -> Any:
        return SimpleNamespace(data_ptr=lambda: self._address)


def _drain(rec: memscope.record) -> None:
    backend = rec.backend
    assert isinstance(backend, CudaHistory)
    assert backend.history is not None
    backend.history.drain()


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
            _drain(rec)
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


@pytest.mark.parametrize("way", ["", "inline"])
def test_a_run_longer_than_the_ring_is_recorded_whole(
    history: FakeHistory, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("MEMSCOPE_MAX_EVENTS", "10")
    monkeypatch.setenv("MEMSCOPE_DRAIN", way)
    with memscope.record() as rec:
        for number in range(35):
            history.alloc(number + 1)
            if number % 7 == 6:
                rec.step()
                _drain(rec)
    assert rec.trace.metadata.n_events_lost == 0
    assert rec.trace.size_bytes.tolist() == list(range(1, 36))
    assert rec.trace.marks.event.tolist() == [7, 14, 21, 28, 35]


def test_what_the_ring_overwrote_is_counted_and_the_longest_stretch_kept(
    history: FakeHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSCOPE_MAX_EVENTS", "10")
    monkeypatch.setenv("MEMSCOPE_DRAIN", "inline")
    monkeypatch.setattr("memscope.capture.cuda.history._POLL_S", 3600.0)
    with memscope.record() as rec:
        for number in range(20):
            history.alloc(number + 1)
            if number in (4, 9, 12):
                _drain(rec)
        with rec.phase("in the gap"):
            pass
        for number in range(20, 33):
            history.alloc(number + 1)
    # 13 drained in three pieces, then 7 and 13 into a ring of 10: ten are overwritten, and the ten left are apart.
    assert rec.trace.size_bytes.tolist() == list(range(1, 14))
    assert rec.trace.metadata.n_events_lost == 20
    assert "10 events are missing" in rec.trace.metadata.notes[0]
    assert "the other stretches' 10 events were left out" in rec.trace.metadata.notes[1]
    assert len(rec.trace.marks) == 0


def test_a_drain_that_fails_is_counted(history: FakeHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.getpid()

    def failing() -> dict[str, Any]:
        if os.getpid() != pid:
            raise RuntimeError("the copy cannot")
        return history.snapshot()

    monkeypatch.setattr(torch.cuda.memory, "_snapshot", failing)
    with memscope.record() as rec:
        history.alloc(1)
        rec.step("first")
        _drain(rec)
        history.alloc(2)
        rec.step("second")
    assert rec.trace.size_bytes.tolist() == [2]
    assert rec.trace.metadata.n_events_lost == 1
    # The marks that the failed drain would have written are in the next; the first is the moment before the trace.
    assert [rec.trace.strings[i] for i in rec.trace.marks.label_id] == ["first", "second"]
    assert rec.trace.marks.event.tolist() == [0, 1]


def test_statistics_that_the_program_sets_back_do_not_disturb_the_count(history: FakeHistory) -> None:
    with memscope.record() as rec:
        history.alloc(1)
        torch.cuda.reset_accumulated_memory_stats()
        history.alloc(2)
        torch.cuda.memory.reset_accumulated_memory_stats()
        rec.step()
        history.alloc(3)
    assert rec.trace.metadata.n_events_lost == 0
    assert rec.trace.marks.event.tolist() == [2]


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
        _drain(rec)
        _drain(rec)  # waits for the one before
        assert open_trace(path).size_bytes.tolist() == [100]
        with pytest.raises(CaptureError, match="is being recorded by another process"):
            RecordingFolder(path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.memscope"]
    assert open_trace(path).metadata.n_events_lost == 0


def test_a_recording_that_was_cut_off_is_replaced_only_when_asked(history: FakeHistory, tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"
    rec = memscope.record(path).start()
    history.alloc(100)
    _drain(rec)
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


def test_a_wrong_size_of_the_ring_is_refused(history: FakeHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSCOPE_MAX_EVENTS", "many")
    with pytest.raises(UsageError, match="MEMSCOPE_MAX_EVENTS=many cannot be used"), memscope.record():
        pass
    assert history.calls == []
