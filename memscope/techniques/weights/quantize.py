"""``quantize:int8|int4|nf4|fp8[:group=N]``: matrices in fewer bits, brought back to their type where they are used.

Each matrix that is not trained becomes its numbers in 8 or 4 bits and what scales them: int8 a scale of the matrix's
own type for each row; int4 a scale of that type and a zero of 4 bits for each group (128 unless given); nf4 a float32
for each group (64 unless given) and a table of 16; fp8 one float32. Embeddings, heads, norms and biases stay. Before
each product the matrix is made whole again, in its own type, and let go of after it.

Assumes that weights come to the device quantised, and kernels that bring a whole matrix back before its product
(bitsandbytes' 4 bits, quanto). What reads the few bits itself (Marlin, Machete) has no such transient. Costs precision
of the weights. Source: GPTQ's and AWQ's packed layouts; bitsandbytes, ``quantize_4bit`` (absmax in blocks of 64);
quanto, ``qint8`` with an axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from memscope.errors import UsageError
from memscope.lifetimes.tables import NEVER
from memscope.techniques.program import BEFORE, NewRows, Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, whole_number
from memscope.trace.categories import Category

_NAME = "quantize"
_BITS = {"int8": 8, "fp8": 8, "int4": 4, "nf4": 4}
_GROUPS = {"int4": 128, "nf4": 64}
_KEPT = ("embed", "wte", "wpe", "lm_head", "norm", "ln_", ".head")
_TABLE_BYTES = 64


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A weight that is quantised."""

    row: int
    module: str
    shape: tuple[int, ...]
    itemsize: int

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)


def apply(program: Program, text: str) -> Change:
    """Put few bits and their scales in place of matrices, and make each whole again where it is used.

    Raises
    ------
    UsageError
        If there is no such format.
    DoesNotApplyError
        If no matrix is known by name and shape, or all of them are trained.
    """
    kind, _, rest = text.partition(":")
    if kind not in _BITS:
        raise UsageError(f"{_NAME}:{text}: choose one of {', '.join(f'{_NAME}:{name}' for name in _BITS)}")
    if rest and kind not in _GROUPS:
        raise UsageError(f"{_NAME}:{kind} has no groups, and {rest!r} means nothing to it")
    group = whole_number(f"{_NAME}:{kind}", rest, "group") if rest else _GROUPS.get(kind, 0)
    matrices = _matrices(program)
    how = {
        "int8": "transformers: QuantoConfig(weights='int8')",
        "int4": "a checkpoint in GPTQ's or AWQ's format",
        "nf4": "transformers: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4')",
        "fp8": "torchao: Float8WeightOnlyConfig()",
    }[kind]
    if all(matrix.itemsize * 8 <= _BITS[kind] for matrix in matrices):
        return Change(program, how=how, note=f"matrices have {_BITS[kind]} bits or fewer already")
    sizes, of_matrix = program.size_bytes.copy(), np.zeros(len(program), np.bool_)
    beside: list[tuple[int, int, int, int]] = []
    for matrix in matrices:
        of_matrix[matrix.row] = True
        sizes[matrix.row] = -(-matrix.n_elements * _BITS[kind] // 8)
        begin = int(program.begin[matrix.row])
        at = begin if begin == BEFORE else begin + 1
        beside += [(at, NEVER, size, matrix.row) for size in _beside(matrix, kind, group)]
    whole = _uses(program, {matrix.module: matrix for matrix in matrices})
    changed = program.with_sizes(of_matrix, sizes).with_rows(NewRows.of(beside, Category.WEIGHTS))
    changed = changed.with_rows(NewRows.of(whole, Category.TEMPORARIES))
    return Change(changed, Cost(precision=f"weights in {kind}, {_BITS[kind]} bits"), how=how)


def _beside(matrix: _Matrix, kind: str, group: int) -> list[int]:
    """Bytes of what scales a matrix."""
    n = matrix.n_elements
    if kind == "int8":
        return [matrix.shape[0] * matrix.itemsize]
    if kind == "fp8":
        return [4]
    n_groups = -(-n // group)
    return [n_groups * matrix.itemsize, -(-n_groups // 2)] if kind == "int4" else [4 * n_groups, _TABLE_BYTES]


def _matrices(program: Program) -> list[_Matrix]:
    """The weights that can be quantised."""
    names = program.owners
    trained = {names[row].removesuffix(".grad") for row in np.flatnonzero(program.of_category(Category.GRADIENTS))}
    trained |= {
        names[row].rpartition(" of ")[2] for row in np.flatnonzero(program.of_category(Category.OPTIMIZER_STATE))
    }
    found, n_trained = [], 0
    for row in np.flatnonzero(program.of_category(Category.WEIGHTS) & (program.let_go == NEVER)).tolist():
        tensor, name = program.tensors[row], names[row]
        is_matrix = tensor is not None and len(tensor[1]) == 2 and name.endswith(".weight")
        if tensor is None or not is_matrix or any(word in f".{name}" for word in _KEPT):
            continue
        n_trained += name in trained
        if name not in trained:
            itemsize = int(program.size_bytes[row]) // max(math.prod(tensor[1]), 1)
            found.append(_Matrix(row, name.removesuffix(".weight"), tensor[1], itemsize))
    if found:
        return found
    if n_trained:
        raise DoesNotApplyError(
            f"{_NAME} does not apply: every matrix is trained in this trace; quantise what is frozen, as with LoRA, or "
            "a model that only generates"
        )
    raise DoesNotApplyError(
        f"{_NAME} does not apply: no matrix is known by name and shape in this trace; a dry run of the program "
        "(memscope run --dry-run) sees both"
    )


def _uses(program: Program, by_module: dict[str, _Matrix]) -> list[tuple[int, int, int, int]]:
    """Each matrix made whole where a product's output is made: just before it, until just after."""
    rows = np.flatnonzero(program.of_category(Category.TEMPORARIES, Category.ACTIVATIONS))
    rows = rows[np.argsort(program.begin[rows], kind="stable")]
    found, before = [], ""
    for row in rows.tolist():
        name = program.owners[row]
        matrix = by_module.get(name)
        if matrix is not None and name != before:
            begin = int(program.begin[row])
            found.append((begin - 1, begin + 1, int(program.size_bytes[matrix.row]), matrix.row))
        before = name
    return found


TECHNIQUE = Technique(
    name=_NAME,
    usage="quantize:int8|int4|nf4|fp8",
    summary="matrices that are not trained in fewer bits",
    proof="changed-program",
    apply=apply,
    defaults=("int8", "int4", "nf4", "fp8"),
)
