"""``torch.cuda.memory``'s history with known content: allocations are said, not made."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

import memscope
from memscope.capture.cuda.recording import CudaHistory

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


class FakeTensor:
    """A tensor on the device, as far as the recorder asks."""

    is_cuda = True
    grad = None
    device = SimpleNamespace(index=0)

    def __init__(self, address: int) -> None:
        self._address = address

    def untyped_storage(self) -> Any:
        return SimpleNamespace(data_ptr=lambda: self._address)


def drain(rec: memscope.record) -> None:
    """Drain now."""
    backend = rec.backend
    assert isinstance(backend, CudaHistory)
    assert backend.history is not None
    backend.history.drain()
