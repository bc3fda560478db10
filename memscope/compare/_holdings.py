"""What is in use at a moment, as what can be told apart without addresses: groups of allocations, and their names."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscope.attribution.phases.phases import find_phases
from memscope.attribution.sites import module_of_owner
from memscope.device.device import Device, Moment
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, rank_rows
from memscope.trace.trace import Trace

N_SAME_STACK = 4
"""So many of the ways in which groups are matched ask for the same stack, line by line: the first ones."""
_N_PATH_PARTS = 3
"""Of a file's path that tell it: what lies above them is where somebody keeps the checkout."""
_LAYER = re.compile(r"(?:(?<=\.)|(?<!\S))\d+(?=\.)|(?<=\.)\d+$")
"""A layer's number in an owner's name: ``exp_avg of model.layers.3.fc.weight``, but not that of ``argument 0``."""
_PATH_ENDS = re.compile(r"[/\\]")

_Call = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Group:
    """Allocations of one size in use that nothing but their addresses tells apart.

    Attributes
    ----------
    category
        The category's number.
    owner, site
        The owner's name and the line of code, None where not known.
    keys
        What the group is matched by: a key for each way, the strictest first.
    lines
        Line numbers of its stack, outermost first: in their order those are matched that differ in nothing else.
    size_bytes, n_allocations
        Requested bytes of each of them, and how many there are.
    block_bytes
        What the allocator gave for all of them.
    stack_id
        Their stack in the trace.
    """

    category: int
    owner: str | None
    site: str | None
    keys: tuple[Hashable, ...]
    lines: tuple[int, ...]
    size_bytes: int
    n_allocations: int
    block_bytes: int
    stack_id: int = NONE_ID

    @property
    def requested_bytes(self) -> int:
        """Requested bytes of all of them."""
        return self.size_bytes * self.n_allocations


def groups_at(
    moment: Moment,
    rows: Int64Array | None = None,
    known: dict[Hashable, int] | None = None,
    *,
    has_owners: bool = True,
) -> list[Group]:
    """The groups of what is in use after an event: one sort of the allocations, then work by group.

    Parameters
    ----------
    rows
        int64: those of the allocations in use that are meant; all of them if not given.
    known
        Stacks by number, which grows; groups can be matched where both were made with the same.
    has_owners
        Whether owners are looked at; lines of code stand for all of them if not.
    """
    device, rows = moment.device, moment.in_use_rows if rows is None else rows
    if not len(rows):
        return []
    table, attribution = device.allocations, device.attribution
    columns = (
        attribution.category[rows].astype(np.int64),
        attribution.owner_id[rows].astype(np.int64) if has_owners else np.full(len(rows), NONE_ID, np.int64),
        table.stack_id[rows].astype(np.int64),
        find_phases(device.lifetimes).row_phase[rows].astype(np.int64),
        _step_ages(device, moment.event, rows),
        table.requested_bytes[rows],
    )
    group_of = rank_rows(*columns).astype(np.int64)
    n_groups = int(group_of.max()) + 1
    first = np.zeros(n_groups, np.int64)
    first[group_of[::-1]] = np.arange(len(rows))[::-1]
    blocks = np.zeros(n_groups, np.int64)
    np.add.at(blocks, group_of, table.block_bytes[rows])
    counts = np.bincount(group_of, minlength=n_groups)
    stacks = _Stacks(device.trace, {} if known is None else known)
    sites = device.sites_of(rows[first])
    return [
        _group(device, stacks, tuple(int(column[i]) for column in columns), site, int(n), int(given))
        for i, site, n, given in zip(first.tolist(), sites, counts, blocks, strict=True)
    ]


def _step_ages(device: Device, event: int, rows: Int64Array) -> Int64Array:
    """How many steps before the moment's own each allocation was made; −1 where steps or its own are not known."""
    steps = device.steps
    if steps is None:
        return np.full(len(rows), NONE_ID, np.int64)
    born = steps.step_of(device.allocations.alloc_event[rows])
    now = int(np.searchsorted(steps.begin, event, side="right")) - 1
    return np.where(born == NONE_ID, NONE_ID, now - born)


def _group(device: Device, stacks: _Stacks, told: tuple[int, ...], site: str | None, n: int, given: int) -> Group:
    category, owner_id, stack_id, phase, age, size = told
    owner = device.trace.shown_string(owner_id)
    stack = stacks.of(stack_id)
    calls, functions, names = stack.calls, stack.functions, stack.names
    has_owner = owner is not None
    where: Hashable = owner if has_owner else stacks.function_of(site)
    keys: tuple[Hashable, ...] = (
        (category, owner, calls, phase, age, size),
        (category, owner, calls, phase, size),
        (category, owner, calls, phase),
        (category, has_owner, calls, phase, size),  # the owner has another name: a model was wrapped, or unwrapped
        (category, owner, functions, phase, size),  # the program was edited, and its lines have moved
        (category, owner, functions, phase),
        (category, has_owner, functions, phase, size),
        (category, owner, names, phase, size),  # a file was renamed
        (category, owner, names, phase),
        (category, has_owner, where, phase),
        (category, has_owner, where),
    )
    return Group(category, owner, site, keys, stack.lines, size, n, given, stack_id)


class _Stack(NamedTuple):
    """A stack by numbers: with its lines, without them, and without its files; and its lines, outermost first."""

    calls: int
    functions: int
    names: int
    lines: tuple[int, ...]


class _Stacks:
    """Stacks as they can be compared between recordings: files by the end of their paths, equal ones by one number."""

    def __init__(self, trace: Trace, known: dict[Hashable, int]) -> None:
        self._trace = trace
        self._known = known
        self._stacks: dict[int, _Stack] = {}
        self._frames: dict[int, _Call] = {}

    def of(self, stack_id: int) -> _Stack:
        """A stack; none of its calls where it was not recorded. Each is looked at once."""
        if stack_id not in self._stacks:
            calls = tuple(map(self._frame, self._trace.stacks.frames_of(stack_id).tolist()))
            functions = tuple(call[:2] for call in calls)
            names = tuple(name for name, _ in functions)
            self._stacks[stack_id] = _Stack(
                calls=self._number(calls),
                functions=self._number(functions),
                names=self._number(names),
                lines=tuple(line for _, _, line in calls[::-1]),
            )
        return self._stacks[stack_id]

    def _number(self, stack: Hashable) -> int:
        return self._known.setdefault(stack, len(self._known))

    def _frame(self, frame_id: int) -> _Call:
        if frame_id not in self._frames:
            frame = self._trace.frame(frame_id)
            self._frames[frame_id] = frame.name, path_end(frame.filename), frame.line
        return self._frames[frame_id]

    @staticmethod
    def function_of(site: str | None) -> str | None:
        """A line of code without its number and without the folders above its file."""
        return None if site is None else re.sub(r":-?\d+ ", " ", path_end(site), count=1)


def path_end(path: str) -> str:
    r"""The last parts of a path, which do not say where somebody keeps the checkout.

    >>> path_end("/home/me/work/model/blocks.py")
    'work/model/blocks.py'
    """
    return "/".join(_PATH_ENDS.split(path)[-_N_PATH_PARTS:])


def holder_of(group: Group) -> str | None:
    """The owner's name, the same of every layer together; else the line of code."""
    return _LAYER.sub("*", group.owner) if group.owner is not None else group.site


def owner_of(group: Group) -> str | None:
    """The owner's whole name; else the line of code."""
    return group.owner if group.owner is not None else group.site


def module_of(group: Group) -> str | None:
    """The module in the owner's name."""
    return None if group.owner is None else module_of_owner(group.owner)
