"""What was there before the recording began: told from sizes, counts and lives, with the confidence that they allow.

Such memory has no stack. What is recorded of the work on it tells it all the same: a backward pass that leaves one
gradient for each parameter says how many blocks of each size are weights, and the equal blocks beside them are what the
optimizer keeps. Nothing is told unless counts agree to the byte; what is told says by which. Which of several equal
blocks are the weights is told from their ages: weights are made first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import numpy as np

from memscope.attribution.phases.phases import Phase, PhaseRuns, calls_without_backward
from memscope.attribution.rule_table import CACHE_RULES, MODULE_FILE
from memscope.lifetimes.ages import by_age, follow_replacements, lasting_rows
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.multisets import (
    DOUBLE,
    MOST_COPIES,
    N_MOMENTS,
    SLACK,
    Sizes,
    count_sizes,
    find_beside,
    layered,
    sum_bytes,
    times,
)
from memscope.lifetimes.tables import NEVER
from memscope.trace.categories import Category
from memscope.trace.frames import FramePattern, StackSearch
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int8Array, Int64Array
from memscope.units import format_bytes, format_count, format_items

CERTAIN, LIKELY, MIXED, GUESSED = 0.99, 0.95, 0.8, 0.5
"""Confidence where every count agrees; where it takes an assumption; where the sums are as sure, but which of equal
blocks are which is not (``benchmarks/inference.py`` measures how often each is right); and where a name is all."""

_CUBLAS_WORKSPACE_BYTES = 8_519_680
_N_LEAST_CACHED = 4
_N_LEAST_KEPT = 4


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


def infer_averages(
    lifetimes: DeviceLifetimes, runs: PhaseRuns, category: Int8Array, is_owned: BoolArray, search: StackSearch
) -> list[Inferred]:
    """Tell copies of weights that no pass uses: averages, which are kept with the optimizer's state.

    ``deepcopy`` made them outside of passes, or a constructor while owners were recorded, and they have none; there are
    as many of each size as gradients. A model that is called is not such a copy, and a checkpoint that stays not told.

    Parameters
    ----------
    lifetimes, runs, category, search
        As in :func:`infer_predating`.
    is_owned
        bool (rows,): whose owner is known.
    """
    weighs = np.isin(category, (Category.WEIGHTS, Category.UNKNOWN)) & (lifetimes.allocations.alloc_event != NONE_ID)
    scene = _Scene(lifetimes, runs, category, weighs)
    gradients = scene.gradients()
    weights = scene.lasting(Category.WEIGHTS)
    if not gradients or not gradients <= weights or (runs.phase == Phase.BACKWARD).sum() < 2:
        return []
    is_copied = np.append(search.stacks(FramePattern(r"(^|/)copy\.py$", "^_?deepcopy")), False)
    is_copy = is_copied[lifetimes.allocations.stack_id]
    if is_owned[category == Category.WEIGHTS].any():
        is_copy |= category == Category.WEIGHTS
    rows = np.flatnonzero(weighs & is_copy & ~is_owned & scene.lasts & (runs.row_phase <= Phase.LOAD))[::-1]
    rows = rows[np.isin(scene.size[rows], list(gradients))]
    others = count_sizes(scene.size[rows])
    n_copies = next((n for n in range(MOST_COPIES, 0, -1) if times(gradients, n) <= others), 0)
    copies = times(gradients, n_copies)
    is_exact = n_copies > 0 and sum_bytes(others - copies) <= SLACK * sum_bytes(copies)
    if not is_exact or calls_without_backward(lifetimes, runs, search):
        return []
    rows = rows[_rank_in_size(scene.size[rows]) < _wanted(scene.size[rows], copies)]
    of = f"the {format_items(gradients.total(), 'gradient')} of a backward pass ({format_bytes(sum_bytes(gradients))})"
    reason = f"{n_copies} × the sizes of {of} beside the weights, and no pass uses them"
    return list(scene.tell(rows, Category.OPTIMIZER_STATE, MIXED, reason))


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
        self.has_all_gradients = True

    def settle_ages(self, trained: Sizes) -> None:
        """Choose among several orders of ages.

        The one by which just the weights came before cuBLAS' workspace, which the first pass makes; without any, the
        one by which the oldest blocks do not come in pairs, as an optimizer makes its moments.
        """
        if len(self._orders) == 1:
            return
        is_trained = np.isin(self.size, list(trained)) & self.lasts
        has_workspace = bool(np.any(self.size[self.by_age] == _CUBLAS_WORKSPACE_BYTES))

        def misfit(order: Int64Array) -> int:
            if has_workspace:
                before = order[: np.flatnonzero(self.size[order] == _CUBLAS_WORKSPACE_BYTES)[0]]
                return abs(int(self.size[before[is_trained[before]]].sum()) - sum_bytes(trained))
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
        found: Int64Array = rows[self.is_open[rows] & (self.lasts[rows] == lasts)]
        return found

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

    def pass_over(self, rows: Int64Array) -> None:
        """Leave rows untold: what they are is not clear, and others come after them."""
        self.is_open[rows] = False

    def gradients(self) -> Sizes:
        """Sizes of the gradients that the events make, where most bytes of them are alive at the end of a pass."""
        made = np.flatnonzero((self.category == Category.GRADIENTS) & (self.table.alloc_event != NONE_ID))
        ends = self.runs.end[self.runs.phase == Phase.BACKWARD]
        if not len(made) or not len(ends):
            return Counter()
        born = _bytes_before(self.table.alloc_event[made], self.size[made], ends)
        end = ends[int(np.argmax(born - _bytes_before(self.died[made], self.size[made], ends)))]
        alive = (self.table.alloc_event[made] < end) & (self.died[made] >= end)
        begun = self.runs.phase[0] == Phase.BACKWARD
        self.has_all_gradients = not begun or not (self.runs.row_run[made[alive]] == 0).any()
        return count_sizes(self.size[made[alive]]) + self._made_before()

    def _made_before(self) -> Sizes:
        """Sizes of the gradients that the only pass had made when the recording began within it.

        The optimizer drops them with the rest.
        """
        if not self.begins_in_only_pass:
            return Counter()
        dropped = count_sizes(self.size[self.dropped_by_optimizer()])
        replaces = np.isin(self.size[self.made_by_optimizer()], list(dropped)).any()
        return Counter() if replaces else dropped

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

    def kept_by_forward(self) -> Int64Array:
        """Sizes of which a forward pass leaves several behind, as one does that records a graph: int64."""
        runs = self.runs
        rows = np.flatnonzero((runs.row_phase == Phase.FORWARD) & (runs.row_run != NONE_ID))
        rows = rows[self.died[rows] >= runs.end[runs.row_run[rows]]]
        pairs, counts = np.unique(np.stack([self.size[rows], runs.row_run[rows]]), axis=1, return_counts=True)
        return np.unique(pairs[0][counts >= _N_LEAST_KEPT])

    def dropped_by_optimizer(self) -> Int64Array:
        """Open rows whose free says by its stack that it is within the optimizer's step: int64."""
        rows = self.by_age[self.is_open[self.by_age]]
        rows = rows[self.died[rows] != NEVER]
        rows = rows[self.lifetimes.trace.stack_id[self.died[rows]] != NONE_ID]
        dropped: Int64Array = rows[self.runs.phase_at(self.died[rows]) == Phase.OPTIMIZER]
        return dropped

    def passing(self, phase: Phase) -> Sizes:
        """Sizes of what is made and dropped within a run of a phase: the run that has most of it."""
        runs = self.runs
        rows = np.flatnonzero((runs.row_run != NONE_ID) & (runs.row_phase == phase))
        rows = rows[self.died[rows] < runs.end[runs.row_run[rows]]]
        if not len(rows):
            return Counter()
        fullest = int(np.argmax(np.bincount(runs.row_run[rows])))
        return count_sizes(self.size[rows[runs.row_run[rows] == fullest]])


def _bytes_before(event: Int64Array, size_bytes: Int64Array, ends: Int64Array) -> Int64Array:
    """Bytes of what happens before each of some events: int64 (ends,)."""
    order = np.argsort(event, kind="stable")
    total = np.concatenate([[0], np.cumsum(size_bytes[order])])
    found: Int64Array = total[np.searchsorted(event[order], ends)]
    return found


def _rank_in_size(size_bytes: Int64Array) -> Int64Array:
    """How many of the same size come before each: int64."""
    order = np.argsort(size_bytes, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(size_bytes[order], size_bytes[order])
    return rank


def _wanted(size_bytes: Int64Array, sizes: Sizes) -> Int64Array:
    """How many of each one's size a multiset has: int64."""
    distinct, position = np.unique(size_bytes, return_inverse=True)
    found: Int64Array = np.array([sizes[size] for size in distinct.tolist()], np.int64)[position.reshape(-1)]
    return found


def _first_of_each(scene: _Scene, wanted: Sizes) -> Int64Array:
    """The oldest lasting open rows, so many of each size: int64."""
    rows = scene.open_by_age(lasts=True)
    size = scene.size[rows]
    return rows[_rank_in_size(size) < _wanted(size, wanted)]


def _workspaces(scene: _Scene) -> Iterator[Inferred]:
    rows = scene.open_by_age(lasts=True)
    rows = rows[scene.size[rows] == _CUBLAS_WORKSPACE_BYTES]
    yield from scene.tell(rows, Category.WORKSPACE, CERTAIN, "cuBLAS asks for exactly 8,519,680 bytes and keeps them")


def _beside_gradients(scene: _Scene, gradients: Sizes, search: StackSearch) -> Iterator[Inferred]:
    """One weight for each gradient; what else there is of these sizes, or of twice them, is the optimizer's."""
    yield from _freed_gradients(scene, gradients)
    there = scene.lasting(Category.UNKNOWN, Category.WEIGHTS, Category.OPTIMIZER_STATE)
    trained = Counter({size: n for size, n in gradients.items() if there[size] >= n})
    if sum_bytes(trained) < (1 - SLACK) * sum_bytes(gradients):
        return
    scene.settle_ages(trained)
    has_adam, has_sgd = (_steps_with(search, name) for name in (r"\w*adam\w*", "sgd"))
    beside = find_beside(there, trained, has_adam=has_adam, has_sgd=has_sgd, is_whole=scene.has_all_gradients)
    if beside.n_double:
        yield from _freed_gradients(scene, times(gradients, 1, DOUBLE))
    yield from _begun_step(scene)
    of = f"the {format_items(trained.total(), 'gradient')} of a backward pass ({format_bytes(sum_bytes(trained))})"
    known, confidence = scene.lasting(Category.WEIGHTS), CERTAIN if beside.is_exact else LIKELY
    rows = _first_of_each(scene, trained - known)
    yield from scene.tell(rows, Category.WEIGHTS, confidence, f"as many of each size as {of}, to the byte")
    rows = _first_of_each(scene, beside.frozen.weights - (known - trained))
    yield from scene.tell(rows, Category.WEIGHTS, LIKELY, beside.frozen.reason)
    n_unsure = 1 if beside.n_same and _may_be_another(scene, search, beside.n_same) else 0
    scene.pass_over(_first_of_each(scene, times(trained, n_unsure)))
    rows = _first_of_each(scene, beside.states(trained, n_unsure) - scene.lasting(Category.OPTIMIZER_STATE))
    is_mixed = np.isin(scene.size[rows], list(beside.with_others))
    # Adam has two moments; without its step in sight a copy may as well be a model that is only called, or an average.
    sure = confidence if has_adam else MIXED
    yield from scene.tell(rows[~is_mixed], Category.OPTIMIZER_STATE, sure, beside.reason(of))
    yield from scene.tell(rows[is_mixed], Category.OPTIMIZER_STATE, MIXED, beside.reason(of))


def _steps_with(search: StackSearch, name: str) -> bool:
    return bool(search.stacks(FramePattern(rf"torch/optim/{name}\.py$")).any())


def _may_be_another(scene: _Scene, search: StackSearch, n_same: int) -> bool:
    """Whether one copy may be another model's weights, or an average of them.

    Two copies beside the weights are two moments, but for SGD. One or three may be a model that is only called: it is
    seen in a whole step where modules are called whose backward pass never comes. Three are moments of few optimizers.
    """
    if n_same == N_MOMENTS:
        return _steps_with(search, "sgd") and calls_without_backward(scene.lifetimes, scene.runs, search)
    n_passes = int((scene.runs.phase == Phase.BACKWARD).sum())
    return n_same > N_MOMENTS or n_passes < 2 or calls_without_backward(scene.lifetimes, scene.runs, search)


def _accumulating(scene: _Scene) -> Iterator[Inferred]:
    """Backward passes that leave nothing add to gradients that are there: each makes one temporary for each of them."""
    there = scene.lasting(Category.UNKNOWN, Category.WEIGHTS, Category.GRADIENTS)
    added = scene.passing(Phase.BACKWARD)
    by_ratio: dict[int, Sizes] = {}
    for size, n in there.items():
        if added[size] and n % added[size] == 0:
            by_ratio.setdefault(n // added[size], Counter())[size] = n
    if not by_ratio:
        return
    k = max(by_ratio, key=lambda ratio: sum_bytes(by_ratio[ratio]))
    trained = Counter({size: n // k for size, n in there.items() if n % k == 0 and added[size] >= n // k})
    is_told = sum_bytes(by_ratio[k]) >= (1 - 4 * SLACK) * k * sum_bytes(trained)
    if k < DOUBLE or gcd(*trained.values()) != 1 or not is_told:
        return
    scene.settle_ages(trained)
    of = f"{k} × the {format_count(trained.total())} sizes that a backward pass makes and adds to what is there"
    shares = (
        (Category.WEIGHTS, 1, "the oldest"),
        (Category.GRADIENTS, 1, "the next"),
        (Category.OPTIMIZER_STATE, k - DOUBLE, "the newest"),
    )
    for category, n, which in shares:
        rows = _first_of_each(scene, times(trained, n) - scene.lasting(category))
        confidence = LIKELY if category is Category.WEIGHTS or k == DOUBLE else MIXED
        reason = f"{which} of {of} ({format_bytes(sum_bytes(trained))}), to the byte"
        yield from scene.tell(rows, category, confidence, reason)


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
    rows = rows[(runs.phase_at(scene.died[rows]) == Phase.OPTIMIZER) & (scene.died[rows] != NEVER)]
    rows = rows[np.isin(scene.size[rows], scene.size[made])]
    if not len(rows):
        return
    replaced_by = follow_replacements(scene.lifetimes, rows, made)
    rows = rows[np.isin(rows, list(replaced_by))]
    run = runs.run_at(scene.died[rows])
    is_same_run = runs.row_run[[replaced_by[row] for row in rows.tolist()]] == run
    rows, run = rows[is_same_run], run[is_same_run]
    last = runs.last_made(scene.table.alloc_event)
    if not len(rows) or (scene.died[rows] > last[run]).mean() > 2 * SLACK:
        return  # gradients are dropped at the end of the step that has made a state
    dropped = count_sizes(scene.size[rows])
    there = scene.lasting(Category.UNKNOWN, Category.WEIGHTS) - count_sizes(scene.size[rows[scene.lasts[rows]]])
    new_weights = _replaced_weights(scene, gradients, there, made)
    if not len(new_weights) and MOST_COPIES * sum_bytes({s: there[s] for s in dropped}) < sum_bytes(dropped):
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
    have = sum_bytes(gradients & there)
    none = np.empty(0, np.int64)
    if not gradients or have > SLACK * sum_bytes(gradients):
        return none
    order = made[np.lexsort((scene.table.alloc_event[made], scene.size[made], scene.runs.row_run[made]))]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(scene.runs.row_run[order]) != 0) | (np.diff(scene.size[order]) != 0)
    first = np.flatnonzero(is_first)
    count = np.diff(np.append(first, len(order)))
    wanted = _wanted(scene.size[order[first]], gradients)
    is_whole = (wanted > 0) & (count % np.maximum(wanted, 1) == 0)
    each = np.unique(count[is_whole] // wanted[is_whole])
    if len(each) != 1 or not times(gradients, int(each[0])) <= count_sizes(scene.size[order]):
        return none
    rank_from_end = np.repeat(first + count, count) - 1 - np.arange(len(order))
    found: Int64Array = order[(rank_from_end % each[0] == 0) & np.repeat(wanted > 0, count)]
    return found


def _saved(scene: _Scene) -> Iterator[Inferred]:
    """What dies within the first backward pass of the events, and was there before them."""
    rows = scene.open_by_age(lasts=False)
    rows = rows[scene.runs.phase_at(scene.died[rows]) == Phase.BACKWARD]
    reason = "freed within a backward pass: autograd had saved it, but for temporaries of a pass that had begun"
    yield from scene.tell(rows, Category.ACTIVATIONS, MIXED, reason)


def _weights_alone(scene: _Scene, search: StackSearch) -> Iterator[Inferred]:
    """No backward pass: what lasts and comes once in each layer is weights."""
    if scene.has_phase(Phase.OPTIMIZER):
        return
    if _has_cache(scene, search):
        scene.pass_over(_newest_alike(scene))
    rows, kept = scene.open_by_age(lasts=True), scene.kept_by_forward()
    found = layered(count_sizes(scene.size[rows[~np.isin(scene.size[rows], kept)]]))
    # What a graph keeps comes once in each layer, too; and where nothing is seen at work, it may be a training.
    is_run = scene.has_phase(Phase.FORWARD) or scene.has_phase(Phase.GENERATE)
    is_run |= bool((scene.category == Category.KV_CACHE).any())
    confidence = LIKELY if is_run and not len(kept) else MIXED
    yield from scene.tell(_first_of_each(scene, found.weights), Category.WEIGHTS, confidence, found.reason)


def _has_cache(scene: _Scene, search: StackSearch) -> bool:
    """Whether anything says that the program keeps keys and values."""
    if scene.has_phase(Phase.GENERATE) or (scene.category == Category.KV_CACHE).any():
        return True
    return any(search.stacks(frame).any() for rule in CACHE_RULES for frame in rule.frames if frame.file != MODULE_FILE)


def _newest_alike(scene: _Scene) -> Int64Array:
    """Blocks of one size that come last of all that lasts, in each pool: a cache has layers, as weights have."""
    rows = scene.open_by_age(lasts=True)
    found = []
    for is_large in (False, True):
        here = rows[scene.table.is_large[rows] == is_large]
        if len(here):
            others = np.flatnonzero(scene.size[here] != scene.size[here[-1]])
            alike = here[others[-1] + 1 :] if len(others) else here
            found.append(alike if len(alike) >= _N_LEAST_CACHED else alike[:0])
    return np.concatenate([*found, rows[:0]])
