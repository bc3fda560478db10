"""The layers of a model as its forward pass shows them: where each begins and ends, and what goes in and out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from memscope.techniques.names import layer_of
from memscope.techniques.passes import Pass
from memscope.techniques.program import Program
from memscope.techniques.technique import DoesNotApplyError
from memscope.trace.categories import Category
from memscope.trace.tables import BoolArray, Int64Array

_LEAST_LAYERS = 2


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One layer's part of one forward pass.

    Attributes
    ----------
    index
        Its number in its list.
    begin, end
        Times: what is made in between is made by it, its output not counted.
    input_row
        The row of what goes in.
    """

    index: int
    begin: int
    end: int
    input_row: int


def main_list(program: Program, technique: str) -> str:
    """The list of layers that saves most for the backward pass.

    Raises
    ------
    DoesNotApplyError
        If no modules are known by name, or no list has two layers.
    """
    found = _largest_list(program, program.of_category(Category.ACTIVATIONS))
    if found is None:
        raise DoesNotApplyError(
            f"{technique} does not apply: no list of layers with saved activations is known by name in this trace; "
            "record it with memscope run, or memscope.record(…, model=model)"
        )
    return found


def list_computed_again(program: Program) -> str | None:
    """The list of layers that save nothing, since every backward pass runs them again; None where there is none.

    What a layer makes has its name only where the layer runs: what autograd makes of it has the pass's.
    """
    if _largest_list(program, program.of_category(Category.ACTIVATIONS)) is not None:
        return None
    made = program.of_category(Category.TEMPORARIES)
    found = {
        _largest_list(program, made & (program.begin >= each.backward) & (program.begin < each.end))
        for each in program.passes
    }
    return found.pop() if len(found) == 1 else None


def _largest_list(program: Program, among: BoolArray) -> str | None:
    """The list of two layers or more that has the most bytes of some rows; None where none has."""
    bytes_of: Counter[str] = Counter()
    members: dict[str, set[int]] = {}
    for row in np.flatnonzero(among).tolist():
        found = layer_of(program.owners[row])
        if found is not None:
            bytes_of[found[0]] += int(program.size_bytes[row])
            members.setdefault(found[0], set()).add(found[1])
    return next((name for name, _ in bytes_of.most_common() if len(members[name]) >= _LEAST_LAYERS), None)


def layer_calls(program: Program, each: Pass, layers: str) -> list[LayerCall]:
    """The layers that a forward pass calls, in order; a layer that is called again counts once."""
    rows = np.flatnonzero((program.begin >= each.forward) & (program.begin < each.backward))
    rows = rows[np.argsort(program.begin[rows], kind="stable")]
    number = np.full(len(rows), -1, np.int64)
    for position, row in enumerate(rows.tolist()):
        found = layer_of(program.owners[row])
        if found is not None and found[0] == layers:
            number[position] = found[1]
    first: dict[int, int] = {}
    for position, index in enumerate(number.tolist()):
        if index >= 0:
            first.setdefault(index, position)
    if len(first) < _LEAST_LAYERS:
        return []
    starts = sorted(first.values())
    last = int(np.flatnonzero(number >= 0)[-1])
    borders = [_border(program, rows, number, start) for start in (*starts, last + 1)]
    sizes = Counter(int(program.size_bytes[row]) for _, row in borders[1:])
    borders[0] = _first_border(program, rows, starts[0], borders[0], sizes.most_common(1)[0][0])
    indices = sorted(first, key=first.__getitem__)
    return [
        # The output is what begins at the next border, or just before it.
        LayerCall(index, borders[i][0], int(program.begin[borders[i + 1][1]]), borders[i][1])
        for i, index in enumerate(indices)
    ]


def _border(program: Program, rows: Int64Array, number: Int64Array, start: int) -> tuple[int, int]:
    """When a layer begins, and the row of what goes in, from the position of the first row that has its name.

    What a layer's first operation saves has its name, though the layer before made it: then parts of that one are still
    at work.
    """
    if start >= len(rows):
        row = int(rows[-1])
        return int(program.begin[row]) + 1, row
    row, before = int(rows[start]), rows[:start]
    at, previous = int(program.begin[row]), int(number[start - 1]) if start else -1
    working = before[(program.let_go[before] > at) & (number[:start] == previous)]
    inside = any(
        program.category[other] == Category.TEMPORARIES and (previous < 0 or program.owners[other].count(".") > 1)
        for other in working.tolist()
        if not _is_whole_layer(program.owners[other])
    )
    if inside:
        return at + 1, row
    alive = before[program.let_go[before] > at]
    return (at - 1, int(alive[-1])) if len(alive) else (at + 1, row)


def _is_whole_layer(name: str) -> bool:
    """Whether a name is a layer's own, not that of a part of it."""
    found = layer_of(name)
    return found is not None and name == f"{found[0]}.{found[1]}".lstrip(".")


def _first_border(
    program: Program, rows: Int64Array, start: int, found: tuple[int, int], size_bytes: int
) -> tuple[int, int]:
    """The first layer's border: what goes in has the size of what goes into the others."""
    if int(program.size_bytes[found[1]]) == size_bytes and start:
        return found
    at = int(program.begin[rows[start]])
    alive = (program.begin < at) & (program.let_go > at) & (program.size_bytes == size_bytes)
    alive &= program.of_category(Category.INPUTS, Category.ACTIVATIONS, Category.TEMPORARIES)
    candidates = np.flatnonzero(alive)
    if not len(candidates):
        return at - 1, found[1]
    return at - 1, int(candidates[np.argmax(program.begin[candidates])])
