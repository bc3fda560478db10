"""What a difference between two moments is made of. :mod:`.diff` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from memscope.attribution.ledger import ROUNDING
from memscope.device.device import Moment
from memscope.trace.schema import NONE_ID

UNALLOCATED = "unallocated"
"""Key and category of what is reserved and not allocated."""


class By(Enum):
    """What the rows of a difference are summed by."""

    HOLDER = "holder"
    """The owner's name with the numbers of its layers left out; else the line of code."""
    OWNER = "owner"
    """The owner's whole name; else the line of code."""
    SITE = "site"
    """The user's line of code."""
    MODULE = "module"
    """The module in the owner's name."""
    CATEGORY = "category"


class Change(Enum):
    """What became of what a row holds."""

    NEW = "new"
    GONE = "gone"
    GROWN = "grown"
    SHRUNK = "shrunk"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Row:
    """What one holder has of one category at both moments.

    Attributes
    ----------
    key
        Who holds it, as asked for; for what rounding added, ``rounding``.
    category
        The category's name; ``rounding`` for that row.
    a_bytes, b_bytes
        Requested bytes in use at the first and at the second moment.
    n_a, n_b
        Allocations then.
    site
        The line of code that made most of it; None where no stack was recorded.
    a_stack_id, b_stack_id
        The stack that made most of it at each moment, in that moment's trace; −1 for none.
    """

    key: str
    category: str
    a_bytes: int
    b_bytes: int
    n_a: int
    n_b: int
    site: str | None
    a_stack_id: int = NONE_ID
    b_stack_id: int = NONE_ID

    @property
    def delta_bytes(self) -> int:
        """What the second moment holds beyond the first."""
        return self.b_bytes - self.a_bytes

    @property
    def is_rounding(self) -> bool:
        """Whether this is what the allocator gave beyond the requests."""
        return self.category == ROUNDING

    @property
    def change(self) -> Change:
        """What became of it, by its allocations and bytes."""
        if not self.n_a and self.n_b:
            return Change.NEW
        if self.n_a and not self.n_b:
            return Change.GONE
        if self.delta_bytes:
            return Change.GROWN if self.delta_bytes > 0 else Change.SHRUNK
        return Change.SAME


@dataclass(frozen=True, slots=True)
class Matched:
    """Allocations of both moments by how they were matched, or not.

    Attributes
    ----------
    n_same_stack
        Allocations of the second moment whose category, stack and phase the first has, too.
    n_moved
        Those whose stacks differ in line numbers or files, or whose owner or function alone agrees.
    n_new, n_gone
        Allocations of the second moment, and of the first, with no like in the other.
    """

    n_same_stack: int
    n_moved: int
    n_new: int
    n_gone: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What two moments hold differently.

    Attributes
    ----------
    a, b
        The moments.
    by
        What ``rows`` are summed by.
    rows
        The largest difference first, rounding last; those without a difference among them. They sum to the allocated
        bytes of both moments, and so to their difference.
    categories
        The same summed by category, in stacking order, and rounding.
    matched
        How allocations were matched.
    owners_in
        The side that alone has owners, which are then not looked at; None where both have, or neither.
    """

    a: Moment
    b: Moment
    by: By
    rows: tuple[Row, ...]
    categories: tuple[Row, ...]
    matched: Matched
    owners_in: Literal["A", "B"] | None = None

    @property
    def delta_bytes(self) -> int:
        """Allocated bytes of the second moment beyond the first."""
        return self.b.allocated_bytes - self.a.allocated_bytes

    @property
    def unallocated(self) -> Row | None:
        """Reserved bytes beyond the allocated ones at both moments; None where one was not measured.

        With the rows these sum to the reserved bytes of both moments, and so to their difference.
        """
        a_bytes, b_bytes = self.a.reserved_bytes, self.b.reserved_bytes
        if a_bytes is None or b_bytes is None:
            return None
        rests = a_bytes - self.a.allocated_bytes, b_bytes - self.b.allocated_bytes
        return Row(UNALLOCATED, UNALLOCATED, *rests, 0, 0, None)

    @property
    def is_one_trace(self) -> bool:
        """Whether both are moments of one recording."""
        return self.a.device is self.b.device

    def rows_of(self, change: Change) -> tuple[Row, ...]:
        """The rows of which that became; rounding is none of them."""
        return tuple(row for row in self.rows if row.change is change and not row.is_rounding)
