"""A device's steps as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.device_steps import device_steps
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, frozen_array


@dataclass(frozen=True, slots=True)
class Steps:
    """The whole steps of a device, in order; step k holds the events ``begin[k] <= event < end[k]``.

    Attributes
    ----------
    begin, end
        int64 (k,).
    labels
        A name each.
    source
        Where they come from: ``marks`` of the program.
    """

    begin: Int64Array
    end: Int64Array
    labels: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "begin", frozen_array(self.begin, np.int64))
        object.__setattr__(self, "end", frozen_array(self.end, np.int64))

    def __len__(self) -> int:
        return len(self.begin)

    def step_of(self, events: Int64Array) -> Int64Array:
        """The step that each event lies in, −1 for none: int64."""
        step = np.searchsorted(self.begin, events, side="right") - 1
        inside = step >= 0
        if len(self):
            inside &= (events != NONE_ID) & (events < self.end[np.maximum(step, 0)])
        return np.where(inside, step, NONE_ID).astype(np.int64)


def marked_steps(lifetimes: DeviceLifetimes) -> Steps | None:
    """The steps that the program marked, as far as a device has events in them; None where it marked none.

    What follows the last mark is no whole step, and left out.
    """
    found = [step for step in device_steps(lifetimes.trace, lifetimes.device) if step.is_finished]
    found = [step for step in found if step.begin < step.end]
    if not found:
        return None
    return Steps(
        begin=np.array([step.begin for step in found], np.int64),
        end=np.array([step.end for step in found], np.int64),
        labels=tuple(str(step.label) for step in found),
        source="marks",
    )
