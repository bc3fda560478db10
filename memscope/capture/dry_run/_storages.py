"""Device storages of a dry run: each is one allocation, from its first tensor to the end of its last; and its owner."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from memscope.capture.dry_run._device import Devices, SimulatedDevice
from memscope.capture.dry_run.kernels.scratch import PRODUCT
from memscope.capture.ownership import STRENGTH, ModulePaths
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category, tag_meaning
from memscope.trace.schema import MarkKind

if TYPE_CHECKING:
    import torch


_SETTLED = -1
"""Stronger than every category."""


class _Mark(NamedTuple):
    event: int
    time_ns: int
    kind: MarkKind
    label: str


class RunContext:
    """Knows the outermost phase and the innermost module, and keeps the marks until the trace is made.

    Parameters
    ----------
    device
        Whose events marks come between.
    paths
        What modules are called.

    Attributes
    ----------
    running
        The modules that are running, the innermost last.
    serial
        Number of the phase that is open, from 1 on; 0 outside of every phase.
    """

    def __init__(self, device: SimulatedDevice, paths: ModulePaths) -> None:
        self._device = device
        self._paths = paths
        self._phase = ""
        self._n_phases = 0
        self._marks: list[_Mark] = []
        self._optimizer_steps: list[_Mark] = []
        self.running: list[Any] = []
        self.serial = 0

    @property
    def place(self) -> str:
        """Path of the innermost running module, else the phase; empty outside of both."""
        return self._paths.of(self.running[-1]) if self.running else self._phase

    def mark(self, kind: MarkKind, label: str, *, is_automatic: bool) -> None:
        """A phase begins or ends, or a step ended."""
        mark = self._now(kind, label)
        if is_automatic and kind == MarkKind.STEP:
            self._optimizer_steps.append(mark)
            return
        self._marks.append(mark)
        if is_automatic:
            begins = kind == MarkKind.PHASE_BEGIN
            self._n_phases += begins
            self.serial, self._phase = (self._n_phases, label) if begins else (0, "")

    def write_marks(self, builder: TraceBuilder) -> None:
        """Write the marks until now into a trace; a phase that is open ends there.

        Optimizer steps are the program's steps unless it names its own.
        """
        marks = [*self._marks, self._now(MarkKind.PHASE_END, self._phase)] if self.serial else self._marks
        if not any(mark.kind == MarkKind.STEP for mark in marks):
            marks = sorted([*marks, *self._optimizer_steps], key=lambda mark: mark.event)
        for mark in marks:
            builder.add_mark(mark.kind, mark.label, mark.time_ns, event=mark.event)

    def _now(self, kind: MarkKind, label: str) -> _Mark:
        return _Mark(self._device.builder.n_events, self._device.clock(), kind, label)


@dataclass(slots=True)
class Allocation:
    """A live allocation of the device.

    Attributes
    ----------
    event
        Position of its alloc event.
    address
        Its address in the simulated device.
    requested_bytes
        What was asked for.
    phase_serial
        The phase that it was made in, 0 outside every phase.
    place
        Path of the module that made it, or the phase's name.
    rank
        Strength of the category it has so far.
    device
        Where it lies.
    """

    event: int
    address: int
    requested_bytes: int
    phase_serial: int
    place: str
    rank: int = len(STRENGTH)
    is_tagged: bool = False
    label: str = ""
    device: SimulatedDevice | None = None


_NAMED_BY_MODULES = (Category.WEIGHTS, Category.WORKSPACE)
"""What modules register, before it is known what they themselves are called: the last name is the best."""


class OwnerBook:
    """Writes owners into the trace; a stronger claim replaces a weaker one, a user's tag replaces all."""

    def __init__(self, builder: TraceBuilder) -> None:
        self._builder = builder
        self._tags: list[str] = []
        self.owner_at_birth: tuple[Category, str] | None = None
        """Whose everything is that is allocated now, unless something stronger says so."""

    def push_tag(self, name: str) -> None:
        """Tag what is allocated from now on."""
        self._tags.append(name)

    def pop_tag(self) -> None:
        """End the innermost tag."""
        self._tags.pop()

    def born(self, allocation: Allocation) -> None:
        """Note a new allocation: it gets the innermost tag, if there is one."""
        if self._tags:
            self.tag(allocation, self._tags[-1])
        elif self.owner_at_birth is not None:
            self.claim(allocation, *self.owner_at_birth)

    def tag(self, allocation: Allocation, name: str) -> None:
        """Give an allocation the user's tag."""
        category, label = tag_meaning(name)
        allocation.is_tagged = True
        self._builder.set_owner(allocation.event, category, label, tagged=True)

    def claim(self, allocation: Allocation, category: Category, label: str, tensor: Any = None) -> None:
        """Say whose an allocation is, unless something stronger has said so, or the same with another name.

        ``tensor`` is the one that was seen there, None where none was.
        """
        rank = STRENGTH[category]
        if allocation.is_tagged or rank > allocation.rank or (rank == allocation.rank and label == allocation.label):
            return
        if rank == allocation.rank and category not in _NAMED_BY_MODULES:
            return
        allocation.rank = rank
        allocation.label = label
        self._builder.set_owner(allocation.event, category, label, tensor=_described(tensor, allocation))

    def settle(self, allocation: Allocation, category: Category, label: str) -> None:
        """Say whose an allocation is, for good: what is found later, such as a gathered weight, changes nothing."""
        if allocation.rank == _SETTLED and allocation.label == label:
            return
        self.claim(allocation, category, label)
        allocation.rank, allocation.label = _SETTLED, label

    def died(self, allocation: Allocation, phase_serial: int) -> None:
        """Note a release: what one phase made and released and nothing ever owned was temporary."""
        if allocation.phase_serial and allocation.phase_serial == phase_serial:
            self.claim(allocation, Category.TEMPORARIES, allocation.place)


def _described(tensor: Any, allocation: Allocation) -> str | None:
    """The type and shape of a tensor that fills its allocation: ``float32 [32000, 4096]``; None for another."""
    if tensor is None or tensor.numel() * tensor.element_size() != allocation.requested_bytes:
        return None
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


class StorageTable:
    """Allocations by the identity of the storage that stands for them.

    A storage's Python wrapper lives exactly as long as the storage itself (PyTorch keeps the two together), so a
    finalizer on the wrapper sees the release at the moment at which a GPU's would happen.
    """

    def __init__(self, devices: Devices, owners: OwnerBook, context: RunContext) -> None:
        self.devices = devices
        self.device = devices.of(0)
        """The device that the operation at hand runs on."""
        self._owners = owners
        self._context = context
        self._live: dict[int, Allocation | None] = {}
        self._finalizers: dict[int, weakref.finalize[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self._live)

    def is_known(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor's storage is an allocation of the device."""
        return tensor.untyped_storage()._cdata in self._live

    def of(self, tensor: torch.Tensor) -> Allocation | None:
        """The allocation behind a tensor (a sparse one's values); None for a host tensor, or one of no bytes."""
        dense = tensor._values() if tensor.is_sparse else tensor
        return self._live.get(dense.untyped_storage()._cdata)

    def address_of(self, storage: Any) -> int | None:
        """Where a storage lies in its device; None for one of the host, or of no bytes."""
        allocation = self._live.get(storage._cdata)
        return None if allocation is None else allocation.address

    def use_on_stream(self, tensor: torch.Tensor, stream: Any) -> None:
        """``Tensor.record_stream``."""
        allocation = self.of(tensor)
        if allocation is not None and allocation.device is not None:
            allocation.device.use_on_stream(allocation.address, int(getattr(stream, "cuda_stream", 0)))

    def track(self, tensor: torch.Tensor, n_bytes: int | None = None) -> None:
        """Allocate for a device tensor's storage if it is new; ``n_bytes`` where that is more than its elements."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        if n_bytes is None:
            n_bytes = storage.nbytes()
        self.device = self.devices.of(getattr(tensor, "fake_device", tensor.device).index)
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
        if old is not None:
            self.device = old.device or self.device
        if n_bytes == (old.requested_bytes if old is not None else 0):
            return
        self._live[key] = self._allocate(n_bytes) if n_bytes else None
        if old is not None:
            self._die(old)

    def workspace(self, n_bytes: int, label: str) -> None:
        """Allocate memory that a library keeps until the end."""
        allocation = self._allocate(n_bytes)
        self._owners.claim(allocation, Category.WORKSPACE, label)

    def held(self, sizes: Sequence[Any], kernel: str, at_product: Callable[[], None] | None = None) -> _Held:
        """A block in which a kernel has what it takes, in order (:data:`~.kernels._call.Sizes`)."""
        return _Held(self, sizes, kernel, at_product)

    def take(self, n_bytes: int, kernel: str, category: Category) -> Allocation:
        """Allocate what a kernel takes while it runs."""
        allocation = self._allocate(n_bytes)
        is_temporary = category == Category.TEMPORARIES
        label = (self._context.place or f"inside {kernel}") if is_temporary else kernel
        self._owners.claim(allocation, category, label)
        return allocation

    def release(self, allocation: Allocation) -> None:
        """Give back what a kernel took."""
        self._die(allocation)

    def close(self) -> None:
        """Stop watching; what lives now is what the trace ends with."""
        for finalizer in self._finalizers.values():
            finalizer.detach()
        self._finalizers.clear()
        self._live.clear()

    def _allocate(self, n_bytes: int) -> Allocation:
        event, address = self.device.malloc(n_bytes)
        allocation = Allocation(event, address, n_bytes, self._context.serial, self._context.place, device=self.device)
        self._owners.born(allocation)
        return allocation

    def _release(self, key: int) -> None:
        allocation = self._live.pop(key, None)
        self._finalizers.pop(key, None)
        if allocation is not None:
            self._die(allocation)

    def _die(self, allocation: Allocation) -> None:
        self._owners.died(allocation, self._context.serial)
        (allocation.device or self.device).free(allocation.address)


def parts_of(tensor: Any) -> tuple[Any, ...]:
    """The tensors that have a tensor's memory: itself, or the indices and values of a sparse one."""
    import torch

    if tensor.layout is torch.strided:
        return (tensor,)
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    return (tensor.values(),)


class _Held:
    """What a kernel takes while it runs.

    A class of its own, and no generator: the standard library's frames would stand in the stacks of what is taken.
    """

    def __init__(
        self,
        storages: StorageTable,
        sizes: Sequence[Any],
        kernel: str,
        at_product: Callable[[], None] | None,
        outermost: _Held | None = None,
    ) -> None:
        self._storages = storages
        self._sizes = sizes
        self._kernel = kernel
        self._at_product = at_product
        self._outermost = outermost
        self._taken: list[Allocation] = []

    def __enter__(self) -> None:
        try:
            for size in self._sizes:
                self._take(size)
        except BaseException:
            self._release()
            raise

    def _take(self, size: Any) -> None:
        if size is PRODUCT:
            if self._at_product is not None:
                self._at_product()
        elif isinstance(size, list):
            with _Held(self._storages, size, self._kernel, self._at_product, self._outermost or self):
                pass
        elif isinstance(size, tuple):
            for kept in size:
                (self._outermost or self)._take(kept)
        elif size:
            self._taken.append(self._storages.take(size, self._kernel, Category.TEMPORARIES))

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        while self._taken:
            self._storages.release(self._taken.pop())
