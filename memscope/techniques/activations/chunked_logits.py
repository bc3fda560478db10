"""``logits:chunked[:chunks=N]``: the head and the loss for a part of the tokens at a time.

Everything whose size is tokens times the vocabulary becomes an Nth of it (8 unless given). The parts are computed again
in the backward pass, one after the other; the gradient of the head is there from the first of them on, and each further
part's is made beside it, and added, which makes a third.

Assumes a loss that is summed over parts, each in a checkpoint, as torchtune and Liger's fused cross-entropy do with
other kernels. Costs the head's forward product a second time. Source: ``LinearCrossEntropyLoss`` of torchtune; Hsu et
al., Liger Kernel (2024).
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from memscope.errors import UsageError
from memscope.techniques.activations._batch import batch_of
from memscope.techniques.names import layer_of
from memscope.techniques.passes import Pass
from memscope.techniques.program import GAP, NewRows, Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, need_training, whole_number
from memscope.trace.categories import Category
from memscope.trace.tables import BoolArray

_NAME = "logits"
N_CHUNKS = 8
_WIDEST_BYTES = 8
_FORWARD_FRAC = 1 / 3


def apply(program: Program, text: str) -> Change:
    """Make logits and what is made of them in parts.

    Raises
    ------
    UsageError
        If asked for anything but chunks.
    DoesNotApplyError
        If there is no vocabulary, or nothing has a value for each word of it and each token.
    """
    kind, _, chunks = text.partition(":")
    if kind != "chunked":
        raise UsageError(f"{_NAME}:{text}: it is known as {_NAME}:chunked, or {_NAME}:chunked:chunks=N")
    n_chunks = whole_number(f"{_NAME}:chunked", chunks, "chunks", least=2) if chunks else N_CHUNKS
    need_training(program, f"{_NAME}:chunked")
    n_words = _n_words(program)
    changed, n_found = program, 0
    for each in program.passes:
        n_tokens = batch_of(changed, each, f"{_NAME}:chunked").n_tokens
        rows = _logits(changed, each, n_tokens, n_words)
        n_found += int(np.count_nonzero(rows))
        part = -(-n_tokens // n_chunks)
        if rows.any():
            changed = changed.with_sizes(rows, -(-changed.size_bytes * part // n_tokens))
            changed = _accumulating(changed, each, n_words)
    how = "the loss of hidden.chunk(...), each part's head and cross-entropy in a checkpoint; or a fused cross-entropy"
    if not n_found:
        note = "nothing in this trace has a value for each token and each word: logits are made in parts already"
        return Change(program, how=how, note=note)
    return Change(changed, Cost(recomputed_frac=_FORWARD_FRAC * _head_share(program, n_words)), how=how)


def _n_words(program: Program) -> int:
    """The size of the vocabulary: what the head and the embedding have a row each for."""
    firsts: Counter[int] = Counter()
    for row in np.flatnonzero(program.of_category(Category.WEIGHTS)).tolist():
        tensor = program.tensors[row]
        name = program.owners[row]
        if tensor is not None and len(tensor[1]) == 2 and any(word in name for word in ("embed", "wte", "head")):
            firsts[tensor[1][0]] += 1
    if not firsts:
        raise DoesNotApplyError(
            f"{_NAME}:chunked does not apply: no embedding or head of a vocabulary is known by name in this trace"
        )
    return max(firsts, key=lambda n: (firsts[n], n))


def _logits(program: Program, each: Pass, n_tokens: int, n_words: int) -> BoolArray:
    """What a pass makes for each token and each word: bool (rows,)."""
    inside = program.is_made & (program.begin >= each.forward) & (program.begin < each.end)
    inside &= ~program.of_category(Category.WEIGHTS, Category.GRADIENTS, Category.WORKSPACE)
    n_bytes, rest = np.divmod(program.size_bytes, n_tokens * n_words)
    found: BoolArray = inside & (rest == 0) & (n_bytes >= 1) & (n_bytes <= _WIDEST_BYTES)
    begin, end = _between_layers(program, each)
    for row in np.flatnonzero(found).tolist():
        tensor = program.tensors[row]
        if tensor is None:  # a layer may make something of that size by chance
            found[row] = begin < program.begin[row] < end
        else:
            found[row] = tensor[1][-1:] == (n_words,)
    return found


def _between_layers(program: Program, each: Pass) -> tuple[int, int]:
    """From when the last layer has saved its last until the first of what layers saved is let go of."""
    inside = program.of_category(Category.ACTIVATIONS) & (program.begin >= each.forward)
    inside &= (program.begin < each.backward) & (program.let_go >= each.backward)
    rows = [row for row in np.flatnonzero(inside).tolist() if layer_of(program.owners[row]) is not None]
    if not rows:
        return each.forward, each.end
    return int(program.begin[rows].max()), int(program.let_go[rows].min())


def _accumulating(program: Program, each: Pass, n_words: int) -> Program:
    """The head's gradient stands while the further parts are computed, and each makes one beside it."""
    found = [
        row
        for row in np.flatnonzero(
            program.of_category(Category.GRADIENTS) & (program.begin >= each.backward) & (program.begin < each.end)
        ).tolist()
        if (tensor := program.tensors[row]) is not None and len(tensor[1]) == 2 and tensor[1][0] == n_words
    ]
    if not found:
        return program
    row = min(found, key=lambda row: int(program.begin[row]))
    at, begin = int(program.begin[row]), program.begin.copy()
    begin[row] = each.backward - GAP // 2
    # The engine adds a part's gradient to those before it out of place: two and their sum.
    beside = NewRows.of([(at, at + 1, int(program.size_bytes[row]), row)] * 2, Category.TEMPORARIES)
    return program.begun_at(begin).with_rows(beside)


def _head_share(program: Program, n_words: int) -> float:
    """The head's share of the matrices: about that of its work."""
    head = in_all = 0
    for row in np.flatnonzero(program.of_category(Category.WEIGHTS)).tolist():
        tensor = program.tensors[row]
        if tensor is not None and len(tensor[1]) == 2 and tensor[1][0] == n_words:
            head = int(program.size_bytes[row])
        elif tensor is not None and len(tensor[1]) > 1:
            in_all += int(program.size_bytes[row])
    return head / (head + in_all) if head else 0.0


TECHNIQUE = Technique(
    name=_NAME,
    usage="logits:chunked",
    summary="head and loss for a part of the tokens at a time",
    proof="changed-program",
    apply=apply,
    defaults=("chunked",),
)
