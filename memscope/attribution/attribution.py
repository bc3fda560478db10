"""The category and the owner of every allocation, and what decided it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memscope.attribution._predating import GUESSED, Inference, Inferred, infer_averages, infer_predating
from memscope.attribution._tags import metadata_tags, range_tags, used_ids
from memscope.attribution.phases.lives import Life, LifeTable
from memscope.attribution.phases.phases import Phase, PhaseRuns, find_phases
from memscope.attribution.rule import Rule, match_rows, match_unseen
from memscope.attribution.rule_table import ALL_RULES
from memscope.lifetimes.ages import follow_replacements
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.names import searchable
from memscope.trace.categories import Category, CategorySource, tag_meaning
from memscope.trace.frames import StackSearch
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int8Array, Int32Array, Int64Array, frozen_array
from memscope.trace.trace import Trace

_N_ENDING_FREES = 4
_OTHERS_WORKSPACE_BYTES, _HOPPER_WORKSPACE_BYTES = 8_519_680, 32 << 20


@dataclass(frozen=True, slots=True)
class Attribution:
    """Aligned with the rows of a device's :class:`~memscope.lifetimes.tables.AllocationTable`.

    Attributes
    ----------
    category
        int8 (rows,): :class:`~memscope.trace.categories.Category`.
    source
        int8 (rows,): :class:`~memscope.trace.categories.CategorySource`, what decided.
    owner_id
        int32 (rows,): the owner's name in the trace's strings, −1 where none is known.
    rule_id
        int32 (rows,): the rule that decided, a position in ``rules``; −1 where none did.
    tensor_id
        int32 (rows,): the type and shape of the tensor that fills it, a text of the trace's strings; −1 where that was
        not seen.
    tag_id
        int32 (rows,): the user's tag in the trace's strings, −1 where there is none.
    inference_id
        int32 (rows,): what was inferred of it from sizes, counts and lives, a position in ``inferences``; −1 where
        nothing was.
    rules
        The rules that were in force.
    inferences
        What was inferred, each with its confidence and its evidence.
    """

    category: Int8Array
    source: Int8Array
    owner_id: Int32Array
    rule_id: Int32Array
    tag_id: Int32Array
    tensor_id: Int32Array
    inference_id: Int32Array
    rules: tuple[Rule, ...]
    inferences: tuple[Inference, ...] = ()

    def __post_init__(self) -> None:
        for name in ("category", "source"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int8))
        for name in ("owner_id", "rule_id", "tag_id", "tensor_id", "inference_id"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int32))

    def rule_of(self, row: int) -> Rule | None:
        """The rule that decided an allocation's category, None where none did."""
        rule_id = int(self.rule_id[row])
        return None if rule_id == NONE_ID else self.rules[rule_id]

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """How sure what was inferred is, NaN where nothing was: float64 (rows,)."""
        by_id = np.array([*(inference.confidence for inference in self.inferences), np.nan], np.float64)
        found: npt.NDArray[np.float64] = by_id[self.inference_id]
        return found

    def inference_of(self, row: int) -> Inference | None:
        """What was inferred of an allocation, None where nothing was."""
        inference_id = int(self.inference_id[row])
        return None if inference_id == NONE_ID else self.inferences[inference_id]


def attribute(lifetimes: DeviceLifetimes, rules: Sequence[Rule] = ALL_RULES) -> Attribution:
    """Decide every allocation's category: by identity, then the user's tag, then the rules; the rest is unknown.

    Of what is unknown and predates the events some is inferred from the rest, with a confidence. A tag that is the name
    of a category decides it; any other is a label, and leaves the category to the rules. A tag of memscope's own goes
    before what PyTorch was told, and that before the range in which the memory was allocated, which is a label whatever
    it says.
    """
    table, trace = lifetimes.allocations, lifetimes.trace
    owned, owner = _owned_rows(lifetimes)
    owners = trace.owners
    told = metadata_tags(lifetimes)
    tag_id = np.full(len(table), NONE_ID, np.int32)
    tag_id[owned] = np.where(owners.tagged[owner], owners.label_id[owner], NONE_ID)
    for tags in (told, range_tags(lifetimes)):
        tag_id = np.where(tag_id == NONE_ID, tags, tag_id)
    search = StackSearch(trace)
    runs = find_phases(lifetimes, search)
    rule_id = match_rows(lifetimes, rules, tag_id, search, runs)
    decided = rule_id != NONE_ID
    n = len(table)
    category = np.full(n, Category.UNKNOWN, np.int8)
    source = np.full(n, CategorySource.NONE, np.int8)
    owner_id = np.full(n, NONE_ID, np.int32)
    if rules:
        category[decided] = np.array([rule.category for rule in rules], np.int8)[rule_id[decided]]
        source[decided] = np.array([_source(rule) for rule in rules], np.int8)[rule_id[decided]]
    told_by_tag = _categories_told(trace, told)
    by_tag = told_by_tag != Category.UNKNOWN
    category[by_tag], source[by_tag], rule_id[by_tag] = told_by_tag[by_tag], CategorySource.USER, NONE_ID
    labelled = owners.tagged[owner] & (owners.category[owner] == Category.UNKNOWN)
    owner_id[owned] = owners.label_id[owner]
    tensor_id = np.full(n, NONE_ID, np.int32)
    tensor_id[owned] = owners.tensor_id[owner]
    owned, owner = owned[~labelled], owner[~labelled]
    category[owned] = owners.category[owner]
    source[owned] = np.where(owners.tagged[owner], CategorySource.USER, CategorySource.IDENTITY)
    rule_id[owned] = NONE_ID
    renewed = _renewed_weights(lifetimes, runs, category)
    renewed = renewed[category[renewed] == Category.OPTIMIZER_STATE]
    renewed = renewed[np.isin(source[renewed], (CategorySource.RULE, CategorySource.LIFETIME))]
    category[renewed], source[renewed], rule_id[renewed] = Category.WEIGHTS, CategorySource.LIFETIME, NONE_ID
    twin = _engine_workspace(lifetimes, runs, category, source)
    category[twin], source[twin], rule_id[twin] = Category.WORKSPACE, CategorySource.LIFETIME, NONE_ID
    inference_id = np.full(n, NONE_ID, np.int32)
    inferred: list[Inferred] = []
    if rules:
        inferred = _by_name_alone(lifetimes, rules, category, search, runs)
        predating = infer_predating(lifetimes, runs, category, search)
        is_owned = np.isin(source, (CategorySource.IDENTITY, CategorySource.USER))
        inferred += predating or infer_averages(lifetimes, runs, category, is_owned, search)
    for position, found in enumerate(inferred):
        category[found.rows] = found.inference.category
        source[found.rows] = CategorySource.INFERRED
        inference_id[found.rows] = position
        rule_id[found.rows] = NONE_ID
    untold = category == Category.UNKNOWN
    source[untold] = CategorySource.NONE
    inferences = tuple(found.inference for found in inferred)
    return Attribution(category, source, owner_id, rule_id, tag_id, tensor_id, inference_id, tuple(rules), inferences)


def _by_name_alone(
    lifetimes: DeviceLifetimes, rules: Sequence[Rule], category: Int8Array, search: StackSearch, runs: PhaseRuns
) -> list[Inferred]:
    """What a rule would tell of what is unknown if more had been recorded than a state: no more than a guess."""
    rule_id = match_unseen(lifetimes, rules, np.flatnonzero(category == Category.UNKNOWN), search, runs)
    found = []
    for position in np.unique(rule_id[rule_id != NONE_ID]).tolist():
        rule = rules[position]
        reason = f"by its stack alone ({rule.name}): too little was recorded to see how long it lives"
        rows = np.flatnonzero(rule_id == position)
        found.append(Inferred(rows, Inference(rule.category, GUESSED, reason)))
    return found


def _renewed_weights(lifetimes: DeviceLifetimes, runs: PhaseRuns, category: Int8Array) -> Int64Array:
    """What takes the place of weights in an optimizer's step, which may make new ones: int64 rows.

    Weights that are let go of after the last that a step makes, but for the few frees that end it, are dropped with
    their model.
    """
    table, died = lifetimes.allocations, lifetimes.died_event
    in_step = np.flatnonzero(runs.phase_at(died) == Phase.OPTIMIZER)
    rows: Int64Array = in_step[(category[in_step] == Category.WEIGHTS) & (died[in_step] != NEVER)]
    if not len(rows):
        return rows
    made = np.flatnonzero((runs.row_phase == Phase.OPTIMIZER) & (runs.row_run != NONE_ID))
    last = runs.last_made(table.alloc_event)
    frees = np.sort(died[died != NEVER])
    nth = np.minimum(np.searchsorted(frees, last) + _N_ENDING_FREES, len(frees)) - 1
    is_replaced = np.zeros(len(table), np.bool_)
    is_replaced[in_step] = died[in_step] <= frees[nth][runs.run_at(died[in_step])]
    renewed = follow_replacements(lifetimes, rows, made, is_replaced)
    return np.array(list(renewed.values()), np.int64)


def _engine_workspace(
    lifetimes: DeviceLifetimes, runs: PhaseRuns, category: Int8Array, source: Int8Array
) -> Int64Array:
    """The autograd engine's twin of a cuBLAS workspace on Hopper, which has a size of gradients: int64, one or none.

    The thread that runs backward passes has no stack of Python. Its workspace is made at its first product, before the
    gradient of any weight, and stays as long as the program's own. Beside cuBLAS's of other GPUs that size is that of
    cuBLASLt's, which backward passes need not have.
    """
    table = lifetimes.allocations
    if np.any((category == Category.WORKSPACE) & (table.requested_bytes == _OTHERS_WORKSPACE_BYTES)):
        return np.empty(0, np.int64)
    is_candidate = (table.requested_bytes == _HOPPER_WORKSPACE_BYTES) & (table.alloc_event != NONE_ID)
    own = np.flatnonzero(is_candidate & (category == Category.WORKSPACE) & (runs.row_phase != Phase.BACKWARD))
    is_told = np.isin(source, (CategorySource.IDENTITY, CategorySource.USER))
    is_candidate &= (runs.row_phase == Phase.BACKWARD) & (table.stack_id == NONE_ID) & ~is_told
    rows: Int64Array = np.flatnonzero(is_candidate)
    if not (len(own) and len(rows)):
        return rows[:0]
    first = rows[np.argmin(table.alloc_event[rows])]
    lasts = LifeTable(lifetimes, runs).rows(Life.TO_THE_END)
    return np.array([first] if lasts[first] else [], np.int64)


def _categories_told(trace: Trace, tags: Int32Array) -> Int8Array:
    """The category that each tag names, unknown where it names none or there is no tag."""
    meanings = np.full(len(trace.strings) + 1, Category.UNKNOWN, np.int8)
    for i in used_ids(trace, tags):
        meanings[i] = tag_meaning(searchable(trace.strings[i]))[0]
    found: Int8Array = meanings[tags]
    return found


def _source(rule: Rule) -> CategorySource:
    """What decides where a rule does: the user, the stack, or how long the allocation lives."""
    if rule.is_users:
        return CategorySource.USER
    return CategorySource.LIFETIME if rule.lives or not rule.frames else CategorySource.RULE


def _owned_rows(lifetimes: DeviceLifetimes) -> tuple[Int64Array, Int64Array]:
    """Rows whose owner was recorded, and the owner of each (positions in the trace's owners)."""
    table, owners = lifetimes.allocations, lifetimes.trace.owners
    if not len(owners):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    predates = table.alloc_event == NONE_ID
    position = np.searchsorted(owners.alloc_event, table.alloc_event)
    inside = (position < len(owners)) & ~predates
    found = np.zeros(len(table), np.bool_)
    found[inside] = owners.alloc_event[position[inside]] == table.alloc_event[inside]
    here = np.flatnonzero((owners.alloc_event == NONE_ID) & (owners.device == lifetimes.device))
    old = np.flatnonzero(predates)
    if len(here) and len(old):
        at = np.minimum(np.searchsorted(owners.address[here], table.address[old]), len(here) - 1)
        matches = owners.address[here[at]] == table.address[old]
        found[old[matches]] = True
        position[old[matches]] = here[at[matches]]
    return np.flatnonzero(found), position[found]
