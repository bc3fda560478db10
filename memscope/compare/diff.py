"""What two moments hold differently, of two recordings or of one.

Allocations are matched one by one, by category, owner, stack, phase, the age of their step and size, never by address.
What has no equal is matched again without the age, without the size, under another owner's name, without line numbers
(a program that was edited has moved them), without files (one was renamed), and by owner or function alone. What is
left is new, or gone. Where only one of two recordings has owners, lines of code stand for them on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from memscope.attribution.grouping import NOT_RECORDED
from memscope.attribution.ledger import ROUNDING
from memscope.attribution.sites import natural_order
from memscope.compare._holdings import (
    N_SAME_STACK,
    Group,
    groups_at,
    holder_of,
    module_of,
    owner_of,
)
from memscope.compare.difference import By, Difference, Matched, Row
from memscope.device.device import Moment
from memscope.errors import InvariantError
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array

_NAMES: dict[By, Callable[[Group], str | None]] = {
    By.HOLDER: holder_of,
    By.OWNER: owner_of,
    By.SITE: lambda group: group.site,
    By.MODULE: module_of,
    By.CATEGORY: lambda group: Category(group.category).label,
}

Name = TypeVar("Name", str, int)


class _Pair(NamedTuple):
    """So many allocations of a group of the first moment, and of one of the second, that are the same.

    ``way`` is that in which they were matched; None where one side has none.
    """

    a: Group | None
    b: Group | None
    n: int
    way: int | None


def diff_moments(a: Moment, b: Moment, by: By = By.HOLDER) -> Difference:
    """Say what the second moment holds beyond the first. O(n log n) in the allocations in use.

    Raises
    ------
    InvariantError
        If the rows do not sum to the allocated bytes of both: a difference that does not close is never returned.
    """
    stacks: dict[Hashable, int] = {}
    groups_a, groups_b = groups_at(a, known=stacks), groups_at(b, known=stacks)
    owners_in = None if a.device is b.device else _only_owners(groups_a, groups_b)
    if owners_in == "A":
        groups_a = groups_at(a, known=stacks, has_owners=False)
    elif owners_in == "B":
        groups_b = groups_at(b, known=stacks, has_owners=False)
    pairs = _matched(groups_a, groups_b)
    rounding = _rounding(groups_a, groups_b)
    named = sorted(_rows(pairs, _NAMES[by]), key=lambda row: (-abs(row.delta_bytes), natural_order(row.key), row.key))
    categories = sorted(_rows(pairs, _NAMES[By.CATEGORY]), key=lambda row: Category[row.category.upper()])
    found = Difference(a, b, by, (*named, rounding), (*categories, rounding), _counts(pairs), owners_in)
    for rows in (found.rows, found.categories):
        sums = sum(row.a_bytes for row in rows), sum(row.b_bytes for row in rows)
        if sums != (a.allocated_bytes, b.allocated_bytes):
            raise InvariantError(
                f"a difference sums to {sums[0]:,} and {sums[1]:,} bytes, the moments hold {a.allocated_bytes:,} and "
                f"{b.allocated_bytes:,}"
            )
    return found


def rows_at(moment: Moment, by: By = By.HOLDER, rows: Int64Array | None = None) -> tuple[Row, ...]:
    """What a moment holds, as its difference to an empty device: rounding last; they sum to its allocated bytes.

    Parameters
    ----------
    rows
        int64: those of the allocations in use that are meant; all of them if not given.
    """
    groups = groups_at(moment, rows)
    named = _rows([_Pair(None, group, group.n_allocations, None) for group in groups], _NAMES[by])
    largest_first = sorted(named, key=lambda row: (-row.b_bytes, natural_order(row.key), row.key))
    return (*largest_first, _rounding([], groups))


def _only_owners(groups_a: Sequence[Group], groups_b: Sequence[Group]) -> Literal["A", "B"] | None:
    """Which side alone has owners, of two that hold something; None where neither or both have."""
    has_a, has_b = (any(group.owner is not None for group in groups) for groups in (groups_a, groups_b))
    if has_a == has_b or not groups_a or not groups_b:
        return None
    return "A" if has_a else "B"


def _matched(groups_a: Sequence[Group], groups_b: Sequence[Group]) -> list[_Pair]:
    """Every allocation once, with its equal of the other moment, or alone."""
    pairs: list[_Pair] = []
    left_a, left_b = ([(group, group.n_allocations) for group in groups] for groups in (groups_a, groups_b))
    n_ways = len((*groups_a, *groups_b)[0].keys) if groups_a or groups_b else 0
    for way in range(n_ways):
        by_key_a, by_key_b = _by_key(left_a, way), _by_key(left_b, way)
        left_a, left_b = [], []
        for key, of_a in by_key_a.items():
            rest_a, rest_b = _paired(of_a, by_key_b.pop(key, []), way, pairs)
            left_a += rest_a
            left_b += rest_b
        left_b += [one for of_b in by_key_b.values() for one in of_b]
    pairs += [_Pair(group, None, n, None) for group, n in left_a]
    return pairs + [_Pair(None, group, n, None) for group, n in left_b]


_Left = list[tuple[Group, int]]
"""Groups, and how many of each are not matched yet."""


def _by_key(groups: _Left, way: int) -> dict[Hashable, _Left]:
    found: dict[Hashable, _Left] = defaultdict(list)
    for group, n in groups:
        found[group.keys[way]].append((group, n))
    return found


def _paired(of_a: _Left, of_b: _Left, way: int, pairs: list[_Pair]) -> tuple[_Left, _Left]:
    """Match allocations of one key in the order of their lines and sizes; what one side has more of is left."""
    if not of_a or not of_b:
        return of_a, of_b
    ordered_a, ordered_b = (sorted(of, key=_place, reverse=True) for of in (of_a, of_b))
    while ordered_a and ordered_b:
        (a, n_a), (b, n_b) = ordered_a.pop(), ordered_b.pop()
        n = min(n_a, n_b)
        pairs.append(_Pair(a, b, n, way))
        if n_a > n:
            ordered_a.append((a, n_a - n))
        if n_b > n:
            ordered_b.append((b, n_b - n))
    return ordered_a, ordered_b


def _place(left: tuple[Group, int]) -> tuple[tuple[int, ...], int]:
    return left[0].lines, left[0].size_bytes


def _rows(pairs: Sequence[_Pair], name_of: Callable[[Group], str | None]) -> list[Row]:
    """The pairs summed by category and name; what both have is called as the second moment calls it."""
    sums: dict[tuple[int, str], list[int]] = {}
    sites: dict[tuple[int, str], dict[str, int]] = {}
    stacks: dict[tuple[int, str], tuple[dict[int, int], dict[int, int]]] = {}
    for pair in pairs:
        named = pair.b or pair.a
        assert named is not None
        key = named.category, name_of(named) or NOT_RECORDED
        total = sums.setdefault(key, [0, 0, 0, 0])
        sizes = [0 if group is None else group.size_bytes * pair.n for group in (pair.a, pair.b)]
        weight = abs(sizes[1] - sizes[0]) or min(sizes[1], 1)
        of_stacks = stacks.setdefault(key, ({}, {}))
        for place, group in enumerate((pair.a, pair.b)):
            total[place] += sizes[place]
            total[place + 2] += 0 if group is None else pair.n
            if group is not None:
                of_stacks[place][group.stack_id] = of_stacks[place].get(group.stack_id, 0) + weight
        of_site = sites.setdefault(key, {})
        if named.site is not None:
            of_site[named.site] = of_site.get(named.site, 0) + weight
    return [
        Row(
            key,
            Category(category).label,
            a_bytes,
            b_bytes,
            n_a,
            n_b,
            _heaviest(sites[category, key]),
            _stack_of(stacks[category, key][0]),
            _stack_of(stacks[category, key][1]),
        )
        for (category, key), (a_bytes, b_bytes, n_a, n_b) in sums.items()
    ]


def _heaviest(weight_of: Mapping[Name, int]) -> Name | None:
    return max(weight_of, key=lambda name: weight_of[name]) if weight_of else None


def _stack_of(weight_of: Mapping[int, int]) -> int:
    stack_id = _heaviest(weight_of)
    return NONE_ID if stack_id is None else stack_id


def _rounding(groups_a: Sequence[Group], groups_b: Sequence[Group]) -> Row:
    given = [sum(group.block_bytes - group.requested_bytes for group in groups) for groups in (groups_a, groups_b)]
    return Row(ROUNDING, ROUNDING, given[0], given[1], 0, 0, None)


def _counts(pairs: Sequence[_Pair]) -> Matched:
    n_same = sum(pair.n for pair in pairs if pair.way is not None and pair.way < N_SAME_STACK)
    n_moved = sum(pair.n for pair in pairs if pair.way is not None and pair.way >= N_SAME_STACK)
    return Matched(
        n_same,
        n_moved,
        sum(pair.n for pair in pairs if pair.a is None),
        sum(pair.n for pair in pairs if pair.b is None),
    )
