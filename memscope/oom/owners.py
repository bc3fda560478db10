"""Who held the memory when a request failed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from memscope.attribution.attribution import Attribution
from memscope.attribution.sites import module_of_owner
from memscope.lifetimes.device import DeviceLifetimes
from memscope.oom.verdict import FreedBlock, OomOwner
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int32Array, Int64Array

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Names:
    """Names of a device's allocations: category, owner and line of code by row."""

    lifetimes: DeviceLifetimes
    attribution: Attribution
    site_frame_of_stack: Int32Array

    def category(self, row: int) -> str:
        """The category's label."""
        return Category(self.attribution.category[row]).label

    def owner(self, row: int) -> str | None:
        """The owner's name, None where none was seen."""
        return self.lifetimes.trace.string(int(self.attribution.owner_id[row]))

    def site(self, row: int) -> str | None:
        """The user's line of code, None where no stack was recorded."""
        return self.site_of_stack(int(self.lifetimes.allocations.stack_id[row]))

    def site_of_stack(self, stack_id: int) -> str | None:
        """The user's line of code in a stack, None for none."""
        frame = NONE_ID if stack_id == NONE_ID else int(self.site_frame_of_stack[stack_id])
        return None if frame == NONE_ID else str(self.lifetimes.trace.frame(frame))

    def block(self, row: int) -> FreedBlock:
        """An allocation as a block that could go."""
        table = self.lifetimes.allocations
        event = int(table.alloc_event[row])
        return FreedBlock(
            address=int(table.address[row]),
            block_bytes=int(table.block_bytes[row]),
            category=self.category(row),
            owner=self.owner(row),
            site=self.site(row),
            alloc_event=None if event == NONE_ID else event,
        )


def largest_owners(names: Names, event: int, limit: int = 5) -> tuple[OomOwner, ...]:
    """The largest groups of live memory after an event, largest first; pending frees are not among them.

    Grouped by category and line of code; where no stack was recorded, by category and the module in the owner's name,
    whatever its numbers: the layers of a model are one owner.
    """
    table = names.lifetimes.allocations
    rows = np.flatnonzero(table.active_at(event) & ~table.pending_at(event))
    groups: dict[tuple[str, str | None, str | None], list[int]] = {}
    sites: dict[int, str | None] = {}
    for row in rows.tolist():
        stack_id = int(table.stack_id[row])
        if stack_id not in sites:
            sites[stack_id] = names.site_of_stack(stack_id)
        site, owner = sites[stack_id], names.owner(row)
        module = _NUMBER.sub("*", module_of_owner(owner)) if site is None and owner is not None else None
        groups.setdefault((names.category(row), site, module), []).append(row)
    found = [_owner(names, category, site, np.array(members)) for (category, site, _), members in groups.items()]
    return tuple(sorted(found, key=lambda owner: -owner.block_bytes)[:limit])


def _owner(names: Names, category: str, site: str | None, rows: Int64Array) -> OomOwner:
    sizes = names.lifetimes.allocations.block_bytes[rows]
    owner_ids = names.attribution.owner_id[rows]
    return OomOwner(
        category=category,
        owner=names.owner(int(rows[int(np.argmax(sizes))])),
        site=site,
        block_bytes=int(sizes.sum()),
        n_allocations=len(rows),
        n_owners=len(np.unique(owner_ids[owner_ids != NONE_ID])),
    )
