"""What two moments hold differently, of two recordings or of one.

Allocations are matched by category, owner, stack, phase and the age of their step, never by address. What has no equal
is matched again without the age, then without line numbers (a program that was edited has moved them), without files
(one was renamed), then by owner or function alone. What is left is new, or gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from memscope.attribution.grouping import NOT_RECORDED
from memscope.attribution.ledger import ROUNDING
from memscope.attribution.sites import natural_order
from memscope.compare._holdings import (
    N_PASSES,
    N_SAME_STACK,
    Group,
    groups_at,
    holder_of,
    largest,
    module_of,
    owner_of,
)
from memscope.compare.difference import By, Difference, Matched, Row
from memscope.device.device import Moment
from memscope.errors import InvariantError
from memscope.trace.categories import Category
from memscope.trace.tables import Int64Array

_NAMES: dict[By, Callable[[Group], str | None]] = {
    By.HOLDER: holder_of,
    By.OWNER: owner_of,
    By.SITE: lambda group: group.site,
    By.MODULE: module_of,
    By.CATEGORY: lambda group: Category(group.category).label,
}

_Pair = tuple[list[Group], list[Group], int]
"""Groups of the first and of the second moment that are the same, and the pass in which they were matched."""


def diff_moments(a: Moment, b: Moment, by: By = By.HOLDER) -> Difference:
    """Say what the second moment holds beyond the first. O(n log n) in the allocations in use.

    Raises
    ------
    InvariantError
        If the rows do not sum to the allocated bytes of both: a difference that does not close is never returned.
    """
    groups_a, groups_b = groups_at(a), groups_at(b)
    pairs = _matched(groups_a, groups_b)
    rounding = _rounding(groups_a, groups_b)
    named = sorted(_rows(pairs, _NAMES[by]), key=lambda row: (-abs(row.delta_bytes), natural_order(row.key), row.key))
    categories = sorted(_rows(pairs, _NAMES[By.CATEGORY]), key=lambda row: Category[row.category.upper()])
    found = Difference(a, b, by, (*named, rounding), (*categories, rounding), _counts(pairs))
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
    named = _rows([([], [group], N_PASSES) for group in groups], _NAMES[by])
    largest_first = sorted(named, key=lambda row: (-row.b_bytes, natural_order(row.key), row.key))
    return (*largest_first, _rounding([], groups))


def _matched(groups_a: Sequence[Group], groups_b: Sequence[Group]) -> list[_Pair]:
    """Every group once, with its equals of the other moment; those without any alone, in the last pass and beyond."""
    pairs: list[_Pair] = []
    left_a, left_b = list(groups_a), list(groups_b)
    for i in range(N_PASSES):
        by_key_a, by_key_b = _by_key(left_a, i), _by_key(left_b, i)
        for key in (key for key in by_key_a if key in by_key_b):
            of_key = by_key_a[key], by_key_b[key]
            pairs += [(*of_key, i)] if i < N_SAME_STACK else [(*pair, i) for pair in _in_order(*of_key)]
        used = {id(group) for *sides, _ in pairs for side in sides for group in side}
        left_a, left_b = ([group for group in left if id(group) not in used] for left in (left_a, left_b))
    pairs += [([group], [], N_PASSES) for group in left_a]
    return pairs + [([], [group], N_PASSES) for group in left_b]


def _in_order(groups_a: list[Group], groups_b: list[Group]) -> Iterator[tuple[list[Group], list[Group]]]:
    """Groups of the same functions one by one: those of equal sizes first, the rest in the order of their lines.

    Where one side has more of the rest than the other, and both have some, none can be told from the others: they are
    taken together. Where only one side has any, they stay unmatched: those lines are new, or gone.
    """
    by_size: dict[tuple[int, int], list[Group]] = defaultdict(list)
    for group in sorted(groups_b, key=lambda group: group.lines, reverse=True):
        by_size[group.requested_bytes, group.n_allocations].append(group)
    rest_a = []
    for group in sorted(groups_a, key=lambda group: group.lines):
        equal = by_size[group.requested_bytes, group.n_allocations]
        if equal:
            yield [group], [equal.pop()]
        else:
            rest_a.append(group)
    rest_b = sorted((group for groups in by_size.values() for group in groups), key=lambda group: group.lines)
    if len(rest_a) == len(rest_b):
        yield from (([one], [two]) for one, two in zip(rest_a, rest_b, strict=True))
    elif rest_a and rest_b:
        yield rest_a, rest_b


def _by_key(groups: Sequence[Group], i: int) -> dict[Hashable, list[Group]]:
    found: dict[Hashable, list[Group]] = defaultdict(list)
    for group in groups:
        found[group.keys[i]].append(group)
    return dict(found)


def _rows(pairs: Sequence[_Pair], name_of: Callable[[Group], str | None]) -> list[Row]:
    """The pairs summed by category and name; what both have is called as the second moment calls it."""
    sums: dict[tuple[int, str], list[int]] = {}
    sites: dict[tuple[int, str], dict[str, int]] = {}
    for groups_a, groups_b, _ in pairs:
        named = largest(groups_b or groups_a)
        key = named.category, name_of(named) or NOT_RECORDED
        total = sums.setdefault(key, [0, 0, 0, 0])
        for place, groups in ((0, groups_a), (1, groups_b)):
            total[place] += sum(group.requested_bytes for group in groups)
            total[place + 2] += sum(group.n_allocations for group in groups)
        of_site = sites.setdefault(key, {})
        if named.site is not None:
            change = sum(g.requested_bytes for g in groups_b) - sum(g.requested_bytes for g in groups_a)
            weight = abs(change) or min(named.requested_bytes, 1)
            of_site[named.site] = of_site.get(named.site, 0) + weight
    return [
        Row(key, Category(category).label, a_bytes, b_bytes, n_a, n_b, _heaviest(sites[category, key]))
        for (category, key), (a_bytes, b_bytes, n_a, n_b) in sums.items()
    ]


def _heaviest(weight_of: Mapping[str, int]) -> str | None:
    return max(weight_of, key=lambda name: weight_of[name]) if weight_of else None


def _rounding(groups_a: Sequence[Group], groups_b: Sequence[Group]) -> Row:
    given = [sum(group.block_bytes - group.requested_bytes for group in groups) for groups in (groups_a, groups_b)]
    return Row(ROUNDING, ROUNDING, given[0], given[1], 0, 0, None)


def _counts(pairs: Sequence[_Pair]) -> Matched:
    n_same = n_moved = n_new = n_gone = 0
    for groups_a, groups_b, i in pairs:
        n_a, n_b = (sum(group.n_allocations for group in groups) for groups in (groups_a, groups_b))
        if i == N_PASSES:
            n_new, n_gone = n_new + n_b, n_gone + n_a
            continue
        both = min(n_a, n_b)
        n_same, n_moved = (n_same + both, n_moved) if i < N_SAME_STACK else (n_same, n_moved + both)
        n_new, n_gone = n_new + n_b - both, n_gone + n_a - both
    return Matched(n_same, n_moved, n_new, n_gone)
