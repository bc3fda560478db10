"""Recurrent networks as CUDA has them without cuDNN: a fused cell a step, which keeps its gates for the backward pass.

PyTorch's C++ would take the host's kernels for a dry run's tensors. What cuDNN would reserve instead is its own affair.

Source: ``aten/src/ATen/native/RNN.cpp`` and ``native/cuda/RNN.cu``, read at 2.11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

Hidden = tuple[Any, ...]
"""What a cell hands on: (h,), or (h, c) of an LSTM."""


class _Weights(NamedTuple):
    """A layer's parameters in one direction; None for those that it does not have."""

    w_ih: Any
    w_hh: Any
    b_ih: Any
    b_hh: Any
    w_hr: Any

    def of_input(self, step: Any) -> Any:
        return step @ self.w_ih.t()

    def of_hidden(self, hidden: Any) -> Any:
        return hidden @ self.w_hh.t()


Cell = Callable[[Any, Hidden, _Weights], Hidden]


def _lstm_cell(step: Any, hidden: Hidden, weights: _Weights) -> Hidden:
    import torch

    gates = weights.of_input(step), weights.of_hidden(hidden[0])
    h, c, _ = torch.ops.aten._thnn_fused_lstm_cell(*gates, hidden[1], weights.b_ih, weights.b_hh)
    return (h if weights.w_hr is None else h @ weights.w_hr.t()), c


def _gru_cell(step: Any, hidden: Hidden, weights: _Weights) -> Hidden:
    import torch

    gates = weights.of_input(step), weights.of_hidden(hidden[0])
    return (torch.ops.aten._thnn_fused_gru_cell(*gates, hidden[0], weights.b_ih, weights.b_hh)[0],)


def _simple_cell(activation: str) -> Cell:
    def cell(step: Any, hidden: Hidden, weights: _Weights) -> Hidden:
        import torch

        linear = torch.nn.functional.linear
        summed = linear(hidden[0], weights.w_hh, weights.b_hh).add_(linear(step, weights.w_ih, weights.b_ih))
        return (getattr(torch, activation)(summed),)

    return cell


class _Steps:
    """A sequence: its steps in either order, and the sizes of their batches where they are packed.

    Packed steps are cut out one by one, when their turn comes: the gradient of each is one of all the input.
    """

    def __init__(self, inputs: Any, packed_sizes: list[int] | None) -> None:
        self._inputs, self.packed_sizes = inputs, packed_sizes
        self._unbound = list(inputs.unbind(0)) if packed_sizes is None else []

    def __iter__(self) -> Iterator[Any]:
        if self.packed_sizes is None:
            yield from self._unbound
            return
        for start, n in zip(accumulate(self.packed_sizes, initial=0), self.packed_sizes, strict=False):
            yield self._inputs.narrow(0, start, n)

    def __reversed__(self) -> Iterator[Any]:
        if self.packed_sizes is None:
            yield from reversed(self._unbound)
            return
        end = sum(self.packed_sizes)
        for n in reversed(self.packed_sizes):
            end -= n
            yield self._inputs.narrow(0, end, n)

    def joined(self, outputs: Sequence[Any]) -> Any:
        import torch

        return torch.stack(list(outputs)) if self.packed_sizes is None else torch.cat(list(outputs))


def _forwards(cell: Cell, steps: _Steps, hidden: Hidden, weights: _Weights) -> tuple[list[Any], Hidden]:
    """From the first step to the last; of packed sequences those that have ended are set aside."""
    import torch

    outputs, ended = [], []
    last = steps.packed_sizes[0] if steps.packed_sizes else 0
    for step in steps:
        if steps.packed_sizes and step.size(0) < last:
            ended.append(tuple(part.narrow(0, step.size(0), last - step.size(0)) for part in hidden))
            hidden = tuple(part.narrow(0, 0, step.size(0)) for part in hidden)
            last = step.size(0)
        hidden = cell(step, hidden, weights)
        outputs.append(hidden[0])
    if steps.packed_sizes:
        parts = [hidden, *ended[::-1]]
        hidden = tuple(torch.cat([part[i] for part in parts]) for i in range(len(hidden)))
    return outputs, hidden


def _backwards(cell: Cell, steps: _Steps, hidden: Hidden, weights: _Weights) -> tuple[list[Any], Hidden]:
    """From the last step to the first; packed sequences join in as they begin."""
    import torch

    first, outputs = hidden, []
    if steps.packed_sizes:
        hidden = tuple(part.narrow(0, 0, steps.packed_sizes[-1]) for part in first)
    for step in reversed(steps):
        n = hidden[0].size(0)
        if step.size(0) > n:
            pairs = zip(hidden, first, strict=True)
            hidden = tuple(torch.cat([part, given.narrow(0, n, step.size(0) - n)]) for part, given in pairs)
        hidden = cell(step, hidden, weights)
        outputs.append(hidden[0])
    return outputs[::-1], hidden


class _Network(NamedTuple):
    """What the call of a recurrent network says beside its tensors."""

    cell: Cell
    weights: list[_Weights]
    n_layers: int
    dropout_p: float
    is_bidirectional: bool

    def run(self, inputs: Any, hiddens: list[Hidden], sizes: list[int] | None) -> tuple[Any, list[Hidden]]:
        """All layers; the output, and each layer's and direction's last hidden state."""
        finals: list[Hidden] = []
        for layer in range(self.n_layers):
            inputs = self._layer(layer, inputs, hiddens, sizes, finals)
            if self.dropout_p and layer < self.n_layers - 1:
                inputs = _dropped(inputs, self.dropout_p)
        return inputs, finals

    def _layer(
        self, layer: int, inputs: Any, hiddens: list[Hidden], sizes: list[int] | None, finals: list[Hidden]
    ) -> Any:
        import torch

        steps, joined = _Steps(inputs, sizes), []
        for direction in range(1 + self.is_bidirectional):
            at = layer * (1 + self.is_bidirectional) + direction
            run = _backwards if direction else _forwards
            outputs, final = run(self.cell, steps, hiddens[at], self.weights[at])
            joined.append(steps.joined(outputs))
            finals.append(final)
        return torch.cat(joined, -1) if self.is_bidirectional else joined[0]


def _dropped(tensor: Any, p: float) -> Any:
    import torch

    return torch.native_dropout(tensor, p, True)[0]


def _weights(flat: Sequence[Any], has_biases: bool, is_projected: bool) -> list[_Weights]:
    n = 2 + 2 * has_biases + is_projected
    groups = [list(flat[at : at + n]) for at in range(0, len(flat), n)]
    no_biases = [] if has_biases else [None, None]
    return [_Weights(*[*group[:2], *no_biases, *group[2:], None][:5]) for group in groups]


def _called(cell: Cell, n_states: int) -> Callable[..., Any]:
    """A network as ``torch`` has it, for sequences of one length (a tensor and states) and packed ones."""

    def network(*args: Any) -> Any:
        is_packed = not isinstance(args[3], bool)
        if is_packed:
            inputs, sizes, hx, flat, has_biases, n_layers, dropout, train, both = args
            is_batch_first, sizes = False, sizes.tolist()
        else:
            inputs, hx, flat, has_biases, n_layers, dropout, train, both, is_batch_first = args
            sizes = None
        states = tuple(hx) if n_states == 2 else (hx,)
        is_projected = n_states == 2 and states[0].size(-1) != states[1].size(-1)
        hiddens = list(zip(*(state.unbind(0) for state in states), strict=True))
        weights = _weights(flat, has_biases, is_projected)
        made = _Network(cell, weights, n_layers, dropout if train else 0.0, both)
        output, finals = made.run(inputs.transpose(0, 1) if is_batch_first else inputs, hiddens, sizes)
        return (output.transpose(0, 1) if is_batch_first else output, *_stacked(finals))

    return network


def _stacked(finals: list[Hidden]) -> tuple[Any, ...]:
    import torch

    return tuple(torch.stack([final[i] for final in finals]) for i in range(len(finals[0])))


def _one_step(cell: Cell, n_states: int) -> Callable[..., Any]:
    """A cell as ``torch`` has it."""

    def step(inputs: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        hidden = cell(inputs, tuple(hx) if n_states == 2 else (hx,), _Weights(w_ih, w_hh, b_ih, b_hh, None))
        return hidden if n_states == 2 else hidden[0]

    return step


def _pad_packed(data: Any, batch_sizes: Any, is_batch_first: bool, padding: float, total_length: int) -> Any:
    """Packed sequences padded to one length: runs of steps with as many sequences are copied together."""
    import torch

    sizes = [int(n) for n in batch_sizes.tolist()]
    padded = data.new_full((max(total_length, len(sizes)), sizes[0], *data.shape[1:]), padding)
    start = offset = 0
    for step in range(1, len(sizes) + 1):
        if step == len(sizes) or sizes[step] != sizes[start]:
            n, n_steps = sizes[start], step - start
            run = data.narrow(0, offset, n * n_steps).view(n_steps, n, *data.shape[1:])
            padded.narrow(0, start, n_steps).narrow(1, 0, n).copy_(run)
            start, offset = step, offset + n * n_steps
    lengths = torch.tensor([sum(n > sequence for n in sizes) for sequence in range(sizes[0])])
    return padded.transpose(0, 1) if is_batch_first else padded, lengths


NETWORKS: dict[str, Callable[..., Any]] = {
    "lstm": _called(_lstm_cell, 2),
    "gru": _called(_gru_cell, 1),
    "rnn_tanh": _called(_simple_cell("tanh"), 1),
    "rnn_relu": _called(_simple_cell("relu"), 1),
    "lstm_cell": _one_step(_lstm_cell, 2),
    "gru_cell": _one_step(_gru_cell, 1),
    "_pad_packed_sequence": _pad_packed,
}
"""What stands in for the functions of ``torch`` of these names."""


def _lstm_made(args: tuple[Any, ...]) -> tuple[Any, ...]:
    gates, cx = args[0], args[2]
    return cx.new_empty(tuple(cx.shape)), cx.new_empty(tuple(cx.shape)), gates.new_empty(tuple(gates.shape))


def _lstm_gradients(args: tuple[Any, ...]) -> tuple[Any, ...]:
    cx, workspace, has_bias = args[2], args[4], args[5]
    gates, n = workspace.new_empty(tuple(workspace.shape)), workspace.size(-1)
    return gates, cx.new_empty(tuple(cx.shape)), workspace.new_empty((n,)) if has_bias else None


def _gru_made(args: tuple[Any, ...]) -> tuple[Any, ...]:
    hx = args[2]
    return hx.new_empty(tuple(hx.shape)), hx.new_empty((hx.size(0), 5 * hx.size(1)))


def _gru_gradients(args: tuple[Any, ...]) -> tuple[Any, ...]:
    grad, _, has_bias = args
    n, width = grad.shape
    gates = [grad.new_empty((n, 3 * width)) for _ in range(2)]
    biases = [grad.new_empty((3 * width,)) if has_bias else None for _ in range(2)]
    return (*gates, grad.new_empty((n, width)), *biases)


def _packed(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sequences of known lengths one step after the other, and how many there are at each."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    padded, lengths = args[:2]
    with unset_fake_temporarily():
        steps = [int(n) for n in lengths.tolist()]
        sizes = torch.tensor([sum(n > step for n in steps) for step in range(max(steps))])
    return padded.new_empty((sum(steps), *padded.shape[2:])), sizes


SHAPES: dict[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {
    "_pack_padded_sequence": _packed,
    "_thnn_fused_lstm_cell": _lstm_made,
    "_thnn_fused_lstm_cell_backward_impl": _lstm_gradients,
    "_thnn_fused_gru_cell": _gru_made,
    "_thnn_fused_gru_cell_backward": _gru_gradients,
}
"""The results of operations for which PyTorch has no rule of shapes."""
