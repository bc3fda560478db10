"""Where tensors lie on the devices, noted together with the allocator's count."""

from __future__ import annotations

from typing import Any

from memscope.capture.event_counter import EventCounter
from memscope.capture.ownership import STRENGTH
from memscope.trace.categories import Category
from memscope.trace.claims import Claim, ClaimLog, Row


class DeviceNotes:
    """Collects rows of owners; :meth:`flush` notes them at the count of that moment, while all of them are alive."""

    def __init__(self, log: ClaimLog, counter: EventCounter) -> None:
        self._log = log
        self._counter = counter
        self._rows: list[Row] = []
        self._strength = {category: (int(category), strength) for category, strength in STRENGTH.items()}

    def add(self, tensor: Any, category: Category, label: str) -> None:
        """Note a tensor's memory, if it is on a GPU and there is any."""
        place = place_of(tensor)
        if place is not None:
            self._rows.append(Row(*place, *self._strength[category], label))

    def flush(self) -> None:
        """Write down what was collected."""
        if self._rows:
            self._log.claims.append(Claim(self._counter.calls(), tuple(self._rows)))
            self._rows = []


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
