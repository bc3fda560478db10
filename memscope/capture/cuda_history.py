"""Recording on a real GPU: PyTorch's own memory history, with steps, phases, tags and owners added."""

from __future__ import annotations

import dataclasses
import pickle
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from memscope.capture.ownership import named_buffers, tag_meaning
from memscope.capture.versions import tie_rule_of
from memscope.emulation.launch import provenance
from memscope.errors import CaptureError
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, Action, MarkKind
from memscope.trace.stacks import StringTable
from memscope.trace.tables import MarkTable, OwnerTable
from memscope.trace.trace import Trace

DEFAULT_MAX_ENTRIES = 2_000_000
_Mark = tuple[int, MarkKind, str]
_Place = tuple[int, int]
"""Device and address."""
_Allocation = tuple[int, int, int]
"""The event that made it, or −1 and where it lay before the first: event, device, address."""


class CudaHistory:
    """A recording by ``torch.cuda.memory``'s history, from :meth:`start` to :meth:`stop`.

    Parameters
    ----------
    has_stacks
        Whether Python stacks are recorded.
    max_entries
        Events kept for each device; older ones are lost, which the trace says.
    """

    def __init__(self, *, has_stacks: bool = True, max_entries: int = DEFAULT_MAX_ENTRIES) -> None:
        self._has_stacks = has_stacks
        self._max_entries = max_entries
        self._marks: list[_Mark] = []
        self._tags: list[tuple[int, int, str]] = []
        self._open_tags: list[tuple[int, str]] = []
        self._tagged: list[tuple[int, int, str]] = []
        self._models: list[Any] = []
        self._optimizers: list[Any] = []
        self._n_steps = 0
        self.trace: Trace | None = None

    def start(self) -> None:
        """Switch the history on.

        Raises
        ------
        CaptureError
            If there is no CUDA device.
        """
        import torch

        if not torch.cuda.is_available():
            raise CaptureError(
                "there is no CUDA device here: a dry run needs none (memscope run --dry-run, or backend='dry-run')"
            )
        torch.cuda.init()
        context = "all" if self._has_stacks else None
        torch.cuda.memory._record_memory_history("all", context=context, stacks="python", max_entries=self._max_entries)

    def stop(self) -> None:
        """Take the snapshot, switch the history off, and make the trace; a second call does nothing."""
        import torch

        if self.trace is not None:
            return
        try:
            snapshot = torch.cuda.memory._snapshot()
        finally:
            torch.cuda.memory._record_memory_history(None)
        owned = self._owned_addresses()
        trace = self._read(snapshot)
        self.trace = self._annotated(trace, owned)

    def step(self, name: str | None = None) -> None:
        """A step ended."""
        self._marks.append((time.time_ns(), MarkKind.STEP, str(self._n_steps) if name is None else name))
        self._n_steps += 1

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase around a block."""
        self._marks.append((time.time_ns(), MarkKind.PHASE_BEGIN, name))
        try:
            yield
        finally:
            self._marks.append((time.time_ns(), MarkKind.PHASE_END, name))

    def push_tag(self, name: str) -> None:
        """Tag what is allocated from now on."""
        self._open_tags.append((time.time_ns(), name))

    def pop_tag(self) -> None:
        """End the innermost tag."""
        start_ns, name = self._open_tags.pop()
        self._tags.append((start_ns, time.time_ns(), name))

    def tag(self, tensor: Any, name: str) -> None:
        """Tag the allocation behind a tensor."""
        if tensor.is_cuda:
            self._tagged.append((tensor.untyped_storage().data_ptr(), time.time_ns(), name))

    def know(self, model: Any, optimizer: Any) -> None:
        """Remember whose parameters, gradients and states to name at the end."""
        self._models += [model] if model is not None else []
        self._optimizers += [optimizer] if optimizer is not None else []

    def _owned_addresses(self) -> dict[_Place, tuple[Category, str]]:
        """Owners of what lives now, by device and address, the strongest last."""
        names: dict[int, str] = {}
        owned: dict[_Place, tuple[Category, str]] = {}

        def own(tensor: Any, category: Category, label: str) -> None:
            if hasattr(tensor, "untyped_storage") and tensor.is_cuda:
                owned[tensor.device.index, tensor.untyped_storage().data_ptr()] = category, label

        for model in self._models:
            names |= {id(parameter): name for name, parameter in model.named_parameters()}
        for optimizer in self._optimizers:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    own(value, Category.OPTIMIZER_STATE, f"{key} of {names.get(id(parameter), 'a parameter')}")
        for model in self._models:
            for name, parameter in model.named_parameters():
                own(parameter.grad, Category.GRADIENTS, f"{name}.grad")
                own(parameter, Category.WEIGHTS, name)
            for name, buffer, category in named_buffers(model):
                own(buffer, category, name)
        return owned

    def _read(self, snapshot: dict[str, Any]) -> Trace:
        """Read through the same reader as any other snapshot."""
        from memscope.trace.torch_snapshot import read_snapshot

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "history.pickle"
            with path.open("wb") as file:
                pickle.dump(snapshot, file)
            return read_snapshot(path)

    def _annotated(self, trace: Trace, owned: dict[_Place, tuple[Category, str]]) -> Trace:
        import torch

        strings = StringTable()
        for text in trace.strings:
            strings.intern(text)
        marks = self._mark_table(trace, strings)
        owners = self._owner_table(trace, strings, owned)
        devices = range(torch.cuda.device_count())
        fractions: dict[int, float] = {}
        for device in devices:
            with suppress(AttributeError, RuntimeError):
                fractions[device] = float(torch.cuda.memory.get_per_process_memory_fraction(device))
        emulated = provenance()
        metadata = dataclasses.replace(
            trace.metadata,
            source="cuda",
            source_file=None,
            torch_version=torch.__version__,
            tie_rule=tie_rule_of(torch.__version__),
            device_names={device: torch.cuda.get_device_name(device) for device in devices},
            device_total_bytes={device: torch.cuda.get_device_properties(device).total_memory for device in devices},
            memory_fraction=fractions,
            max_entries=self._max_entries,
            notes=(*emulated.get("notes", ()), *trace.metadata.notes),
            extra={**trace.metadata.extra, "cuda_version": torch.version.cuda, **emulated.get("extra", {})},
        )
        return dataclasses.replace(trace, strings=strings.strings(), marks=marks, owners=owners, metadata=metadata)

    def _mark_table(self, trace: Trace, strings: StringTable) -> MarkTable:
        """Marks placed by time; the history's times are microseconds."""
        first, end = trace.event_range(trace.devices[0]) if trace.devices else (0, 0)
        times = trace.time_ns[first:end]
        return MarkTable.from_columns(
            {
                "event": [first + int(np.searchsorted(times, time_ns)) for time_ns, _, _ in self._marks],
                "time_ns": [time_ns for time_ns, _, _ in self._marks],
                "kind": [int(kind) for _, kind, _ in self._marks],
                "label_id": [strings.intern(label) for _, _, label in self._marks],
            }
        )

    def _owner_table(self, trace: Trace, strings: StringTable, owned: dict[_Place, tuple[Category, str]]) -> OwnerTable:
        allocs = np.flatnonzero(trace.action == Action.ALLOC)
        rows: dict[_Allocation, tuple[Category, str, bool]] = {}
        made = zip(trace.device[allocs].tolist(), trace.address[allocs].tolist(), allocs.tolist(), strict=True)
        last_alloc = {(device, address): event for device, address, event in made}
        for place, (category, label) in owned.items():
            # What no event made was there before the first, at the same address.
            event = last_alloc.get(place)
            rows[(NONE_ID, *place) if event is None else (event, NONE_ID, NONE_ID)] = category, label, False
        for start_ns, end_ns, name in self._tags:
            inside = allocs[(trace.time_ns[allocs] >= start_ns) & (trace.time_ns[allocs] <= end_ns)]
            rows |= {(event, NONE_ID, NONE_ID): (*tag_meaning(name), True) for event in inside.tolist()}
        for address, time_ns, name in self._tagged:
            tagged = _alloc_before(trace, allocs, address, time_ns)
            if tagged is not None:
                rows[tagged, NONE_ID, NONE_ID] = (*tag_meaning(name), True)
        return _owner_rows(rows, strings)


def _alloc_before(trace: Trace, allocs: Any, address: int, time_ns: int) -> int | None:
    """The last alloc event at an address up to a time."""
    found = allocs[(trace.address[allocs] == address) & (trace.time_ns[allocs] <= time_ns)]
    return int(found[-1]) if len(found) else None


def _owner_rows(rows: dict[_Allocation, tuple[Category, str, bool]], strings: StringTable) -> OwnerTable:
    ordered: Sequence[tuple[_Allocation, tuple[Category, str, bool]]] = sorted(rows.items())
    return OwnerTable.from_columns(
        {
            "alloc_event": [event for (event, _, _), _ in ordered],
            "device": [device for (_, device, _), _ in ordered],
            "address": [address for (_, _, address), _ in ordered],
            "category": [int(category) for _, (category, _, _) in ordered],
            "label_id": [strings.intern(label) for _, (_, label, _) in ordered],
            "tagged": [is_tagged for _, (_, _, is_tagged) in ordered],
        }
    )
