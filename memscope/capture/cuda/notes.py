"""Where tensors lie on the devices, and what caches hold, noted together with the allocator's count."""

from __future__ import annotations

import time
from typing import Any

from memscope.capture.cuda.event_counter import EventCounter
from memscope.capture.kv_caches import LayerShape
from memscope.capture.ownership import STRENGTH
from memscope.trace.categories import Category
from memscope.trace.recording.notes import AddressOwner, CacheLayerNote, OwnersNote, RecordingNotes


class DeviceNotes:
    """Collects rows of owners; :meth:`flush` notes them at the count of that moment, while all of them are alive.

    So it does with what is found of caches.
    """

    def __init__(self, log: RecordingNotes, counter: EventCounter) -> None:
        self._log = log
        self._counter = counter
        self._rows: list[AddressOwner] = []
        self._cache_layers: list[tuple[int, int, LayerShape]] = []
        self._cache_lengths: list[tuple[int, int, int]] = []
        self._strength = {category: (int(category), strength) for category, strength in STRENGTH.items()}

    def add(self, tensor: Any, category: Category, label: str) -> None:
        """Note a tensor's memory, if it is on a GPU and there is any."""
        place = place_of(tensor)
        if place is not None:
            self._rows.append(AddressOwner(*place, *self._strength[category], label))

    def claim(self, tensor: Any, label: str) -> None:
        """Note a part of a cache."""
        self.add(tensor, Category.KV_CACHE, label)

    def cache_layer(self, cache_id: int, layer: int, shape: LayerShape) -> None:
        """Note how a layer of a cache keeps its tokens."""
        self._cache_layers.append((cache_id, layer, shape))

    def cache_length(self, cache_id: int, n_tokens: int, device: int) -> None:
        """Note how many tokens of each sequence a cache has taken in."""
        self._cache_lengths.append((cache_id, n_tokens, device))

    def flush(self) -> None:
        """Write down what was collected."""
        if not (self._rows or self._cache_lengths or self._cache_layers):
            return
        calls, log = self._counter.calls(), self._log
        if self._rows:
            log.owners.append(OwnersNote(calls, tuple(self._rows)))
            self._rows = []
        for cache_id, layer, shape in self._cache_layers:
            device = shape.device
            log.cache_layers.append(CacheLayerNote(calls[device], device, cache_id, layer, *shape[:-1]))
        now_ns = time.time_ns() if self._cache_lengths else 0
        for cache_id, n_tokens, device in self._cache_lengths:
            log.cache_lengths.extend((calls[device], now_ns, device, cache_id, n_tokens))
        self._cache_layers.clear()
        self._cache_lengths.clear()


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
