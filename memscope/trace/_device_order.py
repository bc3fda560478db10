"""Events of several devices that were added as they came, put one device after the other; and what refers to them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from memscope.trace.schema import NONE_ID

Columns = dict[str, np.ndarray]


class DeviceOrder:
    """The order of events by device, each device's in the order in which they were added.

    Parameters
    ----------
    device
        Each event's device, int16 (n,).
    """

    def __init__(self, device: np.ndarray) -> None:
        self._order = np.argsort(device, kind="stable")
        self._place = np.empty(len(device), np.int64)
        self._place[self._order] = np.arange(len(device))
        self._of = {int(index): np.flatnonzero(device == index) for index in np.unique(device)}
        self._main = max(self._of, key=lambda index: len(self._of[index]), default=0)

    @property
    def is_as_added(self) -> bool:
        """Whether nothing is to be moved."""
        return bool((self._order == np.arange(len(self._order))).all())

    def events(self, columns: Columns) -> Columns:
        """The events' columns in order."""
        return {name: column[self._order] for name, column in columns.items()}

    def owner(self, alloc_event: int) -> int:
        """Where an event is now; −1 stays."""
        return int(self._place[alloc_event]) if alloc_event != NONE_ID else NONE_ID

    def before_events(self, columns: Columns) -> Columns:
        """Rows that stand before the event that they name: now before the next of their device.

        Rows without a device, such as marks, go by the device with most events.
        """
        events = columns["event"]
        devices = columns.get("device", np.full(len(events), self._main))
        moved = [self._moved(int(event), int(device)) for event, device in zip(events, devices, strict=True)]
        event = np.array(moved, np.int64)
        rows = np.argsort(event, kind="stable")
        return {name: column[rows] for name, column in {**columns, "event": event}.items()}

    def _moved(self, event: int, device: int) -> int:
        mine = self._of.get(device)
        if mine is None:
            return event
        n_before = int(np.searchsorted(mine, event))
        start = int(self._place[mine[0]])
        return start + n_before


def in_device_order(tables: Mapping[str, Columns], owners: list) -> tuple[Mapping[str, Columns], list]:
    """Tables and owners of a recording with the events of one device after those of another.

    Parameters
    ----------
    tables
        Columns by table; ``events``, and others that refer to them by a column ``event``.
    owners
        Pairs of the allocation (event, device, address) and what is known of it.
    """
    order = DeviceOrder(tables["events"]["device"])
    if order.is_as_added:
        return tables, owners
    moved = {
        name: order.events(columns) if name == "events" else order.before_events(columns)
        for name, columns in tables.items()
    }
    placed = [((order.owner(event), device, address), known) for (event, device, address), known in owners]
    return moved, sorted(placed)
