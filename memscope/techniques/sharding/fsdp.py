"""``fsdp2:ranks=N``: weights, gradients and states in shards, one a rank; a layer is whole only where it is used.

A rank keeps an Nth of each parameter, by rows of its first dimension, and of its states. Before a layer runs, its
shards are gathered in one buffer (on a stream of its own) and copied out of it, parameter by parameter; the buffer
stays until the next layer's is there. After its forward pass the layer is let go of, and gathered again before its
backward pass, while that of the layer after it is under way. Its gradients are copied into one buffer, let go of, and
reduced to the rank's shard, on another stream; that buffer stays until the next layer's. What lies in no layer is
gathered first, and stays until all is over.

Assumes ``fully_shard`` of each layer and then of the whole model, which was built on the meta device; the recorded
batch on each rank; gradients that are let go of after each step. Costs the weights twice over the links, and the
gradients once. Source: ``torch/distributed/fsdp/_fully_shard``, read at 2.13; Rajbhandari et al., ZeRO (2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.tables import NEVER
from memscope.techniques.activations.layers import LayerCall, layer_calls, list_computed_again, main_list
from memscope.techniques.names import layer_of
from memscope.techniques.passes import Pass
from memscope.techniques.program import NewRows, Program
from memscope.techniques.sharding._parameters import Parameter, gradient_rows, in_shards, parameters_of
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, whole_number
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID

_NAME = "fsdp2"
_LEAST_RANKS = 2


def apply(program: Program, text: str) -> Change:
    """Shard everything, and gather layers where they are used."""
    n_ranks = whole_number(_NAME, text, "ranks", _LEAST_RANKS)
    how = "fully_shard(layer) for each layer, then fully_shard(model); its optimizer is made after that"
    return sharded(program, _NAME, n_ranks, how, frees_after_forward=True)


def sharded(program: Program, technique: str, n_ranks: int, how: str, *, frees_after_forward: bool) -> Change:
    """A program with its model in shards; without ``frees_after_forward`` layers stay until their backward pass.

    Raises
    ------
    DoesNotApplyError
        If it has no layers or parameters that are known, or is sharded already.
    """
    parameters = parameters_of(program, technique)
    layers = list_computed_again(program) or main_list(program, technique)
    units = _units(parameters, layers)
    changed = in_shards(program, parameters, n_ranks)
    changed, gathering = changed.with_stream()
    changed, reducing = changed.with_stream()
    for each in program.passes:
        calls = [call for call in layer_calls(program, each, layers) if call.index in units]
        if not calls:
            raise DoesNotApplyError(f"{technique} does not apply: {layers} has no two layers in a forward pass")
        schedule = _Schedule(program, each, calls, units, n_ranks, frees_after_forward)
        changed = changed.freed_at(*schedule.let_go(len(changed)))
        changed = changed.with_rows(schedule.new_rows(gathering, reducing))
    moved = _moved_bytes(parameters, n_ranks, n_gathers=2 if frees_after_forward else 1)
    assumes = (
        f"each of the {n_ranks:,} ranks has the recorded batch",
        f"{layers} are sharded one by one; the model is built on the meta device",
    )
    return Change(changed, Cost(moved_bytes_per_step=moved, words=f"{n_ranks:,} devices"), how=how, assumes=assumes)


def _units(parameters: Sequence[Parameter], layers: str) -> dict[int, list[Parameter]]:
    """The parameters of each layer by its number, and of what lies in none by −1."""
    found: dict[int, list[Parameter]] = {NONE_ID: []}
    for each in parameters:
        layer = layer_of(each.name)
        found.setdefault(layer[1] if layer is not None and layer[0] == layers else NONE_ID, []).append(each)
    return found


def _moved_bytes(parameters: Sequence[Parameter], n_ranks: int, n_gathers: int) -> int:
    weights = sum(each.size_bytes for each in parameters)
    gradients = sum(each.size_bytes for each in parameters if each.is_trained)
    return (n_gathers * weights + gradients) * (n_ranks - 1) // n_ranks


@dataclass
class _Made:
    """Rows one by one."""

    rows: list[tuple[int, int, int]]
    pairs: list[int]
    categories: list[Category]

    def add(self, begin: int, end: int, size_bytes: int, pair: int, category: Category) -> None:
        self.rows.append((begin, end, size_bytes))
        self.pairs.append(pair)
        self.categories.append(category)


class _Schedule:
    """When the layers of one pass are gathered, let go of and reduced."""

    def __init__(
        self,
        program: Program,
        each: Pass,
        calls: list[LayerCall],
        units: dict[int, list[Parameter]],
        n_ranks: int,
        frees_after_forward: bool,
    ) -> None:
        self._program, self._pass, self._calls, self._units = program, each, calls, units
        self._n_ranks = n_ranks
        self._frees = frees_after_forward
        self._gradients = {
            index: np.concatenate(
                [gradient_rows(program, one.name, each.backward, each.end) for one in members if one.is_trained]
                or [np.empty(0, np.int64)]
            )
            for index, members in units.items()
        }
        self._after = [self._backward_end(call) for call in calls]
        self._main = int(np.bincount(program.pair[program.pair >= 0]).argmax())

    def _backward_end(self, call: LayerCall) -> int:
        """When a layer's backward pass has let go of what the layer had saved, and made its gradients."""
        program, each = self._program, self._pass
        saved = (program.begin >= call.begin) & (program.begin < call.end)
        saved &= (program.let_go >= each.backward) & (program.let_go <= each.end)
        made = program.begin[self._gradients[call.index]]
        # A tensor that the layer saved, and another one further down, too, is let go of there.
        ends = np.sort(program.let_go[saved])
        return max(int(ends[-1]) if len(ends) else each.backward, int(made.max(initial=0)))

    def _whole_bytes(self, parameter: Parameter) -> int:
        return parameter.shard_bytes(self._n_ranks) * self._n_ranks

    def _buffer_bytes(self, index: int, *, is_reduced: bool = False) -> int:
        members = [one for one in self._units[index] if one.is_trained or not is_reduced]
        return sum(map(self._whole_bytes, members))

    def let_go(self, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Which gradients are let go of once they are reduced, and when: bool and int64 (rows,)."""
        rows, times = np.zeros(n_rows, np.bool_), np.zeros(n_rows, np.int64)
        for call, after in zip(self._calls, self._after, strict=True):
            rows[self._gradients[call.index]] = True
            times[self._gradients[call.index]] = after + 4
        root = self._gradients[NONE_ID]
        rows[root], times[root] = True, self._pass.end - 3
        return rows, times

    def new_rows(self, gathering: int, reducing: int) -> NewRows:
        """What is gathered and reduced, in streams of their own."""
        made = _Made([], [], [])
        self._forward(made, gathering)
        if self._frees:
            self._backward(made, gathering)
        self._reduced(made, reducing)
        begin, end, size = (np.array(column, np.int64) for column in zip(*made.rows, strict=True))
        like = np.full(len(begin), NONE_ID, np.int64)
        return NewRows(begin, end, size, like, np.array(made.categories, np.int64), np.array(made.pairs, np.int64))

    def _whole(self, made: _Made, index: int, begin: int, end: int) -> None:
        for one in self._units[index]:
            made.add(begin, end, self._whole_bytes(one), self._main, Category.COMMUNICATION)

    def _forward(self, made: _Made, pair: int) -> None:
        each, calls = self._pass, self._calls
        self._whole(made, NONE_ID, each.forward + 2, each.end - 6)
        begins = [each.forward + 1, *(call.begin + 1 for call in calls)]
        for i, begin in enumerate(begins):
            index = NONE_ID if i == 0 else calls[i - 1].index
            until = begins[i + 1] + 3 if i + 1 < len(begins) else each.modules_end
            made.add(begin, until, self._buffer_bytes(index), pair, Category.COMMUNICATION)
        for call, after in zip(calls, self._after, strict=True):
            end = call.end - 1 if self._frees else after + 1
            self._whole(made, call.index, call.begin + 2, end)

    def _backward(self, made: _Made, pair: int) -> None:
        # Each is gathered while the layer after it is at work, and copied out when that one has ended.
        before = [self._backward_begin(), *(after + 8 for after in self._after[:0:-1])]
        gathered = [self._outer_end(), *(begin + 3 for begin in before[:-1])]
        for i, call in enumerate(reversed(self._calls)):
            made.add(gathered[i], before[i] + 2, self._buffer_bytes(call.index), pair, Category.COMMUNICATION)
            self._whole(made, call.index, before[i] + 1, self._after[len(self._calls) - 1 - i] + 1)

    def _outer_end(self) -> int:
        """When the backward pass of a loss that is none of the model's has ended."""
        program, each = self._program, self._pass
        saved = (program.begin >= each.modules_end) & (program.begin < each.backward)
        saved &= (program.let_go >= each.backward) & (program.let_go <= each.end)
        return int(program.let_go[saved].max(initial=each.backward)) + 1

    def _backward_begin(self) -> int:
        """When the backward pass of the last layer begins: what came after it in the forward pass is over."""
        program, each, last = self._program, self._pass, self._calls[-1]
        inside = (program.begin >= last.begin) & (program.begin < last.end)
        inside &= (program.let_go >= each.backward) & (program.let_go <= each.end)
        first = int(program.let_go[inside].min(initial=each.end))
        later = (program.begin >= last.end) & (program.begin < each.backward)
        later &= (program.let_go >= each.backward) & (program.let_go < first)
        return int(program.let_go[later].max(initial=self._outer_end())) + 8

    def _reduced(self, made: _Made, pair: int) -> None:
        program, each = self._program, self._pass
        order = [(call.index, after) for call, after in zip(self._calls[::-1], self._after[::-1], strict=True)]
        order.append((NONE_ID, each.end - 7))
        for i, (index, after) in enumerate(order):
            rows = self._gradients[index]
            if not len(rows):
                continue
            buffer = self._buffer_bytes(index, is_reduced=True)
            until = order[i + 1][1] + 2 if i + 1 < len(order) else each.end - 1
            made.add(after + 3, until, buffer, self._main, Category.COMMUNICATION)
            ends = int(program.let_go[rows].max())
            made.add(after + 5, NEVER if ends == NEVER else ends, buffer // self._n_ranks, pair, Category.GRADIENTS)


TECHNIQUE = Technique(
    name=_NAME,
    usage="fsdp2:ranks=N",
    summary="weights, gradients and states in shards; layers whole where used",
    proof="changed-program",
    apply=apply,
    defaults=("ranks=8",),
)
