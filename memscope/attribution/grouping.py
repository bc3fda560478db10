"""What the allocations of a moment can be grouped by, and the group that each is in."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from memscope.attribution.attribution import Attribution
from memscope.attribution.sites import kind_of_module, module_of_owner, natural_order
from memscope.errors import UsageError, needed_for
from memscope.lifetimes.steps import Steps
from memscope.lifetimes.tables import AllocationTable
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.trace.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

NOT_RECORDED = "not recorded"
"""Name of the group of allocations whose owner or stack is not known."""

NOT_TAGGED = "not tagged"
"""Name of the group of allocations without a tag of the user's."""

_DECISION_WORDS = {
    CategorySource.IDENTITY: "owner recorded",
    CategorySource.USER: "the user's tag",
    CategorySource.LIFETIME: "takes the place of a weight",
    CategorySource.INFERRED: "inferred from sizes and lives",
    CategorySource.NONE: "no rule fits",
}


class Grouping(Enum):
    """What the memory of a moment can be grouped by."""

    CATEGORY = "category"
    SITE = "site"
    MODULE = "module"
    KIND = "kind"
    STEP = "step"
    TAG = "tag"
    RULE = "rule"


def category_groups(attribution: Attribution, rows: Int64Array) -> list[str]:
    """The category of each allocation."""
    return [Category(c).label for c in attribution.category[rows]]


def module_groups(trace: Trace, attribution: Attribution, rows: Int64Array) -> list[str]:
    """The module in each owner's name."""
    owners = [trace.shown_string(i) for i in attribution.owner_id[rows].tolist()]
    return [NOT_RECORDED if owner is None else module_of_owner(owner) for owner in owners]


def kind_groups(trace: Trace, attribution: Attribution, rows: Int64Array) -> list[str]:
    """The module in each owner's name, the same module of every layer together: ``model.layers.*.mlp.up_proj``."""
    return [kind_of_module(module) for module in module_groups(trace, attribution, rows)]


def tag_groups(trace: Trace, attribution: Attribution, rows: Int64Array) -> list[str]:
    """The user's tag on each allocation."""
    return [trace.shown_string(i) or NOT_TAGGED for i in attribution.tag_id[rows].tolist()]


def rule_groups(attribution: Attribution, rows: Int64Array) -> list[str]:
    """What decided each allocation's category: a rule's name, or who decided without one."""
    return [_decision(attribution, row) for row in rows.tolist()]


def _decision(attribution: Attribution, row: int) -> str:
    rule = attribution.rule_of(row)
    if rule is not None:
        return rule.name
    source = CategorySource(int(attribution.source[row]))
    return _DECISION_WORDS.get(source, source.label)


def step_groups(table: AllocationTable, steps: Steps | None, rows: Int64Array, name: str) -> list[str]:
    """The step that each allocation was made in.

    Raises
    ------
    UsageError
        If the steps of the trace, whose name is given for the message, cannot be told.
    """
    if steps is None:
        raise UsageError(
            f"the steps of {name} cannot be told: it has no marks (rec.step()), no optimizer steps or backward passes, "
            "and nothing that repeats"
        )
    born = table.alloc_event[rows]
    names = [label if label.lower().startswith("step") else f"step {label}" for label in steps.labels]
    return [
        "before the recording" if event == NONE_ID else names[step] if step != NONE_ID else "outside the steps"
        for event, step in zip(born.tolist(), steps.step_of(born).tolist(), strict=True)
    ]


class Group(NamedTuple):
    """Allocations of one label, summed."""

    label: str
    requested_bytes: int
    block_bytes: int
    n_allocations: int


def sum_groups(table: AllocationTable, rows: Int64Array, labels: Sequence[str]) -> tuple[Group, ...]:
    """Sum allocations by their labels, in the order that people count: layer 2 before layer 10. O(rows)."""
    ordered = sorted(set(labels), key=lambda label: (natural_order(label), label))
    place_of = {label: place for place, label in enumerate(ordered)}
    place = np.array([place_of[label] for label in labels], np.int64)

    def sums(values: Int64Array) -> list[int]:
        total = np.zeros(len(place_of), np.int64)
        np.add.at(total, place, values)
        return total.tolist()

    columns = sums(table.requested_bytes[rows]), sums(table.block_bytes[rows]), sums(np.ones(len(rows), np.int64))
    return tuple(Group(label, *values) for label, *values in zip(place_of, *columns, strict=True))


def largest_first(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Groups by their requested bytes, equal ones as they were."""
    return tuple(sorted(groups, key=lambda group: -group.requested_bytes))


def groups_frame(groups: Sequence[Group], name: str) -> pd.DataFrame:
    """Groups as ``requested_bytes block_bytes n_allocations``, all int64, by label."""
    with needed_for("a DataFrame", "pandas"):
        import pandas as pd

    columns = np.array([group[1:] for group in groups], np.int64).reshape(-1, 3)
    labels = pd.Index([group.label for group in groups], dtype=object, name=name)
    return pd.DataFrame(columns, index=labels, columns=list(Group._fields[1:]))
