"""What was there before the recording began: told from sizes, counts and lives, with the confidence that they allow.

Such memory has no stack. What is recorded of the work on it tells it all the same: a backward pass that leaves one
gradient for each parameter says how many blocks of each size are weights, and the equal blocks beside them are what the
optimizer keeps. Nothing is told here unless counts agree to the byte; what is told says by which. Which of several equal
blocks are the weights is told from their ages: weights are made first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np

from memscope.attribution._frames import FramePattern, StackSearch
from memscope.attribution._phases import Phase, PhaseRuns
from memscope.attribution.rule_table import CACHE_RULES, MODULE_FILE
from memscope.lifetimes.ages import by_age, follow_replacements, lasting_rows
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int8Array, Int64Array
from memscope.units import format_bytes, format_count, format_items

Sizes = dict[int, int]
"""How many allocations there are of each size in bytes: a multiset."""

CERTAIN, LIKELY, MIXED = 0.99, 0.95, 0.8
"""Confidence where every count agrees; where it takes an assumption; and where the sums are as sure, but which of equal
blocks are which is not. ``benchmarks/inference.py`` measures how often each is right."""

_MOST_COPIES = 3
_SLACK = 0.05
_N_MOMENTS = 2
_N_EXACT_SIZES = 3
_DOUBLE = 2
_CUBLAS_WORKSPACE_BYTES = 8_519_680
_SHARED_WORKSPACES = (32 << 20, 1 << 20)
_N_MOST_WORKSPACES = 2
"""cuBLASLt and cuBLAS ask for exactly so many bytes: there may be one or two more of the size than there are tensors."""
_MOST_LAYERS = 512
_N_LEAST_CACHED = 4
_N_MOST_OUTSIDE = 2
_N_LEAST_SIZES = 2
_LEAST_VECTOR_BYTES, _MOST_VECTOR_BYTES = 256, 256 << 10
_N_LEAST_ROWS = 8
_VECTORS_IN_A_TABLE = 8


@dataclass(frozen=True, slots=True)
class Inference:
    """What some allocations from before the recording are, how sure that is, and by what evidence."""

    category: Category
    confidence: float
    reason: str


@dataclass(frozen=True, slots=True)
class Inferred:
    """Rows of a device's allocations, and what they are."""

    rows: Int64Array
    inference: Inference


def infer_predating(
    lifetimes: DeviceLifetimes, runs: PhaseRuns, category: Int8Array, search: StackSearch
) -> list[Inferred]:
    """Tell what allocations from before the events are, of those that are unknown by ``category``: int8 (rows,).

    Linear in the allocations, but for work on each distinct size; nothing is done where everything is known.
    """
    is_open = (lifetimes.allocations.alloc_event == NONE_ID) & (category == Category.UNKNOWN)
    if not is_open.any():
        return []
    scene = _Scene(lifetimes, runs, category, is_open)
    gradients = scene.gradients()
    found = [*_workspaces(scene), *_replaced(scene, gradients)]
    if gradients:
        found += _beside_gradients(scene, gradients, search)
    elif scene.has_phase(Phase.BACKWARD):
        found += _accumulating(scene)
    else:
        found += _weights_alone(scene, search)
    return [*found, *_saved(scene)]


class _Scene:
    """A device's allocations as multisets of sizes; what is told is taken out of what is open."""

    def __init__(self, lifetimes: DeviceLifetimes, runs: PhaseRuns, category: Int8Array, is_open: BoolArray) -> None:
        self.lifetimes = lifetimes
        self.table = lifetimes.allocations
        self.size: Int64Array = lifetimes.allocations.requested_bytes
        self.died = lifetimes.died_event
        self.runs = runs
        self.category = category
        self.is_open = is_open.copy()
        self.lasts = lasting_rows(lifetimes)
        self._orders = by_age(lifetimes)
        self.by_age = self._orders[0]

    def settle_ages(self, trained: Sizes) -> None:
        """Choose among several orders of ages.

        The one by which just the weights came before cuBLAS' workspace, which the first pass makes; without any, the one
        by which the oldest blocks do not come in pairs, as an optimizer makes its moments.
        """
        if len(self._orders) == 1:
            return
        is_trained = np.isin(self.size, list(trained)) & self.lasts
        has_workspace = bool(np.any(self.size[self.by_age] == _CUBLAS_WORKSPACE_BYTES))

        def misfit(order: Int64Array) -> int:
            if has_workspace:
                before = order[: np.flatnonzero(self.size[order] == _CUBLAS_WORKSPACE_BYTES)[0]]
                return abs(int(self.size[before[is_trained[before]]].sum()) - _sum_bytes(trained))
            rows = order[is_trained[order]]
            oldest = rows[_rank_in_size(self.size[rows]) < _wanted(self.size[rows], trained)]
            ends = np.flatnonzero(np.diff(self.size[np.sort(oldest)], append=-1))
            return -int(np.count_nonzero(np.diff(ends, prepend=-1) % 2))

        self.by_age = min(self._orders, key=misfit)

    def has_phase(self, phase: Phase) -> bool:
        """Whether the device ever is in a phase."""
        return bool((self.runs.phase == phase).any())

    def open_by_age(self, lasts: bool) -> Int64Array:
        """Rows yet to be told, of those that last or of those that do not, the oldest first: int64."""
        rows = self.by_age
        return rows[self.is_open[rows] & (self.lasts[rows] == lasts)]

    def lasting(self, *categories: Category) -> Sizes:
        """Sizes of what lasts, of some categories; of the unknown what is open."""
        known = tuple(category for category in categories if category is not Category.UNKNOWN)
        counts = np.isin(self.category, known)
        if Category.UNKNOWN in categories:
            counts |= self.is_open
        return count_sizes(self.size[self.lasts & counts])

    def tell(self, rows: Int64Array, category: Category, confidence: float, reason: str) -> Iterator[Inferred]:
        """Take rows out of what is open."""
        if len(rows):
            self.is_open[rows] = False
            yield Inferred(rows, Inference(category, confidence, reason))

    def last_made(self, run: Int64Array) -> Int64Array:
        """The last allocation within each of some runs, −1 for none: int64."""
        last = np.full(len(self.runs.phase), NONE_ID, np.int64)
        made = np.flatnonzero(self.runs.row_run != NONE_ID)
        np.maximum.at(last, self.runs.row_run[made], self.table.alloc_event[made])
        found: Int64Array = last[run]
        return found

    def pass_over(self, rows: Int64Array) -> None:
        """Leave rows untold: what they are is not clear, and others come after them."""
        self.is_open[rows] = False

    def gradients(self) -> Sizes:
        """Sizes of the gradients that the events make, where most bytes of them are alive at the end of a pass."""
        made = np.flatnonzero((self.category == Category.GRADIENTS) & (self.table.alloc_event != NONE_ID))
        ends = self.runs.end[self.runs.phase == Phase.BACKWARD]
        if not len(made) or not len(ends):
            return {}
        born = _bytes_before(self.table.alloc_event[made], self.size[made], ends)
        end = ends[int(np.argmax(born - _bytes_before(self.died[made], self.size[made], ends)))]
        alive = (self.table.alloc_event[made] < end) & (self.died[made] >= end)
        return _plus(count_sizes(self.size[made[alive]]), self._made_before())

    def _made_before(self) -> Sizes:
        """Sizes of the gradients that the only pass had made when the recording began within it.

        The optimizer drops them with the rest.
        """
        dropped = count_sizes(self.size[self.dropped_by_optimizer()]) if self.begins_in_only_pass else {}
        kept = self.size[self.made_by_optimizer()]
        return {} if np.isin(kept, list(dropped)).any() else dropped

    @property
    def begins_in_only_pass(self) -> bool:
        """Whether the recording begins within its only backward pass, and has a part of its gradients."""
        is_pass = self.runs.phase == Phase.BACKWARD
        return bool(is_pass[0]) and int(is_pass.sum()) == 1

    def made_by_optimizer(self) -> Int64Array:
        """Rows that an optimizer's step makes and keeps: int64."""
        runs = self.runs
        made = np.flatnonzero((runs.row_phase == Phase.OPTIMIZER) & (runs.row_run != NONE_ID))
        return made[self.died[made] >= runs.end[runs.row_run[made]]]

    def dropped_by_optimizer(self) -> Int64Array:
        """Open rows whose free says by its stack that it is within the optimizer's step: int64."""
        rows = self.by_age[self.is_open[self.by_age]]
        rows = rows[self.died[rows] != NEVER]
        rows = rows[self.lifetimes.trace.stack_id[self.died[rows]] != NONE_ID]
        return rows[self.runs.phase_at(self.died[rows]) == Phase.OPTIMIZER]

    def passing(self, phase: Phase) -> Sizes:
        """Sizes of what is made and dropped within a run of a phase: the run that has most of it."""
        runs = self.runs
        rows = np.flatnonzero((runs.row_run != NONE_ID) & (runs.row_phase == phase))
        rows = rows[self.died[rows] < runs.end[runs.row_run[rows]]]
        if not len(rows):
            return {}
        fullest = int(np.argmax(np.bincount(runs.row_run[rows])))
        return count_sizes(self.size[rows[runs.row_run[rows] == fullest]])


def count_sizes(size_bytes: Int64Array) -> Sizes:
    """Count equal sizes."""
    sizes, counts = np.unique(size_bytes, return_counts=True)
    return dict(zip(sizes.tolist(), counts.tolist(), strict=True))


def _bytes_before(event: Int64Array, size_bytes: Int64Array, ends: Int64Array) -> Int64Array:
    """Bytes of what happens before each of some events: int64 (ends,)."""
    order = np.argsort(event, kind="stable")
    total = np.concatenate([[0], np.cumsum(size_bytes[order])])
    found: Int64Array = total[np.searchsorted(event[order], ends)]
    return found


def _sum_bytes(sizes: Mapping[int, int]) -> int:
    return sum(size * n for size, n in sizes.items())


def _rank_in_size(size_bytes: Int64Array) -> Int64Array:
    """How many of the same size come before each: int64."""
    order = np.argsort(size_bytes, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(size_bytes[order], size_bytes[order])
    return rank


def _wanted(size_bytes: Int64Array, sizes: Mapping[int, int]) -> Int64Array:
    """How many of each one's size a multiset has: int64."""
    distinct, position = np.unique(size_bytes, return_inverse=True)
    found: Int64Array = np.array([sizes.get(size, 0) for size in distinct.tolist()], np.int64)[position.reshape(-1)]
    return found


def _first_of_each(scene: _Scene, wanted: Mapping[int, int]) -> Int64Array:
    """The oldest lasting open rows, so many of each size: int64."""
    rows = scene.open_by_age(lasts=True)
    size = scene.size[rows]
    return rows[_rank_in_size(size) < _wanted(size, wanted)]


def _less(sizes: Mapping[int, int], *taken: Mapping[int, int]) -> Sizes:
    """What is left of a multiset."""
    left = {size: n - sum(other.get(size, 0) for other in taken) for size, n in sizes.items()}
    return {size: n for size, n in left.items() if n > 0}


def _times(sizes: Mapping[int, int], n: int, factor: int = 1) -> Sizes:
    """So many copies of a multiset whose sizes are multiplied."""
    return {size * factor: count * n for size, count in sizes.items() if n}


def _plus(*added: Mapping[int, int]) -> Sizes:
    total: Sizes = {}
    for sizes in added:
        for size, n in sizes.items():
            total[size] = total.get(size, 0) + n
    return total


def _holds(sizes: Mapping[int, int], part: Mapping[int, int]) -> bool:
    return all(sizes.get(size, 0) >= n for size, n in part.items())


def _workspaces(scene: _Scene) -> Iterator[Inferred]:
    rows = scene.open_by_age(lasts=True)
    rows = rows[scene.size[rows] == _CUBLAS_WORKSPACE_BYTES]
    yield from scene.tell(rows, Category.WORKSPACE, CERTAIN, "cuBLAS asks for exactly 8,519,680 bytes and keeps them")


# Beside gradients


def _beside_gradients(scene: _Scene, gradients: Sizes, search: StackSearch) -> Iterator[Inferred]:
    """One weight for each gradient; what else there is of these sizes, or of twice them, is the optimizer's."""
    yield from _freed_gradients(scene, gradients)
    there = scene.lasting(Category.UNKNOWN, Category.WEIGHTS, Category.OPTIMIZER_STATE)
    trained = {size: n for size, n in gradients.items() if there.get(size, 0) >= n}
    if _sum_bytes(trained) < (1 - _SLACK) * _sum_bytes(gradients):
        return
    scene.settle_ages(trained)
    beside = _beside(there, trained, search, is_whole=not scene.begins_in_only_pass)
    if beside.n_double:
        yield from _freed_gradients(scene, _times(gradients, 1, _DOUBLE))
    yield from _begun_step(scene)
    of = f"the {format_items(sum(trained.values()), 'gradient')} of a backward pass ({format_bytes(_sum_bytes(trained))})"
    known = scene.lasting(Category.WEIGHTS)
    rows = _first_of_each(scene, _less(trained, known))
    yield from scene.tell(rows, Category.WEIGHTS, beside.confidence, f"as many of each size as {of}, to the byte")
    rows = _first_of_each(scene, _less(beside.frozen.weights, _less(known, trained)))
    yield from scene.tell(rows, Category.WEIGHTS, LIKELY, beside.frozen.reason)
    n_unsure = 1 if beside.n_same and _may_be_another(scene, search, beside.n_same) else 0
    scene.pass_over(_first_of_each(scene, _times(trained, n_unsure)))
    states = _plus(_times(trained, beside.n_same - n_unsure), _times(trained, beside.n_double, _DOUBLE))
    states = {size: n for size, n in states.items() if size not in beside.untold}
    rows = _first_of_each(scene, _less(states, scene.lasting(Category.OPTIMIZER_STATE)))
    is_mixed = np.isin(scene.size[rows], list(beside.with_others))
    reason = beside.state_reason(of)
    yield from scene.tell(rows[~is_mixed], Category.OPTIMIZER_STATE, beside.confidence, reason)
    yield from scene.tell(rows[is_mixed], Category.OPTIMIZER_STATE, MIXED, reason)


@dataclass(frozen=True, slots=True)
class _Beside:
    """What lies beside the weights that are trained.

    Attributes
    ----------
    n_same, n_double
        How many copies of their sizes the optimizer keeps, and of twice their sizes.
    frozen
        Weights that are not trained.
    with_others
        Sizes of which libraries may have one or two more.
    untold
        Sizes of which there are others that nothing tells.
    """

    n_same: int
    n_double: int
    frozen: Layered
    with_others: frozenset[int]
    untold: frozenset[int]
    confidence: float

    def state_reason(self, of: str) -> str:
        """By what evidence there are as many copies."""
        copies = ((self.n_same, "the sizes"), (self.n_double, "twice the sizes"))
        counts = " and ".join(f"{n} × {what}" for n, what in copies if n)
        return f"beside the weights {counts} of {of}, to the byte"


def _beside(there: Sizes, trained: Sizes, search: StackSearch, *, is_whole: bool) -> _Beside:
    """Find what lies beside the trained weights, of which ``trained`` may not be all: copies, as many as sizes allow.

    Where nearly all bytes are explained so, that is it. Where some weights are frozen, of the same sizes as trained
    ones, the rest must be layers, and the optimizer known to keep two moments.
    """
    adam, sgd = (search.stacks(FramePattern(rf"torch/optim/{name}\.py$")).any() for name in (r"\w*adam\w*", "sgd"))
    n_same, n_double = _copies(there, trained, 1 if sgd else _MOST_COPIES)
    extra, concerned = _extra(there, trained, n_same, n_double)
    n_exact = sum(size not in extra for size in trained)
    beyond = sum(size * n for size, n in extra.items() if size in concerned)
    is_exact = beyond <= _SLACK * _sum_bytes(trained) and (n_exact >= _N_EXACT_SIZES or n_exact == len(trained))
    if is_exact:
        frozen = layered({size: n for size, n in extra.items() if size not in concerned})
        confidence = CERTAIN
    else:
        n_same = 0 if not adam or n_same < _N_MOMENTS else _N_MOMENTS
        n_double = n_double if n_double >= _N_MOMENTS else 0
        extra, concerned = _extra(there, trained, n_same, n_double)
        frozen = layered(extra)
        confidence = LIKELY
        if not is_whole or _sum_bytes(frozen.weights) < (1 - _SLACK) * sum(
            size * n for size, n in extra.items() if size in concerned
        ):
            n_same = n_double = 0
            frozen = Layered({})
    rest = _less(extra, frozen.weights)
    shared = frozenset(size for size, n in rest.items() if size in _SHARED_WORKSPACES and n <= _N_MOST_WORKSPACES)
    return _Beside(n_same, n_double, frozen, shared, frozenset(rest) - shared, confidence)


def _extra(there: Sizes, trained: Sizes, n_same: int, n_double: int) -> tuple[Sizes, set[int]]:
    """What is neither trained nor a copy, and the sizes that trained weights and copies have."""
    states = _plus(_times(trained, n_same), _times(trained, n_double, _DOUBLE))
    return _less(there, trained, states), {*trained, *states}


def _copies(there: Sizes, trained: Sizes, most: int) -> tuple[int, int]:
    """How many copies of the trained sizes, and of twice them, are there beside the weights: the most that fit."""
    left = _less(there, trained)
    choices = [
        (n_same, n_double)
        for n_same, n_double in product(range(most + 1), repeat=2)
        if _holds(left, _plus(_times(trained, n_same), _times(trained, n_double, _DOUBLE)))
    ]
    return max(choices, key=lambda choice: choice[0] + _DOUBLE * choice[1])


def _may_be_another(scene: _Scene, search: StackSearch, n_same: int) -> bool:
    """Whether one copy may be another model's weights, or an average of them.

    Two copies beside the weights are two moments, but for SGD. One or three may be a model that is only called: it is
    seen in a whole step where modules are called whose backward pass never comes. Three are moments of few optimizers.
    """
    if n_same == _N_MOMENTS:
        return bool(search.stacks(FramePattern(r"torch/optim/sgd\.py$")).any()) and _calls_without_backward(
            scene, search
        )
    n_passes = int((scene.runs.phase == Phase.BACKWARD).sum())
    return n_same > _N_MOMENTS or n_passes < 2 or _calls_without_backward(scene, search)


def _calls_without_backward(scene: _Scene, search: StackSearch) -> bool:
    """Whether a place of the program calls modules and autograd saves nothing of what they make."""
    runs, table = scene.runs, scene.table
    rows = np.flatnonzero(
        (runs.row_phase == Phase.FORWARD) & (table.stack_id != NONE_ID) & (table.alloc_event != NONE_ID)
    )
    stacks = scene.lifetimes.trace.stacks
    is_call = search.frames(FramePattern(r"torch/nn/modules/module\.py$", r"^(_call_impl|_wrapped_call_impl)$"))
    saved = runs.phase_at(scene.died[rows]) == Phase.BACKWARD
    saved &= scene.died[rows] < NEVER
    places: dict[bytes, list[int]] = {}
    ids, position = np.unique(table.stack_id[rows], return_inverse=True)
    n_rows, n_saved = np.bincount(position), np.bincount(position, weights=saved)
    for stack_id, n, n_kept in zip(ids.tolist(), n_rows.tolist(), n_saved.tolist(), strict=True):
        frames = stacks.frames_of(stack_id)
        calls = np.flatnonzero(is_call[frames])
        if len(calls):
            place = places.setdefault(frames[calls[-1] + 1 :].tobytes(), [0, 0])
            place[0] += n
            place[1] += int(n_kept)
    return any(n >= _N_LEAST_ROWS and not n_kept for n, n_kept in places.values())


# Gradients that were there


def _accumulating(scene: _Scene) -> Iterator[Inferred]:
    """Backward passes that leave nothing add to gradients that are there: each makes one temporary for each of them."""
    there = scene.lasting(Category.UNKNOWN, Category.WEIGHTS, Category.OPTIMIZER_STATE, Category.GRADIENTS)
    added = scene.passing(Phase.BACKWARD)
    by_ratio: dict[int, Sizes] = {}
    for size, n in there.items():
        if added.get(size, 0) and n % added[size] == 0:
            by_ratio.setdefault(n // added[size], {})[size] = n
    if not by_ratio:
        return
    k = max(by_ratio, key=lambda ratio: _sum_bytes(by_ratio[ratio]))
    trained = {size: n // k for size, n in there.items() if n % k == 0 and added.get(size, 0) >= n // k}
    is_whole = gcd(*trained.values()) == 1
    if k < _DOUBLE or not is_whole or _sum_bytes(by_ratio[k]) < (1 - 4 * _SLACK) * k * _sum_bytes(trained):
        return
    of = (
        f"the {format_items(sum(trained.values()), 'temporary').replace('temporarys', 'temporaries')} that a backward "
        f"pass adds to what is there ({format_bytes(_sum_bytes(trained))})"
    )
    scene.settle_ages(trained)
    shares = (
        (Category.WEIGHTS, 1, "the first"),
        (Category.GRADIENTS, 1, "the second"),
        (Category.OPTIMIZER_STATE, k - 2, "the rest"),
    )
    for category, n, which in shares:
        rows = _first_of_each(scene, _less(_times(trained, n), scene.lasting(category)))
        confidence = LIKELY if category is Category.WEIGHTS or k == _DOUBLE else MIXED
        yield from scene.tell(rows, category, confidence, f"{which} of {k} × the sizes of {of}, to the byte")


# Freed


def _freed_gradients(scene: _Scene, gradients: Sizes) -> Iterator[Inferred]:
    """What dies between passes before the first gradients are made, of their sizes: those of the pass before.

    A step that the recording begins in drops its temporaries before that.
    """
    runs, trace = scene.runs, scene.lifetimes.trace
    if (runs.phase == Phase.BACKWARD).sum() > 1:
        rows = scene.by_age[scene.is_open[scene.by_age]]
        made = scene.table.alloc_event[(scene.category == Category.GRADIENTS) & (scene.table.alloc_event != NONE_ID)]
        rows = rows[scene.died[rows] < made.max()]
    else:
        rows = scene.dropped_by_optimizer()
    phase = runs.phase_at(scene.died[rows])
    is_between = np.isin(phase, (Phase.OPTIMIZER, Phase.OUTSIDE))
    if not (trace.stack_id[scene.died[rows]] != NONE_ID).any():  # frees do not tell where they happen
        is_between |= phase == Phase.BACKWARD
    rows = rows[is_between]
    is_elsewhere = runs.phase_at(scene.died[rows]) != Phase.OPTIMIZER
    rows = rows[np.lexsort((-scene.died[rows], is_elsewhere))]
    is_last = _rank_in_size(scene.size[rows]) < _wanted(scene.size[rows], gradients)
    reason = "dropped between two passes, and no more of any size than the next backward pass makes gradients"
    yield from scene.tell(rows[is_last], Category.GRADIENTS, CERTAIN, reason)


def _begun_step(scene: _Scene) -> Iterator[Inferred]:
    """What else dies in the optimizer's step that the recording begins in, once its gradients are told."""
    runs = scene.runs
    working = np.flatnonzero(runs.phase > Phase.OUTSIDE)
    if len(working) and runs.phase[working[0]] == Phase.OPTIMIZER:
        rows = scene.by_age[scene.is_open[scene.by_age]]
        rows = rows[scene.died[rows] < runs.end[working[0]]]
        reason = "dropped within the optimizer's step that the recording begins in, before or beside its gradients"
        yield from scene.tell(rows, Category.TEMPORARIES, LIKELY, reason)


def _replaced(scene: _Scene, gradients: Sizes) -> Iterator[Inferred]:
    """What an optimizer's step drops after it has made another of the same size, which it keeps.

    That is its state; but where no weights are left to be those of the gradients, the last of each parameter's are
    weights, which follow from the rest: in what the events make, too.
    """
    runs, made = scene.runs, scene.made_by_optimizer()
    rows = scene.by_age[scene.is_open[scene.by_age]]
    rows = rows[np.isin(runs.phase_at(scene.died[rows]), Phase.OPTIMIZER) & (scene.died[rows] != NEVER)]
    rows = rows[np.isin(scene.size[rows], scene.size[made])]
    if not len(rows):
        return
    replaced_by = {old: new for old, new in follow_replacements(scene.lifetimes, rows, made).items() if new in made}
    rows = rows[np.isin(rows, list(replaced_by))]
    run_of = runs.run_at(scene.died[rows])
    rows = rows[runs.row_run[[replaced_by[row] for row in rows.tolist()]] == run_of]
    if not len(rows) or (scene.died[rows] > scene.last_made(runs.run_at(scene.died[rows]))).mean() > 2 * _SLACK:
        return  # gradients are dropped at the end of the step that has made a state
    dropped = count_sizes(scene.size[rows])
    there = _less(scene.lasting(Category.UNKNOWN, Category.WEIGHTS), count_sizes(scene.size[rows[scene.lasts[rows]]]))
    new_weights = _replaced_weights(scene, gradients, there, made)
    if not len(new_weights) and _MOST_COPIES * _sum_bytes({s: there.get(s, 0) for s in dropped}) < _sum_bytes(dropped):
        return  # weights may be among them
    is_weight = np.isin([replaced_by[row] for row in rows.tolist()], new_weights)
    reason = "dropped within an optimizer's step after it made another of the same size, which it keeps"
    yield from scene.tell(rows[~is_weight], Category.OPTIMIZER_STATE, LIKELY, reason)
    reason = "each step replaces as many of each size as there are gradients, and no other weights are there"
    yield from scene.tell(np.concatenate([rows[is_weight], new_weights]), Category.WEIGHTS, LIKELY, reason)


def _replaced_weights(scene: _Scene, gradients: Sizes, there: Sizes, made: Int64Array) -> Int64Array:
    """Of what optimizer steps make and keep, the weights: none where weights for the gradients are there already.

    Each step makes equally many for each parameter, the weights last; the recording may begin within one.
    """
    have = _sum_bytes({size: min(n, there.get(size, 0)) for size, n in gradients.items()})
    none = np.empty(0, np.int64)
    if not gradients or have > _SLACK * _sum_bytes(gradients):
        return none
    order = made[np.lexsort((scene.table.alloc_event[made], scene.size[made], scene.runs.row_run[made]))]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(scene.runs.row_run[order]) != 0) | (np.diff(scene.size[order]) != 0)
    first = np.flatnonzero(is_first)
    count = np.diff(np.append(first, len(order)))
    wanted = np.array([gradients.get(size, 0) for size in scene.size[order[first]].tolist()], np.int64)
    is_whole = (wanted > 0) & (count % np.maximum(wanted, 1) == 0)
    each = np.unique(count[is_whole] // wanted[is_whole])
    if len(each) != 1 or not _holds(count_sizes(scene.size[order]), _times(gradients, int(each[0]))):
        return none
    rank_from_end = np.repeat(first + count, count) - 1 - np.arange(len(order))
    return order[(rank_from_end % each[0] == 0) & np.repeat(wanted > 0, count)]


def _saved(scene: _Scene) -> Iterator[Inferred]:
    """What dies within the first backward pass of the events, and was there before them."""
    rows = scene.open_by_age(lasts=False)
    rows = rows[scene.runs.phase_at(scene.died[rows]) == Phase.BACKWARD]
    reason = "freed within a backward pass: autograd had saved it, but for temporaries of a pass that had begun"
    yield from scene.tell(rows, Category.ACTIVATIONS, MIXED, reason)


# Weights alone


@dataclass(frozen=True, slots=True)
class Layered:
    """What of a multiset is weights, by the layers of a model, and the evidence."""

    weights: Sizes
    reason: str = ""


def layered(sizes: Sizes) -> Layered:
    """Find the weights of a model in a multiset: sizes that each layer has equally often, and tables of their vectors.

    Two sizes or more that have most of the bytes come equally often in each layer, but for one or two that stand before
    or after the layers. Of several numbers of layers it is the one that leaves the fewest bytes over, and the largest of
    those. Copies of everything (weights with moments, say) cannot be told apart: nothing is said of them.
    """
    if any(_has_copies(sizes, factor) for factor in (_DOUBLE, 2 * _DOUBLE)):
        return Layered({})
    best, best_bytes = Layered({}), 0
    for n_layers in range(min(max(sizes.values(), default=0), _MOST_LAYERS), 1, -1):
        found = _by_layers(sizes, n_layers)
        n_bytes = _sum_bytes({size: n for size, n in found.weights.items() if size not in _SHARED_WORKSPACES})
        if n_bytes > best_bytes:
            best, best_bytes = found, n_bytes
    return best if best.weights and gcd(*best.weights.values()) == 1 else Layered({})


def _has_copies(sizes: Sizes, factor: int) -> bool:
    """Whether nearly all is tensors of which two or more copies of another precision are there as well."""
    pairs = {
        size
        for size, n in sizes.items()
        if max(n, sizes.get(size * factor, 0)) >= _DOUBLE * min(n, sizes.get(size * factor, 0)) > 0
    }
    paired = {size: n for size, n in sizes.items() if size in pairs or size % factor == 0 and size // factor in pairs}
    return _sum_bytes(paired) >= (1 - 2 * _SLACK) * _sum_bytes(sizes)


def _by_layers(sizes: Sizes, n_layers: int) -> Layered:
    """What of a multiset is weights if there are so many layers."""
    vectors = {s: n for s, n in sizes.items() if _LEAST_VECTOR_BYTES <= s <= _MOST_VECTOR_BYTES and n >= n_layers}
    width = max(vectors, key=lambda size: vectors[size], default=0)
    each = {size: n for size, n in sizes.items() if n % n_layers == 0}
    for size, n in sizes.items():
        if n > n_layers and size in _SHARED_WORKSPACES:
            each[size] = n - n % n_layers
        elif n > n_layers and n % n_layers <= _N_MOST_OUTSIDE and width and size % width == 0:
            each[size] = n
    if len(each) < _N_LEAST_SIZES or _sum_bytes(each) < _sum_bytes(sizes) / 2:
        return Layered({})
    tables = {
        size: n
        for size, n in sizes.items()
        if width
        and n < n_layers
        and size % width == 0
        and size // width >= _VECTORS_IN_A_TABLE
        and size not in _SHARED_WORKSPACES
    }
    reason = (
        f"{format_count(n_layers)} layers: {format_items(len(each), 'size')} that come equally often in each, and tables "
        "of their vectors"
    )
    return Layered(_plus(each, tables), reason)


def _weights_alone(scene: _Scene, search: StackSearch) -> Iterator[Inferred]:
    """No backward pass: what lasts and comes once in each layer is weights."""
    if scene.has_phase(Phase.OPTIMIZER):
        return
    if _has_cache(scene, search):
        scene.pass_over(_newest_alike(scene))
    rows = scene.open_by_age(lasts=True)
    found = layered(count_sizes(scene.size[rows]))
    yield from scene.tell(_first_of_each(scene, found.weights), Category.WEIGHTS, LIKELY, found.reason)


def _has_cache(scene: _Scene, search: StackSearch) -> bool:
    """Whether anything says that the program keeps keys and values."""
    if scene.has_phase(Phase.GENERATE) or (scene.category == Category.KV_CACHE).any():
        return True
    return any(search.stacks(frame).any() for rule in CACHE_RULES for frame in rule.frames if frame.file != MODULE_FILE)


def _newest_alike(scene: _Scene) -> Int64Array:
    """Blocks of one size that come last of all that lasts, in each pool: layers of a cache look like those of weights."""
    rows = scene.open_by_age(lasts=True)
    found = []
    for is_large in (False, True):
        here = rows[scene.table.is_large[rows] == is_large]
        if len(here):
            others = np.flatnonzero(scene.size[here] != scene.size[here[-1]])
            alike = here[others[-1] + 1 :] if len(others) else here
            found.append(alike if len(alike) >= _N_LEAST_CACHED else alike[:0])
    return np.concatenate([*found, rows[:0]])
