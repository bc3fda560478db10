"""Values that a dry run knows: small tensors made of known numbers only are computed for real beside the fake ones.

Masks of ones, position ids, stop tokens: programs branch on them, and the branch decides what is allocated (a mask that
is all ones is dropped, and the attention kernel that needs none is taken). What depends on weights or on random numbers
is unknown, and a program that reads it gets a fixed answer, which is counted.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

MAX_NUMBERS = 1 << 14
"""Tensors of more elements than this are not followed, with the exception below."""
MAX_WHOLE_NUMBERS = 1 << 20
"""The same for whole numbers and truth values, which is what programs branch on."""
ATTRIBUTE = "_memscope_value"
_UNKNOWABLE = frozenset({"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "_pin_memory"})
_HARMLESS = frozenset({"_amp_foreach_non_finite_check_and_unscale_"})
"""Writes into its inputs only what a healthy run never sees (a gradient that is not finite)."""
_OF_ONE_ANSWER: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("all", "any", "_is_all_true", "_is_any_true", "sum", "alias", "detach", "clone"), lambda one: one),
    **dict.fromkeys(("view", "_unsafe_view", "expand", "transpose", "t", "permute", "unsqueeze"), lambda one: one),
    **dict.fromkeys(("logical_not", "bitwise_not"), operator.invert),
    **dict.fromkeys(("logical_and", "bitwise_and"), operator.and_),
    **dict.fromkeys(("logical_or", "bitwise_or"), operator.or_),
}
"""What a tensor of one truth value for very many is still followed through: one element answers as all do."""
_ABSORBING = {"bitwise_or": True, "logical_or": True, "bitwise_and": False, "logical_and": False}


class _Cell:
    """Shared by all tensors of one storage: false once something unknown was written into it."""

    __slots__ = ("is_valid",)

    def __init__(self) -> None:
        self.is_valid = True


class _Known(NamedTuple):
    """What is known of a tensor; a copy of the tensor holds copies of its values, made out of the dry run's sight."""

    value: torch.Tensor
    cell: _Cell

    def __deepcopy__(self, memo: dict[int, Any]) -> _Known:
        with on_host():
            return _Known(copy.deepcopy(self.value, memo), copy.deepcopy(self.cell, memo))


class _Facts(NamedTuple):
    """What is asked of an operation each time that it runs.

    Attributes
    ----------
    name
        Its base name.
    is_knowable
        Whether known inputs make its results known.
    written
        Position and name of each argument that it writes what cannot be told into.
    """

    name: str
    is_knowable: bool
    written: tuple[tuple[int, str], ...]


_FACTS: dict[Any, _Facts] = {}


def _learned(func: Any) -> _Facts:
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    written = tuple(
        (position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    is_knowable = name not in _UNKNOWABLE and "rand" not in name and "c10d" not in name  # others send what is not here
    facts = _FACTS[func] = _Facts(name, is_knowable, () if name in _HARMLESS else written)
    return facts


@cache
def _fake_type() -> Any:
    """The class of tensors without memory, looked up once: a dry run shows it to others as something else."""
    from torch._subclasses.fake_tensor import FakeTensor

    return FakeTensor


def _is_strided(tensor: torch.Tensor) -> bool:
    import torch

    return tensor.layout is torch.strided


def is_small(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of a size whose values are computed."""
    is_whole = not (tensor.dtype.is_floating_point or tensor.dtype.is_complex)
    return tensor.numel() <= (MAX_WHOLE_NUMBERS if is_whole else MAX_NUMBERS)


def is_worth_knowing(tensor: torch.Tensor) -> bool:
    """Whether a real tensor's values may decide what a program does: whole numbers, truth values, single numbers."""
    return is_small(tensor) and (not tensor.is_floating_point() or tensor.numel() == 1)


@contextmanager
def on_host() -> Iterator[None]:
    """A block in which real tensors are computed with, out of sight of the dry run."""
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        yield


def value_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """The real values of a fake tensor, None if they are not known."""
    known: _Known | None = getattr(tensor, ATTRIBUTE, None)
    return None if known is None or not known.cell.is_valid else known.value


def remember(tensor: torch.Tensor, value: torch.Tensor, cell: _Cell | None = None) -> None:
    """Attach real values to a fake tensor."""
    setattr(tensor, ATTRIBUTE, _Known(value, cell or _Cell()))


def believe(tensor: torch.Tensor, answer: bool) -> None:
    """Say that all truth values of a fake tensor are the same, unless they are known."""
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    if value_of(tensor) is not None:
        return
    with _disable_current_modes():
        # One number stands for all: a mask may be as large as a layer's output.
        remember(tensor, torch.full((), answer).expand(tuple(tensor.shape)))


def forget(tensor: torch.Tensor) -> None:
    """Something unknown was written into the tensor's storage."""
    known = getattr(tensor, ATTRIBUTE, None)
    if known is not None:
        known.cell.is_valid = False


def known_inputs(tensors: Sequence[torch.Tensor], fake_type: type) -> bool:
    """Whether the values of all tensors are known; real ones always are."""
    return all(not isinstance(tensor, fake_type) or value_of(tensor) is not None for tensor in tensors)


def follow(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Sequence[Any], result: Any) -> None:
    """Carry the known values of an operation's inputs over to what it made.

    Parameters
    ----------
    func
        The ATen operation that was just traced.
    args, kwargs
        What it was given.
    tensors
        All tensors among them.
    result
        The fake tensor or tensors that came out.
    """
    facts = _FACTS.get(func) or _learned(func)
    if not (facts.is_knowable and known_inputs(tensors, _fake_type())):
        if facts.name in _ABSORBING:
            _absorb(_ABSORBING[facts.name], tensors, result)
        _forget_written(facts, args, kwargs)
        return
    fake_type = _fake_type()
    given = result if isinstance(result, tuple | list) else (result,)
    outputs = [out for out in given if isinstance(out, fake_type)]
    if any(not _is_strided(out) for out in outputs):
        return
    is_followed = bool(outputs) or bool(facts.written)
    if is_followed and any(map(_is_vast, tensors)):
        _follow_one(facts.name, tensors, outputs)
        is_followed = False
    if not is_followed or not all(map(is_small, outputs)):
        _forget_written(facts, args, kwargs)
        return
    if not tensors and facts.name not in ("ones", "zeros", "full", "arange", "scalar_tensor", "eye"):
        return
    cell = _shared_cell(tensors, outputs)
    real = compute(func, args, kwargs)
    for out, value in zip(outputs, real if isinstance(real, tuple | list) else (real,), strict=False):
        remember(out, value, cell)


def _follow_one(name: str, tensors: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Carry over what one number says of very many: a healthy run's masks of what is finite."""
    values = [value_of(tensor) for tensor in tensors]
    combined = _OF_ONE_ANSWER.get(name)
    if combined is None or len(outputs) != 1:
        return
    firsts = []
    with on_host():
        for tensor, value in zip(tensors, values, strict=True):
            if value is None or not (value.numel() == 1 or _is_vast(tensor)):
                return
            firsts.append(value.flatten()[0])
        answer = combined(*firsts)
        if name == "sum":
            answer = answer.long() * (tensors[0].numel() // max(outputs[0].numel(), 1))
        remember(outputs[0], answer.expand(tuple(outputs[0].shape)))


def _absorb(absorbing: bool, tensors: Sequence[Any], output: Any) -> None:
    """True or unknown is true, false and unknown is false: that is how a length limit ends a loop."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    if not (isinstance(output, _fake_type()) and _is_strided(output)):
        return
    for tensor in tensors:
        value = value_of(tensor)
        if value is None or value.dtype != torch.bool or value.shape != output.shape:
            continue
        with unset_fake_temporarily():
            if bool((value == absorbing).all()):
                remember(output, torch.full(tuple(value.shape), absorbing))


def _forget_written(facts: _Facts, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Nothing is known any more of what an operation has written into."""
    for position, name in facts.written:
        given = args[position] if position < len(args) else kwargs.get(name)
        for tensor in given if isinstance(given, tuple | list) else (given,):
            forget(tensor)


def _shared_cell(tensors: Sequence[Any], outputs: Sequence[Any]) -> _Cell | None:
    """The cell of the input whose storage an output shares, if one does."""
    keys = {out.untyped_storage()._cdata for out in outputs}
    for tensor in tensors:
        known = getattr(tensor, ATTRIBUTE, None)
        if known is not None and tensor.untyped_storage()._cdata in keys:
            cell: _Cell = known[1]
            return cell
    return None


def _is_vast(tensor: torch.Tensor) -> bool:
    """Whether its known values are one number for very many."""
    return not is_small(tensor) and value_of(tensor) is not None


def compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the operation on the real values, on the host."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

    def real(given: Any) -> Any:
        if isinstance(given, FakeTensor):
            value = value_of(given)
            return value if value is None or not _is_vast(given) else value[(slice(1),) * value.dim()]
        if isinstance(given, tuple | list):
            return type(given)(real(part) for part in given)
        return given

    on_host = {name: real(given) for name, given in kwargs.items()}
    if on_host.get("device") is not None:
        on_host["device"] = torch.device("cpu")
    with unset_fake_temporarily(), torch.no_grad():
        return func(*(real(given) for given in args), **on_host)
