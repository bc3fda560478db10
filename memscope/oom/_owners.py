"""Who held the memory when a request failed, and whose the request was."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from memscope.attribution.sites import module_of_owner
from memscope.device.device import Device
from memscope.lifetimes.device import DeviceLifetimes
from memscope.oom.verdict import FreedBlock, OomOwner
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int64Array

_NUMBER = re.compile(r"\d+")
_MOST_EACH = 2
_LEAST_STATE_BYTES = 512
"""Below it lie counters of steps and tables of quantised optimizers, of which there are many of one size."""
_NOWHERE = 1 << 60
"""An address that no recorded block has."""


def block_of(device: Device, row: int) -> FreedBlock:
    """An allocation as a block that could go."""
    table = device.allocations
    event = int(table.alloc_event[row])
    return FreedBlock(
        address=device.trace.metadata.real_address(int(table.address[row])),
        block_bytes=int(table.block_bytes[row]),
        category=device.category_of(row).label,
        owner=device.owner_of(row),
        site=device.site_of(row),
        alloc_event=None if event == NONE_ID else event,
    )


def largest_owners(device: Device, event: int, limit: int = 5) -> tuple[OomOwner, ...]:
    """The largest groups of live memory after an event, largest first; pending frees are not among them.

    Grouped by category and line of code; where no stack was recorded, by category and the module in the owner's name,
    whatever its numbers: the layers of a model are one owner.
    """
    table = device.allocations
    rows = np.flatnonzero(table.active_at(event) & ~table.pending_at(event))
    groups: dict[tuple[Category, str | None, str | None], list[int]] = {}
    for row, site in zip(rows.tolist(), device.sites_of(rows), strict=True):
        owner = device.owner_of(row)
        module = _NUMBER.sub("*", module_of_owner(owner)) if site is None and owner is not None else None
        groups.setdefault((device.category_of(row), site, module), []).append(row)
    found = [_owner(device, category, site, np.array(members)) for (category, site, _), members in groups.items()]
    return tuple(sorted(found, key=lambda owner: -owner.block_bytes)[:limit])


def _owner(device: Device, category: Category, site: str | None, rows: Int64Array) -> OomOwner:
    sizes = device.allocations.block_bytes[rows]
    owner_ids = device.attribution.owner_id[rows]
    return OomOwner(
        category=category.label,
        owner=device.owner_of(int(rows[int(np.argmax(sizes))])),
        site=site,
        block_bytes=int(sizes.sum()),
        n_allocations=len(rows),
        n_owners=len(np.unique(owner_ids[owner_ids != NONE_ID])),
    )


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
