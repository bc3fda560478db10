"""Results whose shape depends on values that a dry run does not have: the largest that there can be, or what is known.

What a rule makes is made by torch functions, so that it is allocated like any other tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run.values import known


def result_of_unknown(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation returns at most; None if there is no bound.

    Parameters
    ----------
    kind
        Base name of the operation.
    args, kwargs
        What it was given.
    """
    rule = _RULES.get(kind)
    return None if rule is None else rule(args, kwargs)


def _nonzero(args: tuple[Any, ...], _: dict[str, Any]) -> Any:
    import torch

    return args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.int64)


def _masked_select(args: tuple[Any, ...], _: dict[str, Any]) -> Any:
    return args[0].new_empty((args[0].numel(),))


def _unique(inverse_at: int, n_results: int) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    """As many values as there are; places and counts, asked for from one position on, are empty where they were not."""

    def rule(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import torch

        tensor, n = args[0], args[0].numel()
        asked = [*args[inverse_at : inverse_at + 2], False, False]
        with_inverse = kwargs.get("return_inverse", asked[0])
        with_counts = kwargs.get("return_counts", asked[1])
        inverse = tensor.new_empty(tuple(tensor.shape) if with_inverse else (0,), dtype=torch.int64)
        counts = tensor.new_empty((n if with_counts else 0,), dtype=torch.int64)
        return (tensor.new_empty((n,)), inverse, counts)[:n_results]

    return rule


def _unique_dim(args: tuple[Any, ...], _: dict[str, Any]) -> Any:
    import torch

    tensor, dim = args[:2]
    index = tensor.new_empty((tensor.shape[dim],), dtype=torch.int64)
    return tensor.new_empty(tuple(tensor.shape)), index, index.new_empty(tuple(index.shape))


def _index(args: tuple[Any, ...], _: dict[str, Any]) -> Any:
    import torch

    tensor, indices = args[:2]
    expanded: list[Any] = []
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            flat = index.new_empty((index.numel(),), dtype=torch.int64)
            expanded.extend(flat for _ in range(index.dim()))
        else:
            expanded.append(index)
    return torch.ops.aten.index.Tensor(tensor, expanded)


def _bincount(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The bins that were asked for: programs ask for as many as there are classes, or experts."""
    import torch

    weights = args[1] if len(args) > 1 else kwargs.get("weights")
    n_bins = args[2] if len(args) > 2 else kwargs.get("minlength", 0)
    if not n_bins:
        return None
    return args[0].new_empty((n_bins,), dtype=torch.int64 if weights is None else torch.float64)


def _pack_padded_sequence(args: tuple[Any, ...], _: dict[str, Any]) -> Any:
    """The rows of all sequences one after the other; their lengths are on the host, and known."""
    import torch

    rows, lengths, batch_first = args[:3]
    with known.on_host():
        n_steps, n_rows = rows.shape[:2] if not batch_first else (rows.shape[1], rows.shape[0])
        sizes = torch._pack_padded_sequence(torch.zeros(n_steps, n_rows, 1), lengths, False)[1]
        n_packed = int(lengths.sum())
    return rows.new_empty((n_packed, *rows.shape[2:])), sizes


def _ctc_loss(args: tuple[Any, ...], _: dict[str, Any]) -> Any:
    """Loss of each sequence, and the table of its paths: two cells for each symbol of the longest target, and one."""
    logarithms, targets, _, lengths = args[:4]
    longest = _longest(lengths, targets)
    n_steps, n_rows = logarithms.shape[:2]
    return logarithms.new_empty((n_rows,)), logarithms.new_empty((n_rows, n_steps, 2 * longest + 1))


def _longest(lengths: Any, targets: Any) -> int:
    import torch

    value = known.value_of(lengths) if isinstance(lengths, torch.Tensor) else torch.tensor(lengths)
    if value is None:
        return int(targets.shape[-1])
    with known.on_host():
        return int(value.max())


def _like_first(args: tuple[Any, ...], _: dict[str, Any]) -> Any:
    import torch

    return torch.empty_like(args[0])


_RULES: dict[str, Callable[[tuple[Any, ...], dict[str, Any]], Any]] = {
    "nonzero": _nonzero,
    "masked_select": _masked_select,
    "_unique": _unique(2, 2),
    "_unique2": _unique(2, 3),
    "unique_consecutive": _unique(1, 3),
    "unique_dim": _unique_dim,
    "index": _index,
    "bincount": _bincount,
    "_pack_padded_sequence": _pack_padded_sequence,
    "_ctc_loss": _ctc_loss,
    "_standard_gamma": _like_first,
    "_standard_gamma_grad": _like_first,
    "_sample_dirichlet": _like_first,
    "_dirichlet_grad": _like_first,
    "binomial": _like_first,
}
_LIKE_A_SPARSE_ONE = frozenset(["clone", "_to_copy", "_coalesce", "neg", "mul", "div", "add", "sub", "add_", "sub_"])
_SUMS = frozenset(["add", "sub", "add_", "sub_"])


def sparse_result(kind: str, args: tuple[Any, ...], *, is_by_engine: bool = False) -> Any:
    """What is made of a sparse tensor, of which PyTorch's own rules keep no element; None for other operations.

    A sum has the elements of both; how many fall on one place is not known, so that joining them leaves as many. The
    autograd engine keeps a gradient's indices and values where it can, and copies none.
    """
    import torch

    if kind == "sparse_mask" and _is_sparse(args[1]):
        return sparse_result("clone", args[1:])
    if kind in _SUMS and not _is_sparse(args[0]) and _is_sparse(args[1]):
        return args[0] if kind.endswith("_") else args[0].new_empty(tuple(args[0].shape))
    if kind not in _LIKE_A_SPARSE_ONE or not _is_sparse(args[0]):
        return None
    parts = [value for value in args[: 2 if kind in _SUMS else 1] if _is_sparse(value)]
    indices, values = parts[0]._indices(), parts[0]._values()
    is_coalesced = kind == "_coalesce" or (len(parts) == 1 and parts[0].is_coalesced())
    if not (kind == "clone" and is_by_engine and indices.is_contiguous() and values.is_contiguous()):
        n = sum(part._indices().shape[1] for part in parts)
        indices, values = indices.new_empty((indices.shape[0], n)), values.new_empty((n, *values.shape[1:]))
    made = _sparse(indices, values, args[0].shape)._coalesced_(is_coalesced)
    return torch.ops.aten.copy_sparse_to_sparse_.default(args[0], made) if kind.endswith("_") else made


def _is_sparse(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.layout == torch.sparse_coo


def _sparse(indices: Any, values: Any, shape: Any) -> Any:
    import torch

    return torch.ops.aten._sparse_coo_tensor_unsafe.default(indices, values, tuple(shape))


FACTORIES = frozenset(
    [
        *("empty", "empty_strided", "empty_permuted", "zeros", "ones", "full", "eye", "arange", "linspace"),
        *("rand", "randn", "randint", "randperm", "normal"),
    ]
)
"""Operations that make tensors of nothing."""
OF_KNOWN_SHAPE = frozenset({"_pack_padded_sequence"} | {name for name, rule in _RULES.items() if rule is _like_first})
"""Whose results have the very shape, though PyTorch has no rule for it."""


def n_numbers(kind: str, args: tuple[Any, ...]) -> int:
    """How many elements a factory is asked for."""
    if kind in ("arange", "linspace", "randperm"):
        bounds = [arg for arg in args[:3] if isinstance(arg, int | float)]
        return int(max(map(abs, bounds), default=0))
    if kind == "eye":
        return int(args[0] * (args[1] if len(args) > 1 and isinstance(args[1], int) else args[0]))
    n = 1
    for shape in args:
        if isinstance(shape, tuple | list):
            for size in shape:
                n *= int(size)
            break
    return n
