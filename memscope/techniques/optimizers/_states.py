"""What an optimizer keeps and takes: its state by parameter, and the temporaries of its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.tables import NEVER
from memscope.techniques.program import BEFORE, Program
from memscope.techniques.technique import DoesNotApplyError
from memscope.trace.categories import Category
from memscope.trace.tables import BoolArray

OF_ADAM = {"exp_avg", "exp_avg_sq"}
"""What the states of Adam and AdamW are called."""
ON_DEVICE_STEP_BYTES = 4
"""A step counter that lies on the device: a float32."""


@dataclass(frozen=True, slots=True)
class State:
    """What is kept of one parameter.

    Attributes
    ----------
    parameter
        Its name.
    rows
        The row of each state, by the state's name, in the order in which they were made.
    shape, itemsize
        Of the parameter's first state that has its shape.
    """

    parameter: str
    rows: dict[str, int]
    shape: tuple[int, ...]
    itemsize: int

    @property
    def n_elements(self) -> int:
        """Elements of the parameter."""
        return math.prod(self.shape)


def states_of(program: Program, technique: str) -> list[State]:
    """The states of every parameter, in the order of the optimizer; empty where there are none.

    Raises
    ------
    DoesNotApplyError
        If there are states, but not whose they are or of what shape.
    """
    found: dict[str, dict[str, int]] = {}
    for row in np.flatnonzero(program.of_category(Category.OPTIMIZER_STATE)).tolist():
        name, of, parameter = program.owners[row].rpartition(" of ")  # a state may have a scale of its own
        if not of or program.tensors[row] is None:
            raise DoesNotApplyError(
                f"{technique} does not apply: this trace does not say of which parameter, and of what shape, the "
                "optimizer's state is; a dry run of the program (memscope run --dry-run) sees both"
            )
        found.setdefault(parameter, {})[name] = row
    return [_state(program, parameter, rows) for parameter, rows in found.items()]


def _state(program: Program, parameter: str, rows: dict[str, int]) -> State:
    largest = max(rows.values(), key=lambda row: int(program.size_bytes[row]))
    tensor = program.tensors[largest]
    shape = () if tensor is None else tensor[1]
    return State(parameter, rows, shape, int(program.size_bytes[largest]) // max(math.prod(shape), 1))


def step_spans(program: Program) -> tuple[tuple[int, int], ...]:
    """When the optimizer's steps begin and end."""
    return tuple((each.step, each.step_end) for each in program.passes if each.has_step)


def need_steps(program: Program, technique: str) -> None:
    """Refuse a program in which no optimizer makes a step.

    Raises
    ------
    DoesNotApplyError
        If none does.
    """
    if not step_spans(program):
        raise DoesNotApplyError(
            f"{technique} does not apply: no optimizer makes a step in this trace; record a whole training step"
        )


def step_temporaries(program: Program) -> BoolArray:
    """What an optimizer's step makes and lets go of: bool (rows,)."""
    found = np.zeros(len(program), np.bool_)
    for begin, end in step_spans(program):
        found |= (program.begin >= begin) & (program.begin < end) & (program.let_go <= end)
    found &= program.of_category(Category.TEMPORARIES, Category.UNKNOWN) & (program.let_go != NEVER)
    return found


def first_made(program: Program, state: State) -> int:
    """When the first state of a parameter is made, or would have been: the time just before it."""
    begin = min(int(program.begin[row]) for row in state.rows.values())
    return BEFORE if begin == BEFORE else begin


def after_states(program: Program, span: tuple[int, int]) -> int:
    """When, within a step, the last state has been made: where the step's own work begins."""
    begin, end = span
    is_state = program.of_category(Category.OPTIMIZER_STATE)
    made = program.begin[is_state & (program.begin >= begin) & (program.begin < end)]
    return max(begin, int(made.max(initial=begin)))


def live_temporary_bytes(program: Program) -> int:
    """The most that the temporaries of one step take at once, were all of them made before any is let go of."""
    rows = np.flatnonzero(step_temporaries(program))
    if not len(rows):
        return 0
    times = np.concatenate([program.begin[rows], program.let_go[rows]])
    change = np.concatenate([program.size_bytes[rows], -program.size_bytes[rows]])
    order = np.lexsort((change, times))
    return int(np.cumsum(change[order]).max())
