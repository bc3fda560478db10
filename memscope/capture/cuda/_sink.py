"""What a recording on a GPU does with what the watcher finds: it notes it, with the allocator's count, for later.

The program runs as it would: what is found is only looked at, where it lies is noted while it is alive.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from memscope.capture.cuda._saved_tensors import SavedTensors
from memscope.capture.cuda.allocator import EventCounter
from memscope.capture.kv_caches import LayerShape
from memscope.capture.ownership import STRENGTH, ModulePaths
from memscope.capture.patches import Patches
from memscope.capture.watcher import Call, RunOutermost
from memscope.trace.categories import Category
from memscope.trace.recording.notes import AddressOwner, CacheLayerNote, MarkNote, OwnersNote, RecordingNotes
from memscope.trace.schema import MarkKind


class CudaSink:
    """Collects owners and what caches hold; :meth:`flush` notes them at the count of that moment.

    Parameters
    ----------
    notes
        Where everything is noted.
    counter
        The allocator's count.
    paths
        What modules are called.
    on_error
        Told of what the program raises out of a forward or backward pass or a generation, before the program sees it.
    """

    looks_again = False
    guesses = True

    def __init__(
        self,
        notes: RecordingNotes,
        counter: EventCounter,
        paths: ModulePaths,
        *,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self.running: list[Any] = []
        self._notes = notes
        self._counter = counter
        self._paths = paths
        self._on_error = on_error
        self._saved = SavedTensors(self.running, notes.visits)
        self._owners: list[AddressOwner] = []
        self._cache_layers: list[tuple[int, int, LayerShape]] = []
        self._cache_lengths: list[tuple[int, int, int]] = []
        self._strength = {category: (int(category), strength) for category, strength in STRENGTH.items()}
        notes.name_of = self._name_of

    def install(self, patches: Patches) -> None:
        """See what autograd saves."""
        self._saved.install(patches)

    def watched_call(self, call: Call, run_outermost: RunOutermost) -> Call:
        """``Module.__call__``, in the place of torch's own in the stacks rather than as one more frame."""
        import torch

        running, thread, get_ident = self.running, threading.get_ident(), threading.get_ident
        visit, now, ref = self._notes.visits.extend, time.time_ns, weakref.ref
        is_torch_own = call is getattr(torch.nn.Module, "_wrapped_call_impl", None)
        is_compiling = torch.compiler.is_dynamo_compiling

        def watched(module: Any, *args: Any, **kwargs: Any) -> Any:
            # What is compiled is followed from outside: none of this may become part of it, or break it.
            if is_compiling() or get_ident() != thread:
                return call(module, *args, **kwargs)
            if not running:
                return run_outermost(call, module, args, kwargs)
            running.append(module)
            visit((now(), ref(module)))
            try:
                if is_torch_own and module._compiled_call_impl is None:
                    return module._call_impl(*args, **kwargs)
                return call(module, *args, **kwargs)
            finally:
                running.pop()
                visit((now(), ref(running[-1])))

        return watched

    def run(self, call: Call, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the outermost module."""
        self.running.append(module)
        self._notes.visits.extend((time.time_ns(), weakref.ref(module)))
        try:
            return call(module, *args, **kwargs)
        finally:
            self.running.pop()

    def refer(self, parameter: Any) -> None:
        """Not at all: torch refuses to swap parameters that are weakly referenced, as moving a model may do."""

    def claim(self, tensor: Any, category: Category, label: str) -> None:
        """Note a tensor's memory, if it is on a GPU and there is any."""
        place = place_of(tensor)
        if place is not None:
            self._owners.append(AddressOwner(*place, *self._strength[category], label))

    def saved(self) -> Iterator[tuple[Any, Any]]:
        """What autograd saved since the last time and still keeps, with the module that ran."""
        return self._saved.take()

    def cache_layer(self, cache_id: int, layer: int, shape: LayerShape) -> None:
        """Note how a layer of a cache keeps its tokens."""
        self._cache_layers.append((cache_id, layer, shape))

    def cache_length(self, cache_id: int, n_tokens: int, device: int) -> None:
        """Note how many tokens of each sequence a cache has taken in."""
        self._cache_lengths.append((cache_id, n_tokens, device))

    def flush(self) -> None:
        """Write down what was collected, while all of it is alive."""
        if not (self._owners or self._cache_lengths or self._cache_layers):
            return
        calls, notes = self._counter.calls(), self._notes
        if self._owners:
            notes.owners.append(OwnersNote(calls, tuple(self._owners)))
            self._owners = []
        for cache_id, layer, shape in self._cache_layers:
            device = shape.device
            notes.cache_layers.append(CacheLayerNote(calls[device], device, cache_id, layer, *shape[:-1]))
        now_ns = time.time_ns() if self._cache_lengths else 0
        for cache_id, n_tokens, device in self._cache_lengths:
            notes.cache_lengths.extend((calls[device], now_ns, device, cache_id, n_tokens))
        self._cache_layers.clear()
        self._cache_lengths.clear()

    def mark(self, kind: MarkKind, label: str, *, is_automatic: bool = False) -> None:
        """Note that a phase begins or ends, or that a step ended."""
        self._notes.marks.append(MarkNote(self._counter.calls(), time.time_ns(), int(kind), label, is_automatic))

    def raised(self, error: Exception) -> None:
        """Have an out-of-memory error say where the trace is, before the program prints it."""
        self._on_error(error)

    def _name_of(self, visited: Any) -> str:
        """Path of a module that was visited, empty where none was, or it is gone."""
        module = None if visited is None else visited()
        return "" if module is None else self._paths.of(module)


def place_of(tensor: Any) -> tuple[int, int] | None:
    """Device and address of a tensor's memory; None where it has none on a GPU."""
    tensor = getattr(tensor, "_local_tensor", tensor)  # a distributed tensor's part on this rank
    if not getattr(tensor, "is_cuda", False):
        return None
    try:
        address = int(tensor.untyped_storage().data_ptr())
    except (AttributeError, NotImplementedError, RuntimeError):  # a tensor without memory of its own
        return None
    return (int(tensor.device.index), address) if address else None
