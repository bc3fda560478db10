"""Values that a program reads back on the emulated device: those that are made of the host's numbers are kept beside.

Nothing is computed there, so that every value reads as zero, and a program that looks at a mask or at positions takes a
branch that it would not take on a GPU. What a program makes of whole numbers and truth values that are known (copies
from the host, ``ones``, ``arange``, comparisons, sums over them) is computed on the host as well, and is what it reads.
Only calls of torch made from Python are followed: PyTorch itself runs untouched, and allocates what it would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

MAX_NUMBERS = 1 << 20
"""Tensors of more elements than this are not followed."""
_VALUE = "_memscope_value"
_FACTORIES = frozenset({"zeros", "ones", "full", "arange", "tensor", "as_tensor", "zeros_like", "ones_like", "eye"})
_UNKNOWABLE = ("rand", "empty", "multinomial", "bernoulli", "normal", "uniform", "dropout", "random")
_READS = frozenset(["item", "tolist", "__bool__", "__int__", "__index__", "__float__", "__len__", "numpy", "__repr__"])
_HEALTHY = {"isfinite": True, "isnan": False, "isinf": False}
"""What a healthy run's values are."""


class _Cell:
    """Shared by all tensors of one storage: false once something unknown was written into it."""

    is_valid = True


def follow_values(torch: ModuleType) -> None:
    """Follow, from now on, the values of this thread's tensors on the device."""
    _mode_of(torch).__enter__()


def _mode_of(torch: ModuleType) -> Any:
    from torch.overrides import TorchFunctionMode

    class KnownValues(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if torch.compiler.is_compiling():
                return func(*args, **kwargs)
            name = getattr(func, "__name__", "")
            given = list(_tensors(torch, (*args, *kwargs.values())))
            if name in _READS and given and (known := value_of(given[0])) is not None:
                return func(known, *args[1:], **kwargs)
            if name == "__reduce_ex__":
                return without_value(given[0], lambda: func(*args, **kwargs))
            result = func(*args, **kwargs)
            _follow(torch, func, name, args, kwargs, given, result)
            return result

    return KnownValues()


def value_of(tensor: Any) -> Any:
    """The values of a device tensor as a tensor of the host; None if they are not known."""
    known = getattr(tensor, _VALUE, None)
    return known[0] if known is not None and known[1].is_valid else None


def without_value(tensor: Any, call: Callable[[], Any]) -> Any:
    """What a call makes of a tensor as PyTorch knows it: a checkpoint with our values in it could not be loaded."""
    known = tensor.__dict__.pop(_VALUE, None)
    try:
        return call()
    finally:
        if known is not None:
            setattr(tensor, _VALUE, known)


def _tensors(torch: ModuleType, values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from (part for part in value if isinstance(part, torch.Tensor))


def _follow(
    torch: ModuleType,
    func: Callable[..., Any],
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    given: list[Any],
    result: Any,
) -> None:
    """Carry what is known of the arguments over to what came out; forget what something unknown was written into."""
    made = list(_tensors(torch, (result,)))
    writes = name == "__setitem__" or "out" in kwargs or (name.endswith("_") and not name.endswith("__"))
    if not any(tensor.is_cuda for tensor in (*made, *given)):
        return
    if name in _HEALTHY and len(made) == 1 and made[0].numel() <= MAX_NUMBERS:
        setattr(made[0], _VALUE, (torch.full(tuple(made[0].shape), _HEALTHY[name]), _Cell()))
        return
    is_known = (bool(given) or name in _FACTORIES) and not any(word in name for word in _UNKNOWABLE)
    if name in ("zeros_like", "ones_like"):
        given = []
        is_known = bool(made) and _is_small(made[0])
    is_known = is_known and all(_is_small(tensor) and _host(tensor) is not None for tensor in given)
    if not is_known or not all(map(_is_small, made)):
        if writes:
            _forget(args[0] if args else kwargs.get("out"))
        return
    values = _computed(torch, func, args, kwargs)
    for tensor, value in zip(made, _tensors(torch, (values,)), strict=False):
        if tensor.is_cuda:
            if not any(tensor is argument for argument in given):
                setattr(tensor, _VALUE, (value, _cell_of(tensor, given)))
        elif not any(tensor is argument for argument in given) and any(argument.is_cuda for argument in given):
            tensor.copy_(value)  # a copy on the host: it has the device's garbage


def _is_small(tensor: Any) -> bool:
    is_whole = not (tensor.is_floating_point() or tensor.is_complex())
    return bool(tensor.numel() <= (MAX_NUMBERS if is_whole else 1))


def _host(tensor: Any) -> Any:
    return value_of(tensor) if tensor.is_cuda else tensor


def _cell_of(tensor: Any, given: Sequence[Any]) -> _Cell:
    """The cell of the argument whose memory a result shares, if one does."""
    for argument in given:
        if argument.is_cuda and argument.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            cell: _Cell = getattr(argument, _VALUE)[1]
            return cell
    return _Cell()


def _forget(written: Any) -> None:
    for tensor in written if isinstance(written, tuple | list) else (written,):
        known = getattr(tensor, _VALUE, None)
        if known is not None:
            known[1].is_valid = False


def _computed(torch: ModuleType, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same call on the host's tensors."""

    def on_host(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.is_cuda and getattr(value, _VALUE, None) is None:
                return torch.empty(tuple(value.shape), dtype=value.dtype)  # of which the shape alone is asked
            return _host(value) if value.is_cuda else value.clone()
        if isinstance(value, tuple | list):
            return type(value)(on_host(part) for part in value)
        if isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda")):
            return torch.device("cpu")
        return value

    with torch.no_grad():
        name = getattr(func, "__name__", "")
        if name == "cuda":
            return on_host(args[0]).clone()
        options = {key: on_host(value) for key, value in kwargs.items()}
        values = func(*map(on_host, args), **options)
        moved = name in ("to", "cpu", "clone", "contiguous")
        return values.clone() if moved and isinstance(values, torch.Tensor) else values
