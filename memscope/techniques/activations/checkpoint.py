"""``checkpoint:every=N``: layers computed again in the backward pass, N of them at a time.

What N layers save inside is let go of as the forward pass goes on; kept is what goes into the first of them. Before
their backward pass everything in them is made again, up to the last tensor that is saved, and then lives as recorded.

Assumes ``torch.utils.checkpoint`` without reentry, which stops early. When a tensor is let go of in a forward pass that
saves nothing is not in the recording: it is taken to be when the second one after it is made. What was made again dies
in the operation that uses it: the input of a product before the gradient of its bias is made, where autograd's own
saved tensors stay until the operation has ended.
Costs the forward pass of the layers a second time. Source: ``torch/utils/checkpoint.py``, read at 2.13; Chen et al.,
Training Deep Nets with Sublinear Memory Cost (2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.tables import NEVER
from memscope.techniques.activations.layers import LayerCall, layer_calls, list_computed_again, main_list
from memscope.techniques.names import layer_of
from memscope.techniques.passes import Pass
from memscope.techniques.program import GAP, NewRows, Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, need_training, whole_number
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int64Array

_NAME = "checkpoint"
_FORWARD_FRAC = 1 / 3
"""A forward pass's share of a step's work: the backward pass is twice as much."""
_N_LATER = 2


def apply(program: Program, text: str) -> Change:
    """Let go of what layers save, and make it again."""
    every = whole_number(_NAME, text, "every")
    need_training(program, _NAME)
    again = list_computed_again(program)
    layers = main_list(program, _NAME) if again is None else again
    parts = f"each of {layers}" if every == 1 else f"each {every} of {layers}"
    how = f"torch.utils.checkpoint.checkpoint(..., use_reentrant=False) around {parts}"
    if every == 1:
        how += "; with transformers: model.gradient_checkpointing_enable()"
    is_in_force = f"{layers} save next to nothing: they are computed again already"
    if again is not None:
        return Change(program, how=how, note=is_in_force)
    changed, n_saved, n_kept = program, 0, 0
    for each in program.passes:
        calls = layer_calls(program, each, layers)
        if not calls:
            raise DoesNotApplyError(f"{_NAME} does not apply: {layers} has no two layers in a forward pass")
        groups = [calls[i : i + every] for i in range(0, len(calls), every)]
        for group in groups:
            region = _region(program, each, group)
            n_saved += int(program.size_bytes[region.saved].sum())
            n_kept += int(program.size_bytes[group[0].input_row])
            changed = _recompute(changed, region, group[0].input_row)
    if n_saved <= n_kept:
        return Change(program, how=how, note=is_in_force)
    cost = Cost(recomputed_frac=_FORWARD_FRAC * _share(program, layers))
    return Change(changed, cost, how=how)


@dataclass(frozen=True, slots=True)
class _Region:
    """Some layers in one pass.

    Attributes
    ----------
    begin, end
        The times of their part of the forward pass.
    rows
        What they make, in order, up to the last that is saved; int64.
    saved
        Those that live into the backward pass: int64.
    again
        When they are made again, in the backward pass.
    """

    begin: int
    end: int
    rows: Int64Array
    saved: Int64Array
    again: int


def _region(program: Program, each: Pass, group: list[LayerCall]) -> _Region:
    begin, end = group[0].begin, group[-1].end
    rows = np.flatnonzero((program.begin >= begin) & (program.begin < end) & (program.let_go <= each.end))
    rows = rows[np.argsort(program.begin[rows], kind="stable")]
    saved = rows[program.let_go[rows] >= each.backward]
    if not len(saved):
        return _Region(begin, end, rows[:0], saved, each.backward - GAP // 2)
    rows = rows[program.begin[rows] <= program.begin[saved].max()]
    # Their backward pass begins when that of what comes after them is over.
    first = int(program.let_go[saved].min())
    later = (program.begin >= end) & (program.begin < each.backward)
    later &= (program.let_go >= each.backward) & (program.let_go < first)
    again = int(program.let_go[later].max(initial=each.backward - GAP // 2))
    return _Region(begin, end, rows, saved, again)


def _recompute(program: Program, region: _Region, input_row: int) -> Program:
    rows, saved = region.rows, region.saved
    if not len(saved):
        return program
    is_saved = np.isin(rows, saved)
    begin, let_go = program.begin[rows], program.let_go[rows]
    times = np.unique(np.concatenate([begin, let_go[let_go < region.end]]))
    new_begin = region.again + 1 + np.searchsorted(times, begin)
    inside = region.again + 1 + np.searchsorted(times, let_go)  # what lives longer is let go of when all is made
    new_end = np.where(is_saved, _last_uses(program, region), inside)
    changed = program.freed_at(_mask(program, saved), _natural_ends(program, region))
    kept = _mask(program, np.array([input_row], np.int64)) & (program.let_go < int(let_go.max()))
    kept &= program.let_go != NEVER
    changed = changed.freed_at(kept, np.full(len(program), int(let_go[is_saved].max()) + 1, np.int64))
    like = np.full(len(rows), NONE_ID, np.int64)
    return changed.with_rows(NewRows(new_begin, new_end, program.size_bytes[rows], rows, like))


def _last_uses(program: Program, region: _Region) -> Int64Array:
    """When each row of a region is used for the last time in the backward pass: int64 by row of the region.

    The gradient of a product's weight is the last that its input is needed for; what is made after it, up to where the
    recording let go of the input, is the gradient of the bias.
    """
    ends = program.let_go[region.rows]
    weights = np.flatnonzero(program.of_category(Category.GRADIENTS) & (program.begin > region.again))
    weights = weights[np.argsort(program.begin[weights], kind="stable")]
    matrices = [row for row in weights.tolist() if len(_shape(program, row)) > 1]
    begins = program.begin[np.array(matrices, np.int64)]
    frees = np.sort(program.let_go[region.saved])
    for position, row in enumerate(region.rows.tolist()):
        at = int(np.searchsorted(begins, ends[position])) - 1
        if at < 0 or ends[position] < region.again:
            continue
        before = int(np.searchsorted(frees, ends[position])) - 1
        is_of_product = before < 0 or frees[before] < begins[at]
        if is_of_product and _shape(program, row)[-1:] and _shape(program, row)[-1] in _shape(program, matrices[at]):
            ends[position] = begins[at] + 1
    return ends


def _shape(program: Program, row: int) -> tuple[int, ...]:
    tensor = program.tensors[row]
    return () if tensor is None else tensor[1]


def _natural_ends(program: Program, region: _Region) -> Int64Array:
    """When each saved row would be let go of if nothing saved it: int64 by row of the program."""
    begins = program.begin[region.rows]
    following = np.searchsorted(begins, program.begin[region.saved]) + _N_LATER
    at = np.append(begins, np.full(_N_LATER + 1, region.end - 2))[following] + 1
    ends = np.zeros(len(program), np.int64)
    ends[region.saved] = np.maximum(at, program.begin[region.saved] + 1)
    return ends


def _mask(program: Program, rows: Int64Array) -> BoolArray:
    found = np.zeros(len(program), np.bool_)
    found[rows] = True
    return found


def _share(program: Program, layers: str) -> float:
    """The share of the model's matrices that lies in the layers: about that of its work."""
    inside = in_all = 0
    for row in np.flatnonzero(program.of_category(Category.WEIGHTS)).tolist():
        tensor, name = program.tensors[row], program.owners[row]
        if tensor is not None and len(tensor[1]) > 1 and program.let_go[row] == NEVER and "embed" not in name:
            found = layer_of(name)
            in_all += int(program.size_bytes[row])
            inside += int(program.size_bytes[row]) if found is not None and found[0] == layers else 0
    return inside / in_all if in_all else 1.0


TECHNIQUE = Technique(
    name=_NAME,
    usage="checkpoint:every=N",
    summary="what N layers at a time save is computed again in the backward pass",
    proof="changed-program",
    apply=apply,
    defaults=("every=1",),
)
