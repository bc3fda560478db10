"""Device storages of a dry run: each is one allocation, from its first tensor to the end of its last."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from memscope.capture.dry_run.device import SimulatedDevice
from memscope.capture.ownership import Allocation, OwnerBook
from memscope.capture.phases import PhaseTracker
from memscope.trace.categories import Category

if TYPE_CHECKING:
    import torch


class StorageTable:
    """Allocations by the identity of the storage that stands for them.

    A storage's Python wrapper lives exactly as long as the storage itself (PyTorch keeps the two together), so a
    finalizer on the wrapper sees the release at the moment at which a GPU's would happen.
    """

    def __init__(self, device: SimulatedDevice, owners: OwnerBook, phases: PhaseTracker) -> None:
        self.device = device
        self._owners = owners
        self._phases = phases
        self._live: dict[int, Allocation | None] = {}
        self._finalizers: dict[int, weakref.finalize[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self._live)

    def is_known(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor's storage is an allocation of the device."""
        return tensor.untyped_storage()._cdata in self._live

    def of(self, tensor: torch.Tensor) -> Allocation | None:
        """The allocation behind a tensor; None for a host tensor, or one of no bytes."""
        return self._live.get(tensor.untyped_storage()._cdata)

    def track(self, tensor: torch.Tensor) -> None:
        """Allocate for a device tensor's storage if it is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        n_bytes = storage.nbytes()
        self._live[key] = self._allocate(n_bytes) if n_bytes else None
        finalizer = weakref.finalize(storage, self._release, key)
        finalizer.atexit = False
        self._finalizers[key] = finalizer

    def resized(self, storage: Any) -> None:
        """Follow a storage's resize: PyTorch allocates the new memory, copies, and releases the old."""
        key = storage._cdata
        if key not in self._live:
            return
        old, n_bytes = self._live[key], storage.nbytes()
        if n_bytes == (old.requested_bytes if old is not None else 0):
            return
        self._live[key] = self._allocate(n_bytes) if n_bytes else None
        if old is not None:
            self._die(old)

    def workspace(self, n_bytes: int, label: str) -> None:
        """Allocate memory that a library keeps until the end."""
        allocation = self._allocate(n_bytes)
        self._owners.claim(allocation, Category.WORKSPACE, label)

    def close(self) -> None:
        """Stop watching; what lives now is what the trace ends with."""
        for finalizer in self._finalizers.values():
            finalizer.detach()
        self._finalizers.clear()
        self._live.clear()

    def _allocate(self, n_bytes: int) -> Allocation:
        event, address = self.device.malloc(n_bytes)
        allocation = Allocation(event, address, n_bytes, self._phases.serial, self._phases.place)
        self._owners.born(allocation)
        return allocation

    def _release(self, key: int) -> None:
        allocation = self._live.pop(key, None)
        self._finalizers.pop(key, None)
        if allocation is not None:
            self._die(allocation)

    def _die(self, allocation: Allocation) -> None:
        self._owners.died(allocation, self._phases.serial)
        self.device.free(allocation.address)
