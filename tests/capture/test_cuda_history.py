"""The recording on a GPU, with torch's history replaced by a snapshot of known content."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

import memscope
from memscope.attribution.attribution import attribute
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, Action, MarkKind
from tests.capture.programs import owners

torch = pytest.importorskip("torch")
_BASE = 0x7F00_0000_0000
_MIB = 1 << 20


class FakeHistory:
    """Stands in for ``torch.cuda.memory``'s history: allocations are said, not made."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = [self._event("segment_alloc", _BASE, 2 * _MIB)]
        self.blocks: list[dict[str, Any]] = []
        self.calls: list[Any] = []

    def _event(self, action: str, address: int, size: int) -> dict[str, Any]:
        now_us = time.time_ns() // 1000
        return {"action": action, "addr": address, "size": size, "stream": 0, "time_us": now_us, "pool_id": (0, 0)}

    def alloc(self, size: int) -> int:
        address = _BASE + 512 * len(self.blocks)
        self.events.append(self._event("alloc", address, size))
        block = {"address": address, "size": 512, "requested_size": size, "state": "active_allocated", "frames": []}
        self.blocks.append(block)
        time.sleep(0.001)  # the history's clock has microseconds: keep events and marks apart
        return address

    def record(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append(args[0])

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
        (cuda.memory, "_record_memory_history", fake.record),
        (cuda.memory, "_snapshot", fake.snapshot),
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


def test_what_was_built_before_the_recording_is_named_too(history: FakeHistory) -> None:
    weight = FakeTensor(history.alloc(100))
    history.events.clear()  # the weight predates the history
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
    weight = FakeTensor(history.alloc(100))
    table = FakeTensor(history.alloc(50))
    buffers = SimpleNamespace(_buffers={"freqs": table, "none": None}, _non_persistent_buffers_set={"freqs"})
    model = SimpleNamespace(named_parameters=lambda: [("layer.weight", weight)], named_modules=lambda: [("", buffers)])
    with memscope.record(model=model) as rec:  # type: ignore[arg-type]
        with rec.phase("load"):
            history.alloc(200)
        with memscope.tag("scratch"):
            history.alloc(300)
        rec.step()
        kept = FakeTensor(history.alloc(400))
        memscope.tag(kept, "kv_cache")  # type: ignore[type-var]
    trace = rec.trace
    assert history.calls == ["all", None]
    assert trace.metadata.source == "cuda"
    assert trace.metadata.device_total_bytes == {0: 1 << 30}
    assert trace.metadata.memory_fraction == {0: 0.5}
    assert trace.metadata.device_names == {0: "Fake GPU"}
    assert trace.size_bytes[trace.action == Action.ALLOC].tolist() == [100, 50, 200, 300, 400]
    assert trace.marks.event.tolist() == [3, 4, 5]
    assert trace.marks.kind.tolist() == [MarkKind.PHASE_BEGIN, MarkKind.PHASE_END, MarkKind.STEP]
    assert owners(trace) == {
        1: (Category.WEIGHTS, "layer.weight"),
        2: (Category.WORKSPACE, "freqs"),
        4: (Category.UNKNOWN, "scratch"),
        5: (Category.KV_CACHE, "kv_cache"),
    }
    assert trace.owners.tagged.tolist() == [False, False, True, True]


def test_a_failing_program_leaves_its_history_and_switches_it_off(history: FakeHistory) -> None:
    rec = memscope.record()

    def fail() -> None:
        history.alloc(100)
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError), rec:
        fail()
    assert rec.trace.n_events == 2
    assert history.calls == ["all", None]
