"""Who held the memory when a request failed, and whose the request was."""

from __future__ import annotations

import re

import numpy as np

from memscope.attribution.sites import module_of_owner
from memscope.device.device import Device
from memscope.oom.verdict import FreedBlock, OomOwner
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array

_NUMBER = re.compile(r"\d+")


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
