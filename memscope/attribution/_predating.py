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
from memscope.lifetimes.ages import by_age, lasting_rows
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int8Array, Int64Array
from memscope.units import format_bytes, format_count, format_items

Sizes = dict[int, int]
"""How many allocations there are of each size in bytes: a multiset."""

CERTAIN, LIKELY = 0.99, 0.95
"""Confidence where every count agrees, and where all but a few do; ``benchmarks/attribution.py`` measures both."""

_MOST_COPIES = 3
_SLACK = 0.05
_DOUBLE = 2
_CUBLAS_WORKSPACE_BYTES = 8_519_680
_N_LEAST_LAYERS = 2
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
    found = [*_workspaces(scene), *_replaced(scene)]
    if gradients:
        found += _freed_gradients(scene, gradients)
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
        self.by_age = by_age(lifetimes)

    def has_phase(self, phase: Phase) -> bool:
        """Whether the device ever is in a phase."""
        return bool((self.runs.phase == phase).any())

    def open_by_age(self, lasts: bool) -> Int64Array:
        """Rows yet to be told, of those that last or of those that do not, the oldest first: int64."""
        rows = self.by_age
        return rows[self.is_open[rows] & (self.lasts[rows] == lasts)]

    def lasting(self, *categories: Category) -> Sizes:
        """Sizes of what predates the events and lasts, of some categories."""
        rows = self.by_age
        counts = self.is_open[rows] if Category.UNKNOWN in categories else np.zeros(len(rows), np.bool_)
        known = tuple(category for category in categories if category is not Category.UNKNOWN)
        counts |= np.isin(self.category[rows], known)
        return count_sizes(self.size[rows[self.lasts[rows] & counts]])

    def tell(self, rows: Int64Array, category: Category, confidence: float, reason: str) -> Iterator[Inferred]:
        """Take rows out of what is open."""
        if len(rows):
            self.is_open[rows] = False
            yield Inferred(rows, Inference(category, confidence, reason))

    def gradients(self) -> Sizes:
        """Sizes of the gradients that the events make, where most bytes of them are alive at the end of a pass."""
        made = np.flatnonzero((self.category == Category.GRADIENTS) & (self.table.alloc_event != NONE_ID))
        ends = self.runs.end[self.runs.phase == Phase.BACKWARD]
        if not len(made) or not len(ends):
            return {}
        born = _bytes_before(self.table.alloc_event[made], self.size[made], ends)
        end = ends[int(np.argmax(born - _bytes_before(self.died[made], self.size[made], ends)))]
        alive = (self.table.alloc_event[made] < end) & (self.died[made] >= end)
        return count_sizes(self.size[made[alive]])

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


def _first_of_each(scene: _Scene, wanted: Mapping[int, int]) -> Int64Array:
    """The oldest lasting open rows, so many of each size: int64."""
    rows = scene.open_by_age(lasts=True)
    order = rows[np.argsort(scene.size[rows], kind="stable")]
    size = scene.size[order]
    rank = np.arange(len(order)) - np.searchsorted(size, size)
    n_wanted = np.array([wanted.get(s, 0) for s in size.tolist()], np.int64)
    return order[rank < n_wanted]


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
    there = scene.lasting(Category.UNKNOWN, Category.WEIGHTS, Category.OPTIMIZER_STATE)
    trained = {size: n for size, n in gradients.items() if there.get(size, 0) >= n}
    if _sum_bytes(trained) < (1 - _SLACK) * _sum_bytes(gradients):
        return
    n_same, n_double = _copies(there, trained)
    states = _plus(_times(trained, n_same), _times(trained, n_double, _DOUBLE))
    extra = _less(there, trained, states)
    concerned = {*trained, *states}
    beyond = sum(size * n for size, n in extra.items() if size in concerned)
    is_exact = beyond <= _SLACK * _sum_bytes(trained)
    frozen = layered(extra if not is_exact else {s: n for s, n in extra.items() if s not in concerned})
    if not is_exact and not frozen.weights:
        n_same = n_double = 0
    confidence = CERTAIN if is_exact else LIKELY
    unsure = 1 if n_same and _refers_to_another(scene, search, n_same) else 0
    of = f"the {format_items(sum(trained.values()), 'gradient')} of a backward pass ({format_bytes(_sum_bytes(trained))})"
    weights = _plus(trained, frozen.weights)
    known = scene.lasting(Category.WEIGHTS)
    rows = _first_of_each(scene, _less(weights, known))
    is_frozen = np.array([size not in trained for size in scene.size[rows].tolist()], np.bool_)
    yield from scene.tell(rows[~is_frozen], Category.WEIGHTS, confidence, f"as many of each size as {of}, to the byte")
    yield from scene.tell(rows[is_frozen], Category.WEIGHTS, LIKELY, frozen.reason)
    skipped = _first_of_each(scene, _times(trained, unsure))
    scene.is_open[skipped] = False
    known = scene.lasting(Category.OPTIMIZER_STATE)
    rows = _first_of_each(scene, _less(_plus(_times(trained, n_same - unsure), _times(trained, n_double, _DOUBLE)), known))
    yield from scene.tell(rows, Category.OPTIMIZER_STATE, confidence, _state_reason(n_same, n_double, of))


def _state_reason(n_same: int, n_double: int, of: str) -> str:
    counts = [f"{n} × {what}" for n, what in ((n_same, "the sizes"), (n_double, "twice the sizes")) if n]
    return f"beside the weights {' and '.join(counts)} of {of}, to the byte"


def _copies(there: Sizes, trained: Sizes) -> tuple[int, int]:
    """How many copies of the trained sizes, and of twice them, are there beside the weights: the most that fit."""
    left = _less(there, trained)
    choices = [
        (n_same, n_double)
        for n_same, n_double in product(range(_MOST_COPIES + 1), repeat=2)
        if _holds(left, _plus(_times(trained, n_same), _times(trained, n_double, _DOUBLE)))
    ]
    return max(choices, key=lambda choice: choice[0] + _DOUBLE * choice[1])


def _refers_to_another(scene: _Scene, search: StackSearch, n_same: int) -> bool:
    """Whether one copy may be another model's weights: modules are called whose backward pass never comes.

    With two copies beside the weights and any optimizer but SGD those are its own.
    """
    if n_same == _DOUBLE and not search.stacks(FramePattern(r"torch/optim/sgd\.py$")).any():
        return False
    return _calls_without_backward(scene, search)


def _calls_without_backward(scene: _Scene, search: StackSearch) -> bool:
    """Whether a place of the program calls modules and autograd saves nothing of what they make."""
    runs, table = scene.runs, scene.table
    rows = np.flatnonzero((runs.row_phase == Phase.FORWARD) & (table.stack_id != NONE_ID) & (table.alloc_event != NONE_ID))
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
    shares = ((Category.WEIGHTS, 1, "the first"), (Category.GRADIENTS, 1, "the second"), (Category.OPTIMIZER_STATE, k - 2, "the rest"))
    for category, n, which in shares:
        rows = _first_of_each(scene, _less(_times(trained, n), scene.lasting(category)))
        yield from scene.tell(rows, category, LIKELY, f"{which} of {k} × the sizes of {of}, to the byte")


# Freed


def _between_passes(scene: _Scene, rows: Int64Array) -> BoolArray:
    """Which rows die where a program drops gradients: outside of passes, or after the last allocation of one."""
    runs, died = scene.runs, scene.died[rows]
    within = slice(scene.lifetimes.first_event, scene.lifetimes.end_event)
    allocs = np.flatnonzero(scene.lifetimes.trace.action[within] == Action.ALLOC) + scene.lifetimes.first_event
    upcoming = np.searchsorted(allocs, died)
    found = np.isin(runs.phase_at(died), (Phase.OPTIMIZER, Phase.OUTSIDE))
    has_next = upcoming < len(allocs)
    found[has_next] |= runs.run_at(allocs[upcoming[has_next]]) != runs.run_at(died[has_next])
    return found


def _freed_gradients(scene: _Scene, gradients: Sizes) -> Iterator[Inferred]:
    """What dies between passes before the first gradients are made, of their sizes: those of the pass before."""
    rows = scene.open_by_age(lasts=False)
    rows = rows[_between_passes(scene, rows)]
    made = scene.table.alloc_event[(scene.category == Category.GRADIENTS) & (scene.table.alloc_event != NONE_ID)]
    rows = rows[scene.died[rows] < made.max()]
    n = count_sizes(scene.size[rows])
    fits = np.array([n[size] <= gradients.get(size, 0) for size in scene.size[rows].tolist()], np.bool_)
    reason = "dropped between two passes, and no more of any size than the next backward pass makes gradients"
    yield from scene.tell(rows[fits], Category.GRADIENTS, CERTAIN, reason)


def _replaced(scene: _Scene) -> Iterator[Inferred]:
    """What an optimizer's step drops just after it has made another of the same size, and keeps that."""
    runs, table = scene.runs, scene.table
    made = np.flatnonzero((runs.row_phase == Phase.OPTIMIZER) & (runs.row_run != NONE_ID))
    made = made[scene.died[made] >= runs.end[runs.row_run[made]]]
    rows = scene.by_age[scene.is_open[scene.by_age]]
    rows = rows[(scene.died[rows] != NEVER) & (runs.phase_at(scene.died[rows]) == Phase.OPTIMIZER)]
    rows = rows[np.argsort(scene.died[rows], kind="stable")]
    born: dict[tuple[int, int], list[int]] = {}
    for row in made.tolist():
        born.setdefault((int(scene.size[row]), int(runs.row_run[row])), []).append(int(table.alloc_event[row]))
    matched: dict[tuple[int, int], int] = {}
    found = []
    for row, run in zip(rows.tolist(), runs.run_at(scene.died[rows]).tolist(), strict=True):
        key = int(scene.size[row]), run
        n = matched.get(key, 0)
        births = born.get(key, [])
        if n < len(births) and births[n] < scene.died[row]:
            matched[key] = n + 1
            found.append(row)
    reason = "dropped within an optimizer's step just after it made another of the same size, which it keeps"
    yield from scene.tell(np.array(found, np.int64), Category.OPTIMIZER_STATE, LIKELY, reason)


def _saved(scene: _Scene) -> Iterator[Inferred]:
    """What dies within the first backward pass of the events, and was there before them."""
    rows = scene.open_by_age(lasts=False)
    rows = rows[scene.runs.phase_at(scene.died[rows]) == Phase.BACKWARD]
    yield from scene.tell(rows, Category.ACTIVATIONS, 0.9, "freed within a backward pass: autograd had saved it")


# Weights alone


@dataclass(frozen=True, slots=True)
class Layered:
    """What of a multiset is weights, by the layers of a model, and the evidence."""

    weights: Sizes
    reason: str = ""


def layered(sizes: Sizes) -> Layered:
    """Find the weights of a model in a multiset: sizes that each layer has equally often, and tables of their vectors.

    The layers are the largest number that divides the counts of two sizes or more which have most of the bytes. Equal
    copies of everything (weights with moments, say) cannot be told apart, and nothing is said of them.
    """
    total = _sum_bytes(sizes)
    for n_layers in sorted({n for n in sizes.values() if n >= _N_LEAST_LAYERS}, reverse=True):
        even = {size: n for size, n in sizes.items() if n % n_layers == 0}
        if len(even) < 2 or _sum_bytes(even) < total / 2:
            continue
        norms = {size: n for size, n in sizes.items() if n > n_layers and 0 < n % n_layers <= 2}
        vector = min((size for size in norms if size >= 256), default=0)
        tables = {
            size: n
            for size, n in sizes.items()
            if vector and n < n_layers and size % vector == 0 and size // vector >= _VECTORS_IN_A_TABLE
        }
        weights = _plus(even, norms, tables)
        if gcd(*weights.values()) != 1:
            return Layered({})
        reason = (
            f"{format_count(n_layers)} layers: {format_items(len({**even, **norms}), 'size')} that come equally often in "
            "each, and tables of their vectors"
        )
        return Layered(weights, reason)
    return Layered({})


def _weights_alone(scene: _Scene, search: StackSearch) -> Iterator[Inferred]:
    """Passes without any backward: what lasts and comes once in each layer is weights."""
    if not scene.has_phase(Phase.FORWARD) and not scene.has_phase(Phase.GENERATE):
        return
    rows = scene.open_by_age(lasts=True)
    found = layered(count_sizes(scene.size[rows]))
    yield from scene.tell(_first_of_each(scene, found.weights), Category.WEIGHTS, LIKELY, found.reason)
