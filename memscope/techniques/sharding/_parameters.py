"""A program's parameters, with what a rank keeps of each, and of what an optimizer makes of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from memscope.techniques.program import BEFORE, Program
from memscope.techniques.technique import DoesNotApplyError, need_training
from memscope.trace.categories import Category
from memscope.trace.tables import Int64Array

_BUFFERS = frozenset(["running_mean", "running_var", "num_batches_tracked"])
_FLOATS = ("float", "bfloat", "complex")
_GRADIENT = ".grad"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a model.

    Attributes
    ----------
    is_trained
        Whether it gets gradients.
    """

    name: str
    row: int
    shape: tuple[int, ...]
    size_bytes: int
    is_trained: bool

    @property
    def n_elements(self) -> int:
        """Its elements."""
        return math.prod(self.shape)

    def shard_bytes(self, n_ranks: int) -> int:
        """What the first rank has of it: rows of its first dimension, as many as the fullest rank."""
        if not self.shape:
            return self.size_bytes
        first = self.shape[0]
        return self.size_bytes * -(-first // n_ranks) // max(first, 1)


def parameters_of(program: Program, technique: str) -> list[Parameter]:
    """The parameters, in the order in which they were made.

    Raises
    ------
    DoesNotApplyError
        If the program trains nothing, is a rank of several already, adds gradients up over several passes, or its
        parameters are not known by name and shape.
    """
    need_training(program, technique)
    if program.of_category(Category.COMMUNICATION).any():
        raise DoesNotApplyError(f"{technique} does not apply: this program is one rank of several already")
    if not all(each.has_step for each in program.passes):
        raise DoesNotApplyError(
            f"{technique} does not apply: it is known for programs in which a step of the optimizer follows each "
            "backward pass; in this one a backward pass has none of its own"
        )
    first, last = program.passes[0].forward, program.passes[-1].step_end
    kept = program.of_category(Category.WEIGHTS) & (program.let_go >= last) & (program.begin < first)
    trained = {
        program.owners[row].removesuffix(_GRADIENT)
        for row in np.flatnonzero(program.of_category(Category.GRADIENTS)).tolist()
    }
    found = []
    for row in np.flatnonzero(kept).tolist():
        tensor, name = program.tensors[row], program.owners[row]
        if tensor is None or not name:
            raise DoesNotApplyError(
                f"{technique} does not apply: this trace does not say of what shape the parameters are; a dry run of "
                "the program (memscope run --dry-run) sees them"
            )
        if tensor[0].startswith(_FLOATS) and name.rpartition(".")[2] not in _BUFFERS:
            size = int(program.size_bytes[row])
            found.append(Parameter(name, row, tensor[1], size, name in trained))
    if not any(each.is_trained for each in found):
        raise DoesNotApplyError(f"{technique} does not apply: no parameter with a gradient is known by name")
    return found


def gradient_rows(program: Program, name: str, begin: int, end: int) -> Int64Array:
    """The rows of a parameter's gradient that are asked for within a span: int64."""
    rows = np.flatnonzero(program.of_category(Category.GRADIENTS) & program.within(((begin, end),)))
    named = f"{name}{_GRADIENT}"
    return np.array([row for row in rows.tolist() if program.owners[row] == named], np.int64)


def built_in_shards(program: Program) -> Program:
    """A program whose model is given memory only once it is sharded: what building it made on the way is not made."""
    first = program.passes[0].forward
    passing = program.is_made & (program.begin != BEFORE) & (program.begin < first) & (program.let_go < first)
    return program.without(passing & program.of_category(Category.WEIGHTS, Category.TEMPORARIES, Category.UNKNOWN))


def with_states(program: Program, parameters: Sequence[Parameter], kept_of: Callable[[Parameter, int], int]) -> Program:
    """A program whose optimizer keeps a part of each parameter's states, and makes as much of its temporaries.

    ``kept_of`` says how many of some bytes of a parameter's are kept. A temporary is told by its size, in the order of
    the parameters.
    """
    by_name = {each.name: each for each in parameters}
    sizes = program.size_bytes.copy()
    changed = np.zeros(len(program), np.bool_)
    by_elements: dict[int, list[Parameter]] = defaultdict(list)
    for each in parameters:
        if each.is_trained:
            by_elements[each.n_elements].append(each)
    itemsize = max((each.size_bytes // max(each.n_elements, 1) for each in parameters), default=1)
    for row in np.flatnonzero(program.of_category(Category.OPTIMIZER_STATE)).tolist():
        of = by_name.get(program.owners[row].rpartition(" of ")[2])
        tensor = program.tensors[row]
        if of is not None and tensor is not None and math.prod(tensor[1]) == of.n_elements:
            sizes[row], changed[row] = kept_of(of, int(sizes[row])), True
        elif of is not None and kept_of(of, 1 << 40) == 0:  # a counter of what another rank steps
            sizes[row], changed[row] = 0, True
    spans = tuple((each.step, each.step_end) for each in program.passes if each.has_step)
    made = program.within(spans) & program.of_category(Category.TEMPORARIES, Category.UNKNOWN)
    seen: dict[int, int] = defaultdict(int)
    for row in np.flatnonzero(made)[np.argsort(program.begin[made], kind="stable")].tolist():
        same = by_elements.get(int(sizes[row]) // itemsize)
        if same and int(sizes[row]) % itemsize == 0:
            of = same[seen[int(sizes[row])] % len(same)]
            seen[int(sizes[row])] += 1
            sizes[row], changed[row] = kept_of(of, int(sizes[row])), True
    return program.with_sizes(changed, sizes)


def in_shards(program: Program, parameters: Sequence[Parameter], n_ranks: int) -> Program:
    """A program that keeps the first rank's shard of each parameter, and of its states."""
    sizes = program.size_bytes.copy()
    changed = np.zeros(len(program), np.bool_)
    for each in parameters:
        sizes[each.row], changed[each.row] = each.shard_bytes(n_ranks), True

    def kept_of(parameter: Parameter, n_bytes: int) -> int:
        return replace(parameter, size_bytes=n_bytes).shard_bytes(n_ranks)

    return with_states(built_in_shards(program.with_sizes(changed, sizes)), parameters, kept_of)
