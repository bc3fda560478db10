"""What a program whose request failed was about to ask for, as far as its recording tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memscope.device.device import Device
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category
from memscope.trace.schema import Action

_MOST_EACH = 2
_LEAST_STATE_BYTES = 512
"""Below it lie counters of steps and tables of quantised optimizers, of which there are many of one size."""
_NOWHERE = 1 << 60
"""An address that no recorded block has."""


def state_to_come(device: Device) -> int:
    """What :func:`optimizer_state_to_come` says of the failure that ended a recording; 0 where none did."""
    fatal = device.lifetimes.fatal_oom_event
    return 0 if fatal is None else optimizer_state_to_come(device, fatal)


def category_of_request(device: Device, event: int) -> Category:
    """What a failed request was for: the category that the rules give it, taken as an allocation like the others."""
    trace = device.trace
    action, address = np.array(trace.action), np.array(trace.address)
    action[event] = Action.ALLOC
    address[event] = _NOWHERE
    served = DeviceLifetimes(replace(trace, action=action, address=address), device.index)
    row = int(np.flatnonzero(served.allocations.alloc_event == event)[0])
    return Category(int(Device(device.recording, served, device.rules).attribution.category[row]))


def optimizer_state_to_come(device: Device, event: int) -> int:
    """The least that an optimizer which was making its state still had to make of it; 0 where it was not.

    Each gradient gets as many tensors of its size as any gradient is seen to have, two at most, as for AdamW: of sizes
    that several gradients have it is seen only when most have theirs, and so this is a lower bound.
    """
    table, category = device.allocations, device.attribution.category
    live, size = table.active_at(event), table.requested_bytes
    counts = live & (size >= _LEAST_STATE_BYTES)
    made = np.sort(size[counts & (category == Category.OPTIMIZER_STATE)])
    sizes, n_gradients = np.unique(size[counts & (category == Category.GRADIENTS)], return_counts=True)
    n_made = np.searchsorted(made, sizes, side="right") - np.searchsorted(made, sizes)
    n_each = min(int(np.max(-(-n_made // n_gradients), initial=0)), _MOST_EACH)
    to_come = int(np.sum(np.maximum(n_each * n_gradients - n_made, 0) * sizes))
    return to_come if to_come and category_of_request(device, event) == Category.OPTIMIZER_STATE else 0
